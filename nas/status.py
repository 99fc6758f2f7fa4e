"""Where a run stands, and which command comes next. Loads neither torch nor ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal

from nas import defaults
from nas.budget import Statistic
from nas.devices import PRECISIONS, parse_device
from nas.files import read_document
from nas.front import Front
from nas.run import Run, device_option, export_name, run_option
from nas.training_log import LOG_FILE, steps_logged
from nas.training_record import TrainingRecord, find_record
from predictors.latency import LatencyPredictor, LatencyTable
from search_spaces.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStatus:
    """A device whose latency table is there, or what is wrong with its file."""

    device: str
    mape_percent: float | None
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontStatus:
    """A search: its devices and budget (None for none), how many networks it found, and the best of them."""

    device: str
    budget_ms: float | None
    budget_at: Statistic
    networks: int
    best: str
    validation_accuracy: float
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What a run holds.

    Attributes:
        run: the directory.
        space: what is searched.
        architectures: how many networks that has.
        data: of the training.
        supernet: ``trained``, ``imported``, ``stopped`` (its training can go on) or ``missing``.
        steps: of the training, so far; None for imported weights.
        tables: latency tables, those too that cannot be used.
        evaluated: networks whose accuracy with these weights is known.
        fronts: found with these weights, by device; those of the last search first.
        front_problem: why they cannot be read.
        exports: ids of exported networks.
        next: the command to type.
    """

    run: str
    space: str
    architectures: int
    data: str
    supernet: Literal["trained", "imported", "stopped", "missing"]
    steps: int | None
    tables: tuple[TableStatus, ...]
    evaluated: int
    fronts: tuple[FrontStatus, ...]
    front_problem: str | None
    exports: tuple[str, ...]
    next: str


def run_status(run: Run) -> RunStatus:
    """Look at what a run holds.

    Raises:
        InputError: a file of it is damaged; which one, and what to do.
        MachineError: it cannot be read.
    """
    record = find_record(run.supernet_dir)
    tables = tuple(_table(run, path) for path in sorted((run.path / "luts").glob("*.json")) if ".kit." not in path.name)
    fronts, front_problem = _fronts(run, record)
    exports = tuple(path.name for path in run.exports())
    steps: int | None = steps_logged(run.supernet_dir / LOG_FILE)
    supernet: Literal["trained", "imported", "stopped", "missing"] = "stopped" if steps else "missing"
    if record is not None:
        supernet, steps = ("trained", record.config.steps) if record.config else ("imported", None)
    if record is None:
        command = "nas train"
    elif not (devices := [table.device for table in tables if table.problem is None]):
        command = f"nas build-lut --device {defaults.DEVICE}"
    elif not fronts:
        command = "nas search --budget-ms 50%" + device_option(
            defaults.DEVICE if defaults.DEVICE in devices else devices[0]
        )
    elif export_name(fronts[0].best, parse_device(fronts[0].device.partition(" + ")[0])) in exports:
        command = "nas report"
    else:
        command = "nas export" + (f" --device {quote(fronts[0].device)}" if len(fronts) > 1 else "")
    return RunStatus(
        run=str(run.path),
        space=run.settings.space,
        architectures=run.space.count(),
        data=run.settings.data,
        supernet=supernet,
        steps=steps,
        tables=tables,
        evaluated=sum(len(run.known_accuracies(each)) for each in PRECISIONS) if record else 0,
        fronts=fronts,
        front_problem=front_problem,
        exports=exports,
        next=command + run_option(run.path),
    )


def _table(run: Run, path: Path) -> TableStatus:
    try:
        table = read_document(path, LatencyTable)
        LatencyPredictor(run.space, table)
        run.require_this_exporter(table)
    except InputError as error:
        return TableStatus(device=path.stem, mape_percent=None, problem=str(error))
    return TableStatus(device=table.device, mape_percent=table.error.mape_percent, problem=None)


def _fronts(run: Run, record: TrainingRecord | None) -> tuple[tuple[FrontStatus, ...], str | None]:
    """Return what is to be said of fronts, or why they cannot be read."""
    try:
        kept = run.fronts() if record and run.front_path.exists() else None
    except InputError as error:
        return (), str(error)
    if kept is None or record is None:
        return (), None
    names = [*kept.last, *(name for name in kept.fronts if name not in kept.last)]
    fronts = [kept.pick(name) for name in names]
    return tuple(_front(each) for each in fronts if each.supernet_hash == record.supernet_hash), None


def _front(front: Front) -> FrontStatus:
    best = front.best
    return FrontStatus(
        device=front.name,
        budget_ms=front.budget_ms,
        budget_at=front.budget_at,
        networks=len(front.candidates),
        best=best.id,
        validation_accuracy=best.validation_accuracy,
        latency_ms=best.latency_ms,
    )
