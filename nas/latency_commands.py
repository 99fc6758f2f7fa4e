"""``nas build-lut``, ``nas devices`` and ``nas lut``: latency tables, made, looked at and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas import completion, defaults
from nas.options import DataOption, DeviceOption, JsonOption, MismatchOption, RunOption, SeedOption, SpaceOption
from nas.progress import progress_bar, progress_bars
from nas.terminal import command_group, warn
from search_spaces.errors import CheckError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.block_cache import BlockCache
    from nas.devices import Device, KitDevice
    from nas.lut_plan import TablePlan
    from nas.run import Run
    from predictors.latency import LatencyTable
    from search_spaces.spec import BlockSpec

lut_app = command_group("Look at a latency table, or check it against new measurements.")


def build_lut_command(
    *,
    device: DeviceOption = defaults.DEVICE,
    run: RunOption = defaults.RUN,
    space: SpaceOption = None,
    data: DataOption = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="With --device kit: what the other device is called.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="KIT.zip", help="With --device kit: the archive to write.")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE", help="Results that a kit brought back; may be repeated."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--transfer-from",
            metavar="DEVICE",
            help="Take blocks from its table; measure whole networks only.",
            autocompletion=completion.devices,
        ),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure the latency table of a device; needs no training."""
    from nas.devices import KitDevice, parse_device
    from nas.run import Run

    target = parse_device(device)
    kit = isinstance(target, KitDevice)
    if results and (name or out or source):
        raise InputError("--from takes results back; --name, --out and --transfer-from are for making a kit")
    if not kit and (name or out):
        raise InputError("--name and --out are for another device: add --device kit")
    opened = Run.open(run, space=space, data=data)
    with opened.lock():
        if results:
            _take_back(opened, results, as_json=as_json)
        elif isinstance(target, KitDevice):
            _make_kit(opened, target, name, out, source, seed=seed, as_json=as_json)
        else:
            _measure_here(opened, target, source, seed=seed, as_json=as_json)


def _planned(
    opened: Run, target: Device, source: str | None, *, seed: int, quiet: bool
) -> tuple[TablePlan, BlockCache, LatencyTable | None]:
    """Return what to measure on a device, the blocks for it, and the table that it is transferred from, if any."""
    from nas.devices import parse_device
    from nas.files import make_folder
    from nas.lut_plan import plan_table, plan_transfer, planned_blocks
    from predictors.latency import LatencyPredictor

    known = None
    if source is None:
        plan = plan_table(opened.space, target, seed=seed)
    else:
        known = opened.latency_table(parse_device(source))
        if known.device == target.name:
            raise InputError(f"--transfer-from {source} names the device that is measured; give another one")
        if known.source is not None:
            raise InputError(f"the table of {source} has the blocks of {known.source.device}: transfer from that one")
        opened.require_this_exporter(known)
        plan = plan_transfer(LatencyPredictor(opened.space, known), target, seed=seed)
    make_folder(opened.lut_path(target).parent)
    cache = _filled_cache(opened, planned_blocks(plan, opened.space), target, quiet=quiet)
    opened.fix()
    return plan, cache, known


def _measure_here(opened: Run, target: Device, source: str | None, *, seed: int, as_json: bool) -> None:
    import shutil

    from nas import present_lut
    from nas.lut import build_lut
    from nas.run import require_usable

    require_usable(target)
    plan, cache, known = _planned(opened, target, source, seed=seed, quiet=as_json)
    path = opened.lut_path(target)
    work_dir = path.with_suffix(".work")
    with progress_bars("preparing models", "measuring", quiet=as_json) as (preparing, progress):
        table = build_lut(
            plan,
            opened.space,
            cache,
            target,
            work_dir=work_dir,
            source=known,
            preparing=preparing,
            progress=progress,
        )
    _store(opened, target, table)
    shutil.rmtree(work_dir)
    present_lut.table(opened, table, path, as_json=as_json)


def _make_kit(
    opened: Run,
    target: KitDevice,
    name: str | None,
    out: Path | None,
    source: str | None,
    *,
    seed: int,
    as_json: bool,
) -> None:
    import dataclasses
    import tempfile

    from nas import present_lut
    from nas.files import write_atomic
    from nas.kit import write_kit
    from search_spaces.documents import pretty_json

    if name is not None:
        target = dataclasses.replace(target, target=name)
    if not target.target or out is None:
        raise InputError("a kit needs --name NAME, what the device is called, and --out KIT.zip, where to write it")
    plan, cache, _ = _planned(opened, target, source, seed=seed, quiet=as_json)
    with (
        tempfile.TemporaryDirectory(prefix="nas-kit-") as folder,
        progress_bars("preparing models", "packing", quiet=as_json) as (preparing, progress),
    ):
        record = write_kit(
            plan, opened.space, cache, target, out, work_dir=Path(folder), preparing=preparing, progress=progress
        )
    write_atomic(opened.kit_path(target, record.manifest.hash), pretty_json(record))
    present_lut.kit(opened, record, out, as_json=as_json)


