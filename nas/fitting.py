"""The optimiser loop that supernets and standalone networks share, with checkpoints that resume exactly."""

from __future__ import annotations

import contextlib
import functools
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nas.augmentation import augmented
from nas.checkpoint import Checkpoint, Stateful
from nas.data import ImageData, ImageSplit
from nas.distributed import ALONE, Ranks
from nas.optimization import averaged, learning_rate, optimizer_of
from nas.progress import Notice, Progress, ignore, no_progress
from nas.training_log import ChanceWatch, TrainingLog
from nas.training_record import TrainingConfig
from search_spaces.errors import CheckError, MachineError

_DATA_STREAM = 2  # keeps the order of images apart from other draws of the same seed
_CHECKPOINT_EVERY = 20  # steps; a few seconds of work on two cores
_CHECKPOINT_SHARE = 0.05  # of the time at most is spent on checkpoints


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step tells.

    Attributes:
        loss: on the labels, of the network, of the largest subnet, or the mean of random ones.
        correct: share of the batch that these have right.
        smallest_loss: of the smallest subnet, if a step has one.
        smallest_correct: share of the batch that it has right.
        token: what all processes of a training must agree on: a number that stands for the subnets of the step.
    """

    loss: Tensor
    correct: Tensor
    smallest_loss: Tensor | None = None
    smallest_correct: Tensor | None = None
    token: int = 0


Backward = Callable[[int, Tensor, Tensor], StepOutcome]
"""Called as ``backward(step, images, labels)``: adds up the gradients of a step and returns what to report."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training ended.

    Attributes:
        loss: of the last step.
        seconds: wall time of all steps, those before an interruption included.
    """

    loss: float
    seconds: float


def fit(
    module: nn.Module,
    backward: Backward,
    data: ImageData,
    config: TrainingConfig,
    *,
    checkpoint: Path,
    identity: str,
    log: Path | None = None,
    events: Path | None = None,
    ranks: Ranks = ALONE,
    progress: Progress = no_progress,
    notice: Notice = ignore,
) -> Fitted:
    """Train a module in place on the training split.

    Every random draw is a function of the seed and the step, so a run that was killed goes on from its last checkpoint
    as if it had not been. The checkpoints are left for the caller to delete (`remove_checkpoints`), once what was
    trained is written.

    Args:
        module: what to train, already on its accelerator.
        backward: computes the gradients of one step.
        data: supplies the images.
        config: how to train.
        checkpoint: file to resume from and to write.
        identity: a text that is equal for trainings that may resume each other.
        log: CSV file that tells of every step (`nas.training_log`).
        events: folder for the same in TensorBoard's form.
        ranks: which of several processes this is; each sees its part of every batch.
        progress: called after each step.
        notice: told of a damaged checkpoint, and of networks that do not learn.

    Raises:
        InputError: the checkpoint is damaged, or belongs to another training.
        CheckError: the loss is not finite, or processes do not agree.
        MachineError: the checkpoint cannot be written, or the memory does not suffice.
    """
    trainer = _Trainer(module, backward, config, ranks, zlib.crc32(identity.encode()))
    state = Checkpoint(checkpoint, identity, trainer.parts())
    target = next(module.parameters()).device
    train = data.split("train")
    size = _batch_size(config, len(train.labels))
    part = ranks.part(size)
    watches = {
        column: ChanceWatch(whom, train.labels, batch_size=size, warmup_steps=config.warmup_steps)
        for column, whom in (("accuracy", "what is trained"), ("smallest_accuracy", "the smallest subnet"))
    }
    module.train()
    step, seconds = state.load(notice)
    rows = TrainingLog(log, step, events)
    loss = math.nan
    started = time.perf_counter() - seconds
    pause = _Pause()
    progress(step, config.steps)
    while step < config.steps:
        try:
            with _enough_memory(config):
                images, labels = batch_of(data, train, config, step, part)
                images = augmented(images.to(target), config, step, rank=ranks.rank)
                loss, row = trainer.step(step, images, labels.to(target))
        except CheckError:
            if ranks.first:
                rows.write()
            raise
        rows.add(row | {"step": step, "seconds": time.perf_counter() - started})
        for column, watch in watches.items():
            if (correct := row[column]) is not None and watch.guesses(step, correct):
                notice(watch.complaint(step))
        step += 1
        if step % _CHECKPOINT_EVERY == 0 and step < config.steps:
            ranks.compare(module)
            if ranks.first and pause.is_over():
                with pause.timed():
                    rows.write()
                    state.save(step, time.perf_counter() - started)
        progress(step, config.steps)
    ranks.compare(module)
    if ranks.first:
        rows.close()
    trainer.finish()
    return Fitted(loss=loss, seconds=time.perf_counter() - started)


def images_seen(config: TrainingConfig, data: ImageData) -> int:
    """Return how many training images go through a network in a training, those of every epoch counted."""
    return config.steps * _batch_size(config, len(data.split("train").labels))


def networks_per_image(config: TrainingConfig) -> int:
    """Return how many subnets of a step see an image."""
    random = min(1, config.random_subnets) if config.split_batch else config.random_subnets
    return (2 if config.sandwich else 0) + random


def batch_of(
    data: ImageData, train: ImageSplit, config: TrainingConfig, step: int, part: slice
) -> tuple[Tensor, Tensor]:
    """Return a part of a step's images and labels: the training split in a fresh order every epoch."""
    chosen = batch_rows(config, len(train.labels), step)[part]
    images = torch.from_numpy(data.normalise(train.images[chosen]))
    return images.to(memory_format=torch.channels_last), torch.from_numpy(train.labels[chosen])


