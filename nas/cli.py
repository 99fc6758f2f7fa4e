"""The command line: arguments in, library calls, text or one JSON object out; errors in one line.

Exit codes: 0 done, 1 a check failed, 2 bad input, 3 the machine failed. Heavy packages load inside the commands, so
that ``nas --help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import gc
import io
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from nas import (
    completion,
    defaults,
    export_commands,
    latency_commands,
    report_commands,
    run_commands,
    search_commands,
    space_commands,
)
from nas.options import DataOption, DeviceOption, JsonOption, MismatchOption, RunOption, SeedOption, SpaceOption
from nas.progress import ignore, no_progress, progress_bar, progress_bars
from nas.terminal import command_group, say_error, warn
from search_spaces.errors import InputError, ToolError

app = typer.Typer(
    name="nas",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From one weight-sharing supernet to the best network for your device and your latency budget.",
    epilog="Start with: nas train; nas build-lut --device cpu; nas search --budget-ms 50%; nas export",
)


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer's signature of a callback
    if value:
        from importlib.metadata import version

        typer.echo(f"paretonas {version('paretonas')}")
        raise typer.Exit


data_app = command_group("Look at a data set.")
app.add_typer(data_app, name="data")
app.add_typer(latency_commands.lut_app, name="lut")
app.add_typer(space_commands.app, name="space")


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    if (defaults.RUN / "space.json").exists():
        run_commands.status_command()
    else:
        typer.echo(context.get_help())


@app.command(short_help="Train a run's supernet once, or go on with it.")
def train(
    *,
    run: RunOption = defaults.RUN,
    space: SpaceOption = None,
    data: DataOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="Training settings; other options come before.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option("--init", metavar="FILE|RUN", help="Start from a run's weights, .safetensors or published .pth."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="FILE.onnx", help="Learn from its answers, too; or MODULE:FUNCTION."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Images per step.")] = None,
    accelerator: Annotated[str, typer.Option("--accelerator", help="What to train on: auto, cpu or cuda.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse images that are damaged, not leave them out.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log for TensorBoard, into the run's supernet/tensorboard.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of all random draws.  [default: 0]")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the supernet of a run once; goes on where it was stopped."""
    from nas import present
    from nas.run import Run
    from nas.training_record import parse_accelerator, training_config
    from search_spaces.catalogue import usual_training

    given = {"steps": steps, "batch_size": batch_size, "seed": seed}
    target = parse_accelerator(accelerator)
    opened = Run.open(run, space=space, data=data)
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = training_config(config, chosen, usual_training(opened.settings.space))
    from nas.distributed import joined
    from nas.memory import keep_freed_memory
    from nas.optimization import choose_accelerator
    from nas.training import train_supernet

    keep_freed_memory()
    with joined(choose_accelerator(target)) as ranks, opened.lock() if ranks.first else nullcontext():
        quiet = as_json or not ranks.first
        with progress_bar("reading images", quiet=quiet) as progress:
            images = opened.load_data(progress)
        if ranks.first:
            present.left_out(images, strict=strict)
            opened.fix()
        stages = ["asking the teacher", "training"] if teacher else ["training"]
        with progress_bars(*stages, quiet=quiet) as (*before, progress):
            record = train_supernet(
                opened.space,
                images,
                settings,
                directory=opened.supernet_dir,
                accelerator=target,
                initial=init,
                teacher=teacher,
                tensorboard=tensorboard,
                ranks=ranks,
                preparing=before[0] if before else no_progress,
                progress=progress,
                notice=warn if ranks.first else ignore,
            )
        if not ranks.first:
            return
        evaluator = opened.evaluator(images)
        with progress_bar("evaluating", quiet=as_json) as progress:
            summary = evaluator.summary(progress=progress)
    present.training(opened, images, record, summary, as_json=as_json)