def _take_back(opened: Run, results: list[Path], *, as_json: bool) -> None:
    from nas import present_lut
    from nas.devices import parse_device
    from nas.kit import kit_results
    from nas.lut import table_of

    record, measured = kit_results(results, opened.kits())
    if record.plan.space_hash != opened.space.hash:
        raise InputError(f"{results[0]}: is of another space than this run's")
    target, source = parse_device(record.plan.device), record.plan.source
    known = opened.latency_table(parse_device(source.device)) if source else None
    table = table_of(record.plan, opened.space, measured, known)
    _store(opened, target, table)
    present_lut.table(opened, table, opened.lut_path(target), as_json=as_json)


def _store(opened: Run, target: Device, table: LatencyTable) -> None:
    from nas.files import write_atomic
    from search_spaces.documents import pretty_json

    write_atomic(opened.lut_path(target), pretty_json(table))


def _filled_cache(opened: Run, blocks: Sequence[BlockSpec], target: Device, *, quiet: bool) -> BlockCache:
    from nas.files import make_folder

    cache = opened.block_cache(target.batch, target.precision)
    make_folder(cache.directory)
    with progress_bar("exporting blocks", quiet=quiet) as progress:
        cache.fill(blocks, progress)
    return cache


def devices_command(*, as_json: JsonOption = False) -> None:
    """List what this machine can measure on, and for the rest, why not."""
    from nas import present_lut
    from nas.devices import DEVICES, parse_device

    present_lut.devices({name: parse_device(name).obstacle for name in DEVICES}, as_json=as_json)


@lut_app.command("show")
def show(
    *,
    device: DeviceOption = defaults.DEVICE,
    run: RunOption = defaults.RUN,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write every block to a CSV file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a table: what kinds of blocks cost, the slowest, the staircase in channels, how good it is."""
    from nas import present_lut
    from nas.devices import parse_device
    from nas.files import write_atomic
    from nas.run import Run
    from predictors.latency import LatencyPredictor
    from predictors.table_frame import table_frame

    opened = Run.existing(run, first="nas build-lut")
    table = opened.latency_table(parse_device(device))
    latency = LatencyPredictor(opened.space, table)
    frame = table_frame(latency)
    if csv is not None:
        write_atomic(csv, frame.to_csv(index=False))
    present_lut.shown(latency, frame, csv, as_json=as_json)


@lut_app.command("check")
def check(
    *,
    device: DeviceOption = defaults.DEVICE,
    run: RunOption = defaults.RUN,
    networks: Annotated[int, typer.Option("--networks", min=10, help="How many new networks to measure.")] = 100,
    allow_mismatch: MismatchOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure whole networks that a table has never seen, and compare with what it predicts."""
    import shutil

    from nas import present_lut
    from nas.devices import parse_device
    from nas.lut_check import check_lut
    from nas.run import Run
    from predictors.latency import LatencyPredictor
    from search_spaces.documents import content_hash

    target = parse_device(device)
    opened = Run.existing(run, first="nas build-lut")
    table = opened.latency_table(target)
    if told := opened.require_this_machine(target, table, allow_mismatch=allow_mismatch):
        warn(told)
    latency = LatencyPredictor(opened.space, table)
    # What is left of a killed check is only good for the same check.
    folder = opened.lut_path(target).with_suffix(".check")
    work_dir = folder / content_hash([table.created, table.calibration, networks, seed], 8)
    with opened.lock():
        cache = _filled_cache(opened, opened.space.blocks, target, quiet=as_json)
        with progress_bar("measuring", quiet=as_json) as progress:
            result = check_lut(
                latency, cache, target, networks=networks, work_dir=work_dir, seed=seed, progress=progress
            )
        shutil.rmtree(folder)
    present_lut.checked(table, result, as_json=as_json)
    if result.verdict == "missed":
        raise CheckError(f"the table of {table.device} misses its promise: {', '.join(result.steady_error.shortfalls)}")
    if result.verdict == "drifted":
        raise CheckError(
            f"{table.device} runs {result.drift_percent:+.1f} % slower than its table says: build it again"
        )


def analyze_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL.onnx|ID",
            help="A file, or the id of an exported network.",
            autocompletion=completion.exports,
        ),
    ],
    *,
    device: DeviceOption = defaults.DEVICE,
    run: RunOption = defaults.RUN,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Show where a model's time goes, layer by layer, and how far that is from what the machine could do."""
    from nas import present_lut
    from nas.analysis import analyze
    from nas.devices import LocalDevice, parse_device
    from nas.files import make_folder, write_atomic
    from nas.run import Run
    from search_spaces.documents import pretty_json

    target = parse_device(device)
    if not isinstance(target, LocalDevice):
        raise InputError(f"device {target.name} is another machine; layers are told apart here alone")
    path, kept = Path(model), None
    if not path.suffix and not path.exists():
        opened = Run.existing(run, first="nas train")
        path, kept = opened.exported_model(model), opened.analysis_path(model, target)
    with progress_bar("measuring", quiet=as_json) as progress:
        result = analyze(path, device=target, seed=seed, progress=progress)
    if kept is not None:
        make_folder(kept.parent)
        write_atomic(kept, pretty_json(result))
    present_lut.analysis(result, kept, as_json=as_json)