def batch_rows(config: TrainingConfig, n_images: int, step: int) -> npt.NDArray[np.int64]:
    """Return which training images a step sees, ``int64[batch_size]``: each at most once per epoch."""
    size = _batch_size(config, n_images)
    epoch, position = divmod(step, max(1, n_images // size))
    return _order(config.seed, epoch, n_images)[position * size : (position + 1) * size]


@functools.lru_cache(maxsize=1)
def _order(seed: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, _DATA_STREAM, epoch]).permutation(n)


def _batch_size(config: TrainingConfig, n_images: int) -> int:
    return min(config.batch_size, n_images)


def share_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of a batch whose most probable class, of logits ``float[n, classes]``, is the label."""
    return (logits.argmax(dim=1) == labels).float().mean()


class _Trainer:
    """A module with its optimiser and, where asked for, the moving average of its weights."""

    def __init__(self, module: nn.Module, backward: Backward, config: TrainingConfig, ranks: Ranks, token: int) -> None:
        self._module, self._backward, self._config, self._ranks, self._token = module, backward, config, ranks, token
        self._parameters = list(module.parameters())
        self._optimizer = optimizer_of(module, config)
        self._average = averaged(module, config.ema_decay) if config.ema_decay else None

    def parts(self) -> dict[str, Stateful]:
        """Return what a checkpoint keeps."""
        parts: dict[str, Stateful] = {"module": self._module, "optimizer": self._optimizer}
        return parts if self._average is None else {**parts, "average": self._average}

    def step(self, step: int, images: Tensor, labels: Tensor) -> tuple[float, dict[str, float | None]]:
        """Do a step; return its loss and the columns of `TrainingLog` that it knows.

        Raises:
            CheckError: it diverged.
        """
        rate = learning_rate(self._config, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        outcome = self._backward(step, images, labels)
        smallest = (outcome.smallest_loss, outcome.smallest_correct)
        told = [outcome.loss, outcome.correct, *(each for each in smallest if each is not None)]
        means = self._ranks.average(
            self._parameters, told, zlib.crc32(f"{self._token} {step} {outcome.token}".encode())
        )
        loss, accuracy, *rest = (float(each) for each in means)
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._config.gradient_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise CheckError(f"training diverged at step {step}: loss {loss}; lower the learning rate")
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._module)
        smallest_loss, smallest_accuracy = rest or (None, None)
        return loss, {
            "learning_rate": rate,
            "loss": loss,
            "accuracy": accuracy,
            "smallest_loss": smallest_loss,
            "smallest_accuracy": smallest_accuracy,
            "gradient_norm": norm,
        }

    def finish(self) -> None:
        """Leave the averaged weights in the module."""
        if self._average is not None:
            self._module.load_state_dict(self._average.module.state_dict())


class _Pause:
    """How long to wait between checkpoints, so that they take a small share of the time; the first does not wait."""

    def __init__(self) -> None:
        self._until_s = -math.inf

    def is_over(self) -> bool:
        return time.perf_counter() >= self._until_s

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        started_s = time.perf_counter()
        yield
        ended_s = time.perf_counter()
        self._until_s = ended_s + (ended_s - started_s) / _CHECKPOINT_SHARE


@contextlib.contextmanager
def _enough_memory(config: TrainingConfig) -> Iterator[None]:
    """Turn what torch raises when memory is short into a line that says what to do."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        short = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not short:
            raise
        half = max(1, config.batch_size // 2)
        raise MachineError(
            f"the memory does not suffice for {config.batch_size} images per step; try --batch-size {half}, or "
            "recompute = true in a --config file"
        ) from None
