"""What commands print: a table for people, or one JSON object whose keys carry units."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from nas.budget import rounded_up
from nas.data import SPLITS, ImageData, told_unreadable
from nas.front import Candidate, Comparison, Front
from nas.run import Run, run_option
from nas.terminal import print_json, print_table, say, warn
from nas.wording import accuracy_text, in_words, ms_text
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.baseline_record import Baseline
    from nas.bench import BenchReport
    from nas.evaluate import AccuracySummary
    from nas.search_plan import SearchPlan
    from nas.training_record import InitialWeights, TrainingRecord

_SHOWN = 4  # names of tensors


def training(run: Run, images: ImageData, record: TrainingRecord, summary: AccuracySummary, *, as_json: bool) -> None:
    """Print where a supernet stands after training, or after it was imported."""
    if as_json:
        print_json(
            {
                "run": str(run.path),
                "supernet": str(run.supernet_dir),
                "unreadable_images": list(images.unreadable),
                "initial": record.initial,
                "teacher": record.teacher,
                "validation_accuracy": summary,
            }
        )
        return
    count = f"{in_words(run.space.count())} networks"
    origin = f", imported from {record.imported_from}, on" if record.imported_from else " trained on"
    say(f"Supernet of space {run.space.name} ({count}){origin} {run.settings.data}.")
    if record.initial is not None:
        say(_started_from(record.initial))
    if record.teacher is not None:
        right = _percent(record.teacher.train_accuracy)
        say(f"Taught by {record.teacher.source}, which has {right} of the training images right.")
    say(
        f"Search-validation accuracy ({summary.images} images): largest {_percent(summary.largest)}, "
        f"random {_percent(summary.random)}, smallest {_percent(summary.smallest)}."
    )
    say("Next: nas build-lut --device cpu" + run_option(run.path))


def _started_from(initial: InitialWeights) -> str:
    lists = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
        for what, names in (("drawn at random", initial.drawn), ("not used", initial.unused))
        if names
    ]
    return f"Started from {initial.source}: " + ", ".join([f"{initial.matched} tensors taken over", *lists]) + "."


def fronts(run: Run, results: Sequence[Front], *, next_step: str, written: bool, as_json: bool) -> None:
    """Print the fronts of one or more devices; `written` if the run keeps them."""
    if as_json:
        kept: dict[str, object] = {"file": str(run.front_path)} if written else {}
        objects = [_front_json(each) for each in results]
        print_json(kept | (objects[0] if len(objects) == 1 else {"fronts": objects}))
        return
    for each in results:
        _front(each)
    say(f"Next: {next_step}{f' --device {quote(results[0].name)}' if written and len(results) > 1 else ''}")


def _front_json(result: Front) -> dict[str, object]:
    """Return a front as a plain value, without the genes of all that was asked for."""
    plain = {"best": result.best.id} | dataclasses.asdict(result)
    del plain["asked"]
    if result.comparison is not None:
        del plain["comparison"]["against_asked"]
    return plain


def _front(result: Front) -> None:
    _candidates(result)
    sustained = "" if result.budget_at == "min" else f" ({result.budget_at} of running back to back)"
    for asked, latency_ms in zip(result.devices, result.best.everywhere_ms, strict=True):
        low, high = asked.reachable_ms
        reach = f"the space is predicted to reach from {ms_text(low)} ms to {ms_text(high)} ms"
        if asked.budget_ms is None:
            say(f"No budget on {asked.device}{sustained}; {reach}.")
            continue
        binds = "" if asked.budget_binds else ", so the budget does not bind"
        say(
            f"Budget: {ms_text(asked.budget_ms)} ms on {asked.device}{sustained}, of which the best uses "
            f"{latency_ms / asked.budget_ms:.0%}; {reach}{binds}."
        )
    if result.bounds:
        say("Bounds: " + ", ".join(f"{name} <= {limit:.10g}" for name, limit in result.bounds.items()) + ".")
    say(_origin(result))
    if result.dropped:
        names = ", ".join(
            f"{candidate.id} ({', '.join(map(ms_text, candidate.everywhere_ms))} ms)" for candidate in result.dropped
        )
        say(f"Dropped, predicted inside the budget but not measured safely inside: {names}")
    if result.comparison is not None:
        say(_compared(result.comparison))


def _origin(result: Front) -> str:
    """Say which evaluated networks a front is of."""
    images = f"{result.validation_images} search-validation images"
    if result.evaluations:
        return f"{result.evaluations} networks evaluated on {images}; of all that were ever, {result.known} are inside."
    unmeasured = any(None in each.measured_everywhere_ms for each in result.candidates)
    return f"Of the {result.known} networks inside that were evaluated before, on {images}." + (
        f" Those without a measured latency are predicted inside by {result.margin:.1%} or more." if unmeasured else ""
    )


def search_plans(plans: Sequence[SearchPlan], *, as_json: bool) -> None:
    """Print what searches could reach and what they would take."""
    if as_json:
        objects = [dataclasses.asdict(plan) for plan in plans]
        print_json(objects[0] if len(objects) == 1 else {"plans": objects})
        return
    for plan in plans:
        _search_plan(plan)


def _search_plan(plan: SearchPlan) -> None:
    print_table(
        ["cost", "smallest", "largest", "at most"],
        [
            [name, rounded_up(low), rounded_up(high), f"{plan.asked[name]:.6g}" if name in plan.asked else "-"]
            for name, (low, high) in plan.reachable.items()
        ],
        title=f"What the space reaches on {' + '.join(plan.devices)}",
    )
    say(f"{plan.known} networks that were evaluated are inside.")
    if not plan.evaluations:
        say("The front would be of these, at once; with --evaluations N it would be searched on.")
        return
    each_s = plan.seconds_per_evaluation
    took = "" if each_s is None else f", of about {each_s:.2g} s each: {plan.evaluations * each_s / 60:.1f} minutes"
    say(f"The search would evaluate at most {plan.evaluations} networks{took}; then the finalists are measured.")


def baselines(
    run: Run,
    results: Sequence[Baseline],
    best: Candidate | None,
    record: TrainingRecord,
    data: ImageData,
    *,
    as_json: bool,
) -> None:
    """Print hand-made networks beside the best inside the same latency that the last search found, if it found any."""
    from nas.fitting import images_seen, networks_per_image

    seen = images_seen(record.trained, data)
    if as_json:
        print_json(
            {
                "baselines": [dataclasses.asdict(result) for result in results],
                "best": None if best is None else dataclasses.asdict(best),
                "supernet_seconds": record.seconds,
                "supernet_images_seen": seen,
            }
        )
        return
    rows = [
        [
            result.plan.preset,
            accuracy_text(result.validation_accuracy, result.validation_standard_error),
            ms_text(result.plan.latency_ms),
            *_size(result.params, result.macs),
            f"{result.images_seen:,}",
            f"{result.seconds:.0f}",
        ]
        for result in results
    ]
    if best is not None:
        rows.insert(
            0,
            [
                f"{best.id} (search)",
                accuracy_text(best.validation_accuracy, best.validation_standard_error),
                ("" if best.measured_latency_ms else "predicted ") + ms_text(best.latency_ms),
                *_size(best.params, best.macs),
                f"{seen:,}",
                f"{record.seconds:.0f}",
            ],
        )
    print_table(
        ["network", "val. accuracy", "ms", "params", "MACs", "images", "seconds"],
        rows,
        title="Hand-made networks (measured ms, images seen, seconds of training)",
    )
    if best is not None:
        for result in results:
            say(_difference(best, result))
        say(
            "The searched network has the weights of the supernet, whose training counts in full (not the search"
            + (f", nor what {record.initial.source} cost, which it started from" if record.initial else "")
            + f"), and in which every image trains {_networks(networks_per_image(record.trained))}."
        )
    else:
        say(
            "The last search has no network that runs inside this latency undisturbed: nas search --budget-ms "
            f"...{run_option(run.path)}"
        )
    say(f"Kept in {run.path / 'baselines'}")


def _networks(count: int) -> str:
    return "one network" if count == 1 else f"{count} networks"


def left_out(images: ImageData, *, strict: bool = False) -> None:
    """Warn of images that cannot be read, or refuse them."""
    if images.unreadable:
        told = f"{images.name}: {told_unreadable(images.unreadable)}"
        if strict:
            raise InputError(f"{told}; mend or remove them, or leave out --strict to train without them")
        warn(f"{told}; they are left out")


def data(images: ImageData, path: Path, *, as_json: bool) -> None:
    """Print what a picture of a data set shows."""
    sizes = {name: len(images.split(name).labels) for name in SPLITS}
    if as_json:
        print_json(
            {
                "file": str(path),
                "data": images.name,
                "resolution": images.resolution,
                "channels": images.channels,
                "class_names": list(images.class_names),
                "images": sizes,
                "unreadable_images": list(images.unreadable),
            }
        )
        return
    counts = ", ".join(f"{size:,} {name}" for name, size in sizes.items())
    say(f"{images.name}: {len(images.class_names)} classes, {counts} images of {images.resolution} pixels.")
    say(f"Training images: {path}")


def bench(report: BenchReport, *, as_json: bool) -> None:
    """Print measured files."""
    if as_json:
        print_json(report.to_json())
        return
    print_table(
        ["file", "latency ms", "noise", "p50 ms", "p90 ms"],
        [
            [
                name,
                ms_text(row.latency_ms),
                f"{row.noise_percent:.1f} %",
                ms_text(row.p50_ms),
                ms_text(row.p90_ms),
            ]
            for name, row in zip(_short_names([row.file for row in report.rows]), report.rows, strict=True)
        ],
        title=f"{report.device}: lower quartile of interleaved rounds; percentiles of a sustained run",
    )


def _candidates(result: Front) -> None:
    best, ties = result.best, result.ties
    guessed = result.others and any(None in each.measured_everywhere_ms for each in result.candidates)
    signs = ["* best"]
    signs += ["= as accurate within one standard error"] if ties else []
    signs += ["? predicted"] if guessed else []
    told = {*result.objectives, *result.bounds}
    extra = {name: title for name, title in (("file_mb", "file MB"), ("memory_mb", "mem MB")) if name in told}
    # Of several devices, the best figure there is: a table is as wide as a terminal.
    latencies = ["predicted ms", "measured ms"]
    if result.others:
        latencies = [f"ms on {each.device}" for each in result.devices]
    print_table(
        ["id", "val. accuracy", *latencies, "params", "MACs", *extra.values()],
        [
            [
                candidate.id + (" *" if candidate == best else " =" if candidate in ties else ""),
                accuracy_text(candidate.validation_accuracy, candidate.validation_standard_error),
                *_latencies(candidate),
                *_size(candidate.params, candidate.macs),
                *(f"{getattr(candidate, name):.3g}" for name in extra),
            ]
            for candidate in result.candidates
        ],
        title=f"Front on {result.name} ({', '.join(signs)})",
        whole=2,
    )


def _latencies(candidate: Candidate) -> list[str]:
    if candidate.others:
        every = zip(candidate.everywhere_ms, candidate.measured_everywhere_ms, strict=True)
        return [ms_text(latency_ms) + (" ?" if measured is None else "") for latency_ms, measured in every]
    measured = candidate.measured_latency_ms
    return [ms_text(candidate.predicted_latency_ms), "-" if measured is None else ms_text(measured)]


def _short_names(files: Sequence[str]) -> list[str]:
    """Return file names without their folders where that tells them apart."""
    names = [Path(file).name for file in files]
    return names if len(set(names)) == len(set(files)) else list(files)


def _compared(comparison: Comparison) -> str:
    ours, theirs = comparison.hypervolume, comparison.against_hypervolume
    gain = f" ({ours / theirs - 1:+.1%})" if theirs > 0 else ""
    return (
        f"Hypervolume, one seed: {comparison.strategy} {ours:.4g} after {comparison.evaluations} evaluations, "
        f"{comparison.against} {theirs:.4g} after {comparison.against_evaluations}{gain}."
    )


def _difference(best: Candidate, result: Baseline) -> str:
    """Say how far a searched network is ahead of a hand-made one, or behind it, in percentage points."""
    gain = best.validation_accuracy - result.validation_accuracy
    error = math.hypot(best.validation_standard_error, result.validation_standard_error)
    verdict = "within two standard errors" if abs(gain) <= 2 * error else ("a win" if gain > 0 else "a loss")
    return f"Searched against {result.plan.preset}: {100 * gain:+.1f} ± {100 * error:.1f} points ({verdict})."


def _size(params: int, macs: int) -> tuple[str, str]:
    return f"{params / 1e3:.0f} k", f"{macs / 1e6:.2f} M"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
