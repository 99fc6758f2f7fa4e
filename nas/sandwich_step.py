"""One training step of a supernet: the gradients of all its subnets, and who teaches whom."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.distillation import DISTILLATION_LOSSES
from nas.fitting import StepOutcome
from nas.gradients import without_conflict
from nas.optimization import forward_precision
from nas.sandwich import SMALLEST, Sandwich
from nas.supernet import DropPath, Supernet
from nas.training_record import TrainingConfig
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

_HEAD = "slots.head."
_DROP_STREAM = 3  # keeps these draws apart from others of the same seed

Answers = Callable[[int], Tensor]
"""An external teacher's probabilities ``float[n, classes]`` for the images of a step."""


class SandwichStep:
    """Adds up the gradients of all subnets of a step."""

    def __init__(
        self,
        supernet: Supernet,
        space: NetworkSpace,
        sandwich: Sandwich,
        config: TrainingConfig,
        *,
        rank: int = 0,
        taught: Answers | None = None,
    ) -> None:
        self._supernet, self._space, self._sandwich, self._config = supernet, space, sandwich, config
        self._rank, self._taught = rank, taught
        self._distill = DISTILLATION_LOSSES[config.divergence]
        self._parameters = list(supernet.parameters())
        self._body = [each for name, each in supernet.named_parameters() if not name.startswith(_HEAD)]

    def __call__(self, step: int, images: Tensor, labels: Tensor) -> StepOutcome:
        """Run a step's subnets forwards and backwards; see `Backward`."""
        config = self._config
        largest, *others = subnets = self._sandwich.subnets(step)
        # Small subnets have too little to spare for being held back (NASViT, section 3.3).
        teacher = self._logits(largest, images, _drop_path(config, step, self._rank))
        largest_loss = F.cross_entropy(teacher, labels, label_smoothing=config.label_smoothing)
        loss = largest_loss
        if self._taught is not None:
            taught = F.cross_entropy(teacher, self._taught(step).to(teacher.device))
            loss = config.teacher_share * taught + (1.0 - config.teacher_share) * loss
        loss.backward()  # type: ignore[no-untyped-call]
        project = step >= config.projection_from * config.steps
        alone = self._taken_gradients() if project else []
        smallest_loss = smallest_correct = None
        for row, genome in enumerate(others, start=1):
            seen = self._part(row, len(labels))
            logits = self._logits(genome, images[seen])
            # With its labels alone a weak teacher of the first steps would hold the others back.
            told = F.cross_entropy(logits, labels[seen], label_smoothing=config.label_smoothing)
            # In-place distillation (arXiv:1903.05134): the step's largest subnet teaches the others.
            taught = self._distill(logits, teacher[seen].detach())
            loss = config.distillation * taught + (1.0 - config.distillation) * told
            (loss * ((seen.stop - seen.start) / len(labels))).backward()
            if row == SMALLEST:
                smallest_loss, smallest_correct = told.detach(), (logits.argmax(dim=1) == labels).float().mean()
        if project:
            combined = without_conflict(alone, [each.grad for each in self._parameters])
            for parameter, gradient in zip(self._parameters, combined, strict=True):
                parameter.grad = gradient
        if step < config.head_warmup_steps:
            for parameter in self._body:
                parameter.grad = None
        token = zlib.crc32(np.ascontiguousarray(subnets).tobytes())
        return StepOutcome(largest_loss.detach(), smallest_loss, smallest_correct, token)

    def _logits(self, genome: Genomes, images: Tensor, drop_path: DropPath | None = None) -> Tensor:
        with forward_precision(self._config, images.device):
            logits: Tensor = self._supernet(
                images, self._space.lower(genome), drop_path, recompute=self._config.recompute
            )
        return logits.float()

    def _part(self, row: int, n_images: int) -> slice:
        """Return which of a step's images a subnet sees: all, unless random subnets share them out."""
        first, count = row - SMALLEST - 1, self._config.random_subnets
        if row == SMALLEST or not self._config.split_batch:
            return slice(0, n_images)
        if n_images < 2 * count:
            raise InputError(f"split_batch needs two images for each of {count} random subnets, a step has {n_images}")
        return slice(first * n_images // count, (first + 1) * n_images // count)

    def _taken_gradients(self) -> list[Tensor | None]:
        """Return the gradients so far, and leave none behind."""
        gradients = [each.grad for each in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return gradients


def _drop_path(config: TrainingConfig, step: int, rank: int) -> DropPath | None:
    """Return which residual blocks of a step are left out, image by image; a function of seed and step."""
    if not config.drop_path:
        return None
    seed = int(np.random.SeedSequence([config.seed, _DROP_STREAM, step, rank]).generate_state(1)[0])
    return DropPath(config.drop_path, torch.Generator().manual_seed(seed))
