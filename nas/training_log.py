"""What a training tells of its steps: a CSV file, which goes on with the checkpoint of a killed training; alarms."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.images import Labels
from nas.files import make_folder, write_atomic
from search_spaces.errors import InputError, MachineError

LOG_FILE = "training.csv"
"""Its name beside the weights."""

_CHANCE_WINDOW = 100  # steps over which a subnet is watched

COLUMNS = (
    "step",
    "learning_rate",
    "loss",
    "accuracy",
    "smallest_loss",
    "smallest_accuracy",
    "gradient_norm",
    "seconds",
)
"""A step counts from 0. Losses and accuracies are those of the largest subnet, or the means of random ones, and of the
smallest, on the step's batch, before the step. What a training does not have is empty. Seconds are since the start,
those before an interruption included."""


class TrainingLog:
    """The rows of a training so far; they are on disk after `write`.

    Args:
        path: the file, or None for no log; rows of `step` and after it are forgotten, since these steps are done again.
        step: the first one to come.
        events: folder for TensorBoard, which is told the same and must be installed; or None.
    """

    def __init__(self, path: Path | None, step: int, events: Path | None = None) -> None:
        self._path = path
        self._events = None if events is None else _event_writer(events, step)
        self._lines: list[str] = [_line(COLUMNS)]
        if step and path and path.exists():
            before = path.read_text(errors="replace").splitlines(keepends=True)[1:]
            self._lines += [line for line in before if line.endswith("\n") and _step_of(line) < step]

    def add(self, row: Mapping[str, float | None]) -> None:
        """Add a step."""
        self._lines.append(_line([_cell(row.get(name)) for name in COLUMNS]))
        for name in COLUMNS[1:]:
            if self._events is not None and (value := row.get(name)) is not None:
                self._events.add_scalar(name, value, row["step"])

    def write(self) -> None:
        """Put all rows on disk; raises `MachineError` if they cannot be stored."""
        if self._path:
            write_atomic(self._path, "".join(self._lines))
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Put all rows on disk, and close the files."""
        self.write()
        if self._events is not None:
            self._events.close()


def steps_logged(path: Path) -> int:
    """Return how many steps a log tells of, 0 where there is none; raises `MachineError` if it cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror}") from None
    steps = [step for line in lines if math.isfinite(step := _step_of(line))]
    return int(steps[-1]) + 1 if steps else 0


def require_tensorboard() -> None:
    """Raise `InputError` if TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise InputError(
            "TensorBoard is not installed here; run `pip install tensorboard`, or train without --tensorboard"
        ) from None


def _event_writer(folder: Path, step: int) -> Any:
    """Return what writes TensorBoard's files, which has no types; what it shows of `step` and after it is forgotten."""
    from torch.utils.tensorboard import SummaryWriter

    make_folder(folder)
    return SummaryWriter(str(folder), purge_step=step)


def _cell(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.7g}"


def _line(values: Sequence[str]) -> str:
    return ",".join(values) + "\n"


def _step_of(line: str) -> float:
    try:
        return float(line.partition(",")[0])
    except ValueError:
        return float("inf")  # not a row of ours


class ChanceWatch:
    """Whether networks do better than naming the most frequent class; asked after the warm-up.

    Args:
        whom: are watched.
        labels: of the training images.
        batch_size: images per step.
        warmup_steps: after which it should have begun to learn.
    """

    def __init__(self, whom: str, labels: Labels, *, batch_size: int, warmup_steps: int) -> None:
        self._whom, self._batch = whom, batch_size
        self._chance = float(np.bincount(labels).max() / len(labels))
        self._from = warmup_steps
        self._shares: deque[float] = deque(maxlen=_CHANCE_WINDOW)
        self._told = False

    def guesses(self, step: int, correct: float) -> bool:
        """Take a step's share of correct images; return whether to complain now: at most once."""
        if self._told or step < self._from:
            return False
        self._shares.append(correct)
        if len(self._shares) < _CHANCE_WINDOW:
            return False
        seen = self._batch * _CHANCE_WINDOW
        # Two standard errors: that a network which guesses looks better happens one time in forty.
        self._told = self._mean() <= self._chance + 2.0 * math.sqrt(self._chance * (1.0 - self._chance) / seen)
        return self._told

    def complaint(self, step: int) -> str:
        """Return what to say."""
        return (
            f"at step {step} {self._whom} still guesses: {self._mean():.1%} of the last {_CHANCE_WINDOW} steps' "
            f"images are right, and {self._chance:.1%} are of the most frequent class; lower the learning rate, or "
            f"warm up for longer"
        )

    def _mean(self) -> float:
        return sum(self._shares) / len(self._shares)
