"""Commands that make a network of a front a thing of its own: exported, verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas import completion, defaults
from nas.options import JsonOption, MismatchOption, RunOption, SeedOption
from nas.progress import progress_bar
from nas.terminal import warn
from search_spaces.errors import CheckError, InputError, MachineError

if TYPE_CHECKING:
    from nas.data import ImageData
    from nas.devices import Precision
    from nas.export import ExportedModel
    from nas.run import Run

_DEFAULT_LOST = 1.0
PickOption = Annotated[
    str,
    typer.Option(
        "--pick",
        metavar="best|knee|ID",
        help="Which network of the last search.",
        autocompletion=completion.networks,
    ),
]
FrontOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Of which device's front.  [default: of the last search]",
        autocompletion=completion.fronts,
    ),
]


def export_command(
    *,
    pick: PickOption = "best",
    budget: Annotated[
        str | None,
        typer.Option("--budget-ms", metavar="MS", help="A tighter budget than that of the search, or a share."),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            autocompletion=completion.formats,
            metavar="LIST",
            help="onnx, onnx-int8, pt2, safetensors, with commas; that of the device always.  [default: that one]",
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="ONNX files take any number of images, not the device's.")
    ] = False,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="ONNX files take uint8 NHWC pixels and normalise them.")
    ] = False,
    most_lost: Annotated[
        float,
        typer.Option("--most-lost", min=0.0, max=100.0, metavar="POINTS", help="What 8 bits may cost in accuracy."),
    ] = _DEFAULT_LOST,
    finetuned: Annotated[
        bool, typer.Option("--finetuned", help="With the weights that nas finetune gave the network.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write anew what was exported before.")] = False,
    device: FrontOption = None,
    run: RunOption = defaults.RUN,
    allow_mismatch: MismatchOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a network of the last search as files that stand alone, checked against the supernet."""
    from nas import present_export
    from nas.budget import parse_budget
    from nas.devices import parse_device
    from nas.export.record import parse_formats
    from nas.run import Run, is_here
    from predictors.latency import LatencyPredictor

    opened = Run.existing(run, first="nas train")
    opened.require_supernet()
    front = opened.front(device)
    targets = [parse_device(each.device) for each in front.devices]
    wanted = parse_formats(formats, targets[0].precision)
    if budget is not None:
        table = LatencyPredictor(opened.space, opened.latency_table(targets[0]))
        front = front.inside(parse_budget(budget, table, at=front.budget_at))
    candidate = front.pick(pick)
    directory = opened.export_dir(candidate.id, targets[0], finetuned=finetuned)
    for target in filter(is_here, targets):
        if told := opened.require_this_machine(target, opened.latency_table(target), allow_mismatch=allow_mismatch):
            warn(told)
    from nas.export.subnet import ExportOptions, export_subnet, require_free

    options = ExportOptions(formats=wanted, dynamic_batch=dynamic_batch, pixels=pixels, most_lost=most_lost / 100.0)
    from nas.finetune import load_finetuned

    with opened.lock(), progress_bar("exporting", quiet=as_json) as progress:
        require_free(directory, force=force)
        tuned = None
        if finetuned:
            spec = opened.space.lower(opened.space.check([candidate.genes])[0])
            tuned = load_finetuned(
                opened.tuned_dir(candidate.id), spec, genes=candidate.genes, supernet_hash=front.supernet_hash
            )
        exported = export_subnet(
            opened.evaluator(precision=targets[0].precision),
            front,
            candidate,
            directory=directory,
            options=options,
            tuned=tuned,
            force=force,
            seed=seed,
            progress=progress,
            notice=warn,
        )
    present_export.exported(opened, exported, directory, as_json=as_json)
    if not exported.inside_budget:
        raise CheckError("the exported file was measured outside the budget")