@app.command("import-ofa", short_help="Take published Once-for-All weights as the supernet.")
def import_ofa(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Published weights, a .pth file.")],
    *,
    run: RunOption = defaults.RUN,
    space: Annotated[
        str, typer.Option("--space", help="ofa-mbv3 with its options, such as ofa-mbv3:width=1.0.")
    ] = "ofa-mbv3",
    data: DataOption = None,
    new_classifier: Annotated[
        bool,
        typer.Option(
            "--new-classifier",
            help="For other classes: leave the last layer untrained.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring published Once-for-All MobileNetV3 weights into a run, as if its supernet had been trained."""
    from nas import present
    from nas.files import make_folder
    from nas.ofa_weights import read_weights
    from nas.run import Run
    from nas.training import save_supernet
    from nas.training_record import find_record

    opened = Run.open(run, space=space, data=data)
    with opened.lock():
        if find_record(opened.supernet_dir) is not None:
            raise InputError(f"{run} has a supernet already; use another --run")
        with progress_bar("reading images", quiet=as_json) as progress:
            images = opened.load_data(progress)
        present.left_out(images)
        supernet = read_weights(opened.space, checkpoint, new_classifier=new_classifier)
        opened.fix()
        make_folder(opened.supernet_dir)
        record = save_supernet(
            supernet,
            opened.space,
            data_hash=images.content_hash,
            directory=opened.supernet_dir,
            imported_from=checkpoint.name + (", with an untrained last layer" if new_classifier else ""),
        )
        evaluator = opened.evaluator(images)
        with progress_bar("evaluating", quiet=as_json) as progress:
            summary = evaluator.summary(progress=progress)
    present.training(opened, images, record, summary, as_json=as_json)


app.command("build-lut")(latency_commands.build_lut_command)
app.command("devices", short_help="List what this machine can measure on.")(latency_commands.devices_command)
app.command("analyze", short_help="Show where a model's time goes, layer by layer.")(latency_commands.analyze_command)


app.command("search", short_help="Find the most accurate networks inside a budget.")(search_commands.search_command)
app.command("work", short_help="Evaluate networks for a search in another process.")(run_commands.work_command)
app.command("front", short_help="Show the front of what was evaluated before.")(search_commands.front_command)
app.command("status")(run_commands.status_command)
app.command("report", short_help="Write a page of what a run holds, or compare two.")(report_commands.report_command)


app.command("export", short_help="Write a network as files that stand alone.")(export_commands.export_command)
app.command("finetune", short_help="Train one network of the front further.")(export_commands.finetune_command)
app.command("verify", short_help="Check an exported network: files, answers, latency.")(export_commands.verify_command)


@app.command(short_help="Measure ONNX files as the latency table was measured.")
def bench(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="ONNX files, also foreign ones; none means all exports of the run."),
    ] = None,
    device: DeviceOption = defaults.DEVICE,
    sustained: Annotated[
        float | None,
        typer.Option("--sustained", min=0.1, metavar="S", help="Run each file so long for percentiles.  [default: 5]"),
    ] = None,
    run: RunOption = defaults.RUN,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure ONNX files by the protocol of the latency table, in fresh processes."""
    from nas import present
    from nas.bench import bench_files
    from nas.devices import parse_device
    from nas.run import Run, require_here

    target = parse_device(device)
    require_here(target)
    if not files:
        files = Run.existing(run, first="nas train").exported_models()
    with progress_bar("measuring", quiet=as_json) as progress:
        report = bench_files(files, device=target, sustained_s=sustained, seed=seed, progress=progress)
    present.bench(report, as_json=as_json)


@app.command("baseline", short_help="Train hand-made networks of the same latency.")
def baseline_command(
    *,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="mobilenetv2, mobilenetv3, convnext, hybrid, shvit or all.",
            autocompletion=completion.presets,
        ),
    ] = "all",
    budget: Annotated[
        str | None,
        typer.Option("--budget-ms", metavar="MS", help="Milliseconds, or a share.  [default: as the front's best]"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimiser steps.  [default: those of the supernet]")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1.0, help="Train for about so long instead.")
    ] = None,
    device: DeviceOption = defaults.DEVICE,
    run: RunOption = defaults.RUN,
    accelerator: Annotated[str, typer.Option("--accelerator", help="What to train on: auto, cpu or cuda.")] = "auto",
    allow_mismatch: MismatchOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train hand-made networks of the same latency, to see whether the search was worth it."""
    from nas import present
    from nas.budget import parse_budget
    from nas.devices import parse_device
    from nas.run import Run, require_plain, require_same_images
    from nas.training_record import parse_accelerator
    from predictors.latency import LatencyPredictor
    from search_spaces.presets import PRESETS, find_preset

    if steps is not None and seconds is not None:
        raise InputError("give --steps or --seconds, not both: they say the same thing")
    presets = list(PRESETS.values()) if preset == "all" else [find_preset(preset)]
    target, trained_on = parse_device(device), parse_accelerator(accelerator)
    require_plain(target)
    opened = Run.existing(run, first="nas train")
    record = opened.require_supernet()
    table = opened.latency_table(target)
    if told := opened.require_this_machine(target, table, allow_mismatch=allow_mismatch):
        warn(told)
    latency = LatencyPredictor(opened.space, table)
    kept = opened.fronts() if budget is None else search_commands.readable_fronts(opened)
    front = kept.fronts.get(target.name) if kept else None
    if budget is not None:
        limit_ms = parse_budget(budget, latency).measured_limit_ms
    elif front is not None and front.budget_at == "min":
        limit_ms = front.best.latency_ms
    else:
        raise InputError(f"no search was for undisturbed runs on device {target.name}; give --budget-ms")
    from nas.baseline import baseline_folder, plan_baseline, train_baseline
    from nas.memory import keep_freed_memory

    keep_freed_memory()
    config = dataclasses.replace(record.trained.lasting(steps or record.trained.steps), seed=seed)
    plans, results = [], []
    with opened.lock():
        with progress_bar("reading images", quiet=as_json) as progress:
            images = opened.load_data(progress)
        require_same_images(images, record)
        for each in presets:
            name = baseline_folder(
                each, limit_ms, config, seconds=seconds, data=images, device=target, accelerator=trained_on
            )
            folder = opened.path / "baselines" / name
            with progress_bar(f"measuring {each.name}", quiet=as_json) as progress:
                plan = plan_baseline(
                    each,
                    limit_ms,
                    config,
                    seconds=seconds,
                    data=images,
                    latency=latency,
                    cache=opened.block_cache(target.batch),
                    device=target,
                    directory=folder,
                    accelerator=trained_on,
                    progress=progress,
                )
            plans.append((plan, folder))
        for plan, folder in plans:
            with progress_bar(f"training {plan.preset}", quiet=as_json) as progress:
                results.append(
                    train_baseline(plan, images, directory=folder, accelerator=trained_on, progress=progress)
                )
    rival = front.within(limit_ms, device=target.name, supernet_hash=record.supernet_hash) if front else None
    present.baselines(opened, results, rival, record, images, as_json=as_json)


@data_app.command("show")
def show_data(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.png", help="Where to write.  [default: data.png in the run]")
    ] = None,
    run: RunOption = defaults.RUN,
    space: SpaceOption = None,
    data: DataOption = None,
    columns: Annotated[int, typer.Option("--columns", min=1, max=100, help="Images of each class.")] = 12,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a picture of training images, at the size that the networks see."""
    from nas import present
    from nas.data.picture import sample_picture
    from nas.files import make_folder, write_atomic
    from nas.run import Run

    opened = Run.open(run, space=space, data=data)
    path = out or opened.path / "data.png"
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} should end in .png")
    with progress_bar("reading images", quiet=as_json) as progress:
        images = opened.load_data(progress)
    present.left_out(images)
    make_folder(path.parent)
    write_atomic(path, sample_picture(images, columns=columns, seed=seed))
    present.data(images, path, as_json=as_json)


_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    gc.freeze()  # what the imports made stays: collections need not go through it
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign shows another one
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors that a person can mend become one line on standard error."""
    try:
        code = typer.main.get_command(app)(args=arguments, prog_name="nas", standalone_mode=False)
    except ToolError as error:
        return _fail(str(error), error.exit_code)
    except TyperException as error:  # unknown option, missing argument, value of a wrong type
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "nas"
        return _fail(f"{error.format_message()} ({command} --help lists what there is)", 2)
    except BrokenPipeError:
        # Whoever read our output is gone: leave without a second error at shutdown.
        sys.stdout = None
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 3)
    if code == _INTERRUPTED:  # what typer makes of Ctrl-C
        return _fail("interrupted; what was finished is kept, give the same command again", _INTERRUPTED)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    say_error(" ".join(message.split()))
    return code
