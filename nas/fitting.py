"""The optimiser loop that supernets and standalone networks share, with checkpoints that resume exactly."""

from __future__ import annotations

import io
import math
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.data import ImageData, ImageSplit
from nas.files import write_atomic
from nas.progress import Progress, no_progress
from nas.training_record import Accelerator, TrainingConfig
from search_spaces.errors import CheckError, InputError

_DATA_STREAM = 2  # keeps the order of images apart from other draws of the same seed
_CHECKPOINT_EVERY = 20  # steps; a few seconds of work on two cores

Backward = Callable[[int, Tensor, Tensor], Tensor]
"""Called as ``backward(step, images, labels)``: adds up the gradients of a step and returns the loss to report."""


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
    progress: Progress = no_progress,
) -> Fitted:
    """Train a module in place on the training split.

    Every random draw is a function of the seed and the step, so a run that was killed goes on from its last checkpoint
    as if it had not been. The checkpoint is left for the caller to delete, once what was trained is written.

    Args:
        module: what to train, already on its accelerator.
        backward: computes the gradients of one step.
        data: supplies the images.
        config: how to train.
        checkpoint: file to resume from and to write.
        identity: a text that is equal for trainings that may resume each other.
        progress: called after each step.

    Raises:
        InputError: the checkpoint is damaged, or belongs to another training.
        CheckError: the loss is not finite.
        MachineError: the checkpoint cannot be written.
    """
    optimizer = _optimizer(module, config)
    state = _State(module, optimizer, checkpoint, identity)
    target = next(module.parameters()).device
    train = data.split("train")
    module.train()
    step, seconds = state.load()
    loss = math.nan
    started = time.perf_counter() - seconds
    progress(step, config.steps)
    while step < config.steps:
        images, labels = _batch(data, train, config, step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.zero_grad(set_to_none=True)
        loss = float(backward(step, images.to(target), labels.to(target)))
        norm = nn.utils.clip_grad_norm_(module.parameters(), config.gradient_norm)
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            raise CheckError(f"training diverged at step {step}: loss {loss}; lower the learning rate")
        optimizer.step()
        step += 1
        if step % _CHECKPOINT_EVERY == 0 and step < config.steps:
            state.save(step, time.perf_counter() - started)
        progress(step, config.steps)
    return Fitted(loss=loss, seconds=time.perf_counter() - started)


def images_seen(config: TrainingConfig, data: ImageData) -> int:
    """Return how many training images go through a network in a training, those of every epoch counted."""
    return config.steps * _batch_size(config, len(data.split("train").labels))


def choose_accelerator(accelerator: Accelerator) -> torch.device:
    """Return the torch device to train on; raises `InputError` if CUDA is asked for and absent."""
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("accelerator 'cuda' is not available here; use --accelerator cpu or auto")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to zero."""
    if step < config.warmup_steps:
        return config.peak_learning_rate * (step + 1) / config.warmup_steps
    left = (config.steps - step) / max(1, config.steps - config.warmup_steps)
    return config.peak_learning_rate * 0.5 * (1.0 - math.cos(math.pi * min(1.0, left)))


def _batch(data: ImageData, train: ImageSplit, config: TrainingConfig, step: int) -> tuple[Tensor, Tensor]:
    """Return a step's images and labels: the training split in a fresh order every epoch."""
    size = _batch_size(config, len(train.labels))
    epoch, position = divmod(step, max(1, len(train.labels) // size))
    order = np.random.default_rng([config.seed, _DATA_STREAM, epoch]).permutation(len(train.labels))
    chosen = order[position * size : (position + 1) * size]
    images = torch.from_numpy(data.normalise(train.images[chosen]))
    return images.to(memory_format=torch.channels_last), torch.from_numpy(train.labels[chosen])


def _batch_size(config: TrainingConfig, n_images: int) -> int:
    return min(config.batch_size, n_images)


def _optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return AdamW, without weight decay on norms, biases, layer scales and kernel transforms (at first identities)."""
    kept = {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.ndim <= 1 or ".transforms." in name
    }
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for name, parameter in module.named_parameters() if name not in kept],
            "weight_decay": config.weight_decay,
        },
        {"params": list(kept.values()), "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.peak_learning_rate)


@dataclass(frozen=True, slots=True)
class _State:
    """The checkpoint: weights and optimiser, tied to what is being trained."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    path: Path
    identity: str

    def save(self, step: int, seconds: float) -> None:
        """Write a checkpoint from which `step` is the next to run."""
        content = {
            "identity": self.identity,
            "step": step,
            "seconds": seconds,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomic(self.path, buffer.getvalue())

    def load(self) -> tuple[int, float]:
        """Restore the checkpoint if there is one; returns the next step to run and the seconds spent so far."""
        if not self.path.exists():
            return 0, 0.0
        try:
            # torch writes check sums into its archive, but does not look at them.
            with zipfile.ZipFile(self.path) as archive:
                damaged = archive.testzip() is not None
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, step, seconds = content["identity"], int(content["step"]), float(content["seconds"])
            if identity == self.identity and not damaged:
                self.module.load_state_dict(content["module"])
                self.optimizer.load_state_dict(content["optimizer"])
        except Exception as error:  # noqa: BLE001 - torch documents no error type for damaged files
            raise InputError(f"{self.path} is not a readable checkpoint ({type(error).__name__}); delete it") from None
        if damaged:
            raise InputError(f"{self.path} is damaged; delete it to start over")
        if identity != self.identity:
            raise InputError(
                f"{self.path} belongs to a training with other settings; use the same ones, or delete it to start over"
            )
        return step, seconds