def finetune_command(
    *,
    pick: PickOption = "best",
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="fp32|int8",
            help="int8 trains against the rounding of 8 bits.  [default: of the device]",
        ),
    ] = None,
    norms: Annotated[
        str | None,
        typer.Option(
            "--norms",
            metavar="batch|frozen",
            help="Batch norm's statistics: of batches, or kept.  [default: batch, for int8 frozen]",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps.  [default: 1120]")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", min=1e-9, help="Its peak.  [default: the supernet's]"),
    ] = None,
    distillation: Annotated[
        float, typer.Option("--distillation", min=0.0, max=1.0, help="Share of the largest subnet's answers.")
    ] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace what was trained with other settings.")] = False,
    device: FrontOption = None,
    run: RunOption = defaults.RUN,
    accelerator: Annotated[str, typer.Option("--accelerator", help="What to train on: auto, cpu or cuda.")] = "auto",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a network of the last search further by itself; nas export --finetuned writes it."""
    from nas import present_export
    from nas.devices import PRECISIONS, parse_device
    from nas.run import Run
    from nas.training_record import parse_accelerator
    from search_spaces.errors import unknown_name

    target = parse_accelerator(accelerator)
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    opened = Run.existing(run, first="nas train")
    trained = opened.require_supernet()
    front = opened.front(device)
    candidate = front.pick(pick)
    wanted = precision or parse_device(front.device).precision
    chosen = next(each for each in PRECISIONS if each == wanted)
    directory = opened.tuned_dir(candidate.id)
    from nas.finetune import NORMS, STEPS, finetune_settings, finetune_subnet
    from nas.memory import keep_freed_memory

    kept = next((each for each in NORMS if each == norms), None)
    if norms is not None and kept is None:
        raise unknown_name("kind of norms", norms, NORMS)
    settings = finetune_settings(
        trained.config,
        steps=steps or STEPS,
        learning_rate=learning_rate,
        norms=kept,
        precision=chosen,
        distillation=distillation,
        seed=seed,
    )
    keep_freed_memory()
    with opened.lock(), progress_bar("training further", quiet=as_json) as progress:
        record = finetune_subnet(
            opened.evaluator(),
            candidate,
            settings,
            directory=directory,
            force=force,
            accelerator=target,
            progress=progress,
            notice=warn,
        )
    present_export.finetuned(opened, record, directory, as_json=as_json)


def verify_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `nas export` wrote, such as RUN/exports/ID.")],
    *,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Images to count accuracies on.  [default: those of the run, if DIR is in it]"),
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Count on the test split, too, which is a read of it.")] = False,
    run: RunOption = defaults.RUN,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Check an exported network: files, answers, accuracy, and latency on this machine."""
    from nas import present_export
    from nas.export.record import read_export
    from nas.export.verify import verify_export
    from nas.ledger import accuracy_evaluator
    from nas.run import Run

    record = read_export(folder)
    # What lies around a folder from elsewhere is not trusted: only the run that is named, or the default one.
    holding = Run.holding(run, folder, record.space_hash)
    images, obstacle = _images(holding, record, data, quiet=as_json)
    if images is None and (test or data):
        raise InputError(f"{obstacle}; --test and --data need images")
    ours = holding is not None and images is not None and data is None
    same = ours and images is not None and images.content_hash == record.data.content_hash

    def count(precision: Precision, accuracy: float) -> None:
        if holding is None or not same:
            warn("this read of the test split is counted nowhere: the folder is not in the run, or of other images")
            return
        name = accuracy_evaluator(record.weights_hash, "test", precision)
        holding.ledger.record(name, record.space_hash, record.candidate.genes, accuracy, {"read_by": "verify"})

    with progress_bar("verifying", quiet=as_json) as progress:
        found = verify_export(folder, record, data=images, test=test, count=count, seed=seed, progress=progress)
    if obstacle:
        warn(f"accuracies were not counted: {obstacle}")
    present_export.verified(found, record, as_json=as_json)
    if found.failed:
        raise CheckError(f"{folder}: {len(found.failed)} of {len(found.checks)} checks failed")


def _images(
    holding: Run | None, record: ExportedModel, data: str | None, *, quiet: bool
) -> tuple[ImageData | None, str]:
    """Return the images to count on, or None and why there are none."""
    from nas.data import load_data
    from nas.run import SPLIT_SEED

    if data is None and holding is None:
        told = f"(they were of {record.data.name})"
        return None, f"the folder is not in the run: name its own with --run, or the images with --data {told}"
    with progress_bar("reading images", quiet=quiet) as progress:
        if data is not None:
            resolution = record.data.resolution
            return load_data(data, resolution=resolution, seed=SPLIT_SEED, progress=progress), ""
        assert holding is not None
        try:
            return holding.load_data(progress), ""
        except (InputError, MachineError) as error:
            return None, str(error)
