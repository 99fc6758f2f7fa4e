"""Where a run stands, and which command comes next. Loads neither torch nor ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nas import defaults
from nas.budget import Statistic
from nas.devices import parse_device
from nas.files import read_document
from nas.run import Run, device_option, run_option, searchable
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
    """The last search: its device and budget (None for none), how many networks it found, and the best of them."""

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
        front: of the last search with these weights; None before the first, and where it cannot be read.
        front_problem: why it cannot be read.
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
    front: FrontStatus | None
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
    front, front_problem = _front(run, record)
    exports = tuple(path.parent.name for path in sorted(run.path.glob("exports/*/model.onnx")))
    steps: int | None = steps_logged(run.supernet_dir / LOG_FILE)
    supernet: Literal["trained", "imported", "stopped", "missing"] = "stopped" if steps else "missing"
    if record is not None:
        supernet, steps = ("trained", record.config.steps) if record.config else ("imported", None)
    if record is None:
        command = "nas train"
    elif not (devices := [table.device for table in tables if table.problem is None and _is_searchable(table.device)]):
        command = f"nas build-lut --device {defaults.DEVICE}"
    elif front is None:
        command = "nas search --budget-ms 50%" + device_option(
            defaults.DEVICE if defaults.DEVICE in devices else devices[0]
        )
    elif front.best in exports:
        command = "nas bench" + device_option(front.device)
    else:
        command = "nas export"
    return RunStatus(
        run=str(run.path),
        space=run.settings.space,
        architectures=run.space.count(),
        data=run.settings.data,
        supernet=supernet,
        steps=steps,
        tables=tables,
        evaluated=len(run.known_accuracies()) if record else 0,
        front=front,
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


def _is_searchable(device: str) -> bool:
    try:
        return searchable(parse_device(device))
    except InputError:  # of a release that knows more devices
        return False


def _front(run: Run, record: TrainingRecord | None) -> tuple[FrontStatus | None, str | None]:
    """Return what is to be said of the front, or why it cannot be read."""
    try:
        front = run.front() if record and run.front_path.exists() else None
    except InputError as error:
        return None, str(error)
    if front is None or record is None or front.supernet_hash != record.supernet_hash:
        return None, None
    best = front.best
    found = FrontStatus(
        device=front.device,
        budget_ms=front.budget_ms,
        budget_at=front.budget_at,
        networks=len(front.candidates),
        best=best.id,
        validation_accuracy=best.validation_accuracy,
        latency_ms=best.latency_ms,
    )
    return found, None
