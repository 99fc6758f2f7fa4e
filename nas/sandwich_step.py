"""One training step of a supernet: the gradients of all its subnets, and who teaches whom."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.distillation import DISTILLATION_LOSSES
from nas.fitting import StepOutcome, share_correct
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
        subnets = self._sandwich.subnets(step)
        taught = None if self._taught is None else self._taught(step).to(images.device)
        if self._config.sandwich:
            outcome = self._whole(step, subnets, images, labels, taught)
        else:
            outcome = self._random_only(subnets[SMALLEST + 1 :], images, labels, taught)
        if step < self._config.head_warmup_steps:
            for parameter in self._body:
                parameter.grad = None
        return dataclasses.replace(outcome, token=zlib.crc32(np.ascontiguousarray(subnets).tobytes()))

    def _whole(self, step: int, subnets: Genomes, images: Tensor, labels: Tensor, taught: Tensor | None) -> StepOutcome:
        """Run the largest subnet, which learns from the labels and teaches, then all others."""
        config = self._config
        largest, *others = subnets
        # Small subnets have too little to spare for being held back (NASViT, section 3.3).
        teacher = self._logits(largest, images, _drop_path(config, step, self._rank))
        largest_loss = self._loss(teacher, labels)
        torch.autograd.backward(self._with_answers(largest_loss, teacher, taught))
        project = step >= config.projection_from * config.steps
        alone = self._taken_gradients() if project else []
        smallest_loss = smallest_correct = None
        for row, genome in enumerate(others, start=1):
            seen = slice(0, len(labels)) if row == SMALLEST else self._part(row - SMALLEST - 1, len(labels))
            logits = self._logits(genome, images[seen])
            # With its labels alone a weak teacher of the first steps would hold the others back.
            told = self._loss(logits, labels[seen])
            # In-place distillation (arXiv:1903.05134): the step's largest subnet teaches the others.
            soft = self._distill(logits, teacher[seen].detach())
            loss = config.distillation * soft + (1.0 - config.distillation) * told
            torch.autograd.backward(loss * _share(seen, labels))
            if row == SMALLEST:
                smallest_loss, smallest_correct = told.detach(), share_correct(logits, labels)
        if project:
            combined = without_conflict(alone, [each.grad for each in self._parameters])
            for parameter, gradient in zip(self._parameters, combined, strict=True):
                parameter.grad = gradient
        return StepOutcome(largest_loss.detach(), share_correct(teacher, labels), smallest_loss, smallest_correct)

    def _random_only(self, subnets: Genomes, images: Tensor, labels: Tensor, taught: Tensor | None) -> StepOutcome:
        """Run random subnets, each of which learns from the labels."""
        losses, correct = [], []
        for number, genome in enumerate(subnets):
            seen = self._part(number, len(labels))
            logits = self._logits(genome, images[seen])
            told = self._loss(logits, labels[seen])
            loss = self._with_answers(told, logits, None if taught is None else taught[seen])
            torch.autograd.backward(loss * _share(seen, labels))
            losses.append(told.detach())
            correct.append(share_correct(logits, labels[seen]))
        return StepOutcome(torch.stack(losses).mean(), torch.stack(correct).mean())

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self._config.label_smoothing)

    def _with_answers(self, loss: Tensor, logits: Tensor, taught: Tensor | None) -> Tensor:
        """Return a loss on the labels mixed with that on an external teacher's answers, where there are any."""
        if taught is None:
            return loss
        share = self._config.teacher_share
        return share * F.cross_entropy(logits, taught) + (1.0 - share) * loss

    def _logits(self, genome: Genomes, images: Tensor, drop_path: DropPath | None = None) -> Tensor:
        with forward_precision(self._config, images.device):
            logits: Tensor = self._supernet(
                images, self._space.lower(genome), drop_path, recompute=self._config.recompute
            )
        return logits.float()

    def _part(self, number: int, n_images: int) -> slice:
        """Return which of a step's images a random subnet sees: all, unless they share them out."""
        count = self._config.random_subnets
        if not self._config.split_batch:
            return slice(0, n_images)
        if n_images < 2 * count:
            raise InputError(f"split_batch needs two images for each of {count} random subnets, a step has {n_images}")
        return slice(number * n_images // count, (number + 1) * n_images // count)

    def _taken_gradients(self) -> list[Tensor | None]:
        """Return the gradients so far, and leave none behind."""
        gradients = [each.grad for each in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return gradients


def _share(seen: slice, labels: Tensor) -> float:
    return float(seen.stop - seen.start) / len(labels)


def _drop_path(config: TrainingConfig, step: int, rank: int) -> DropPath | None:
    """Return which residual blocks of a step are left out, image by image; a function of seed and step."""
    if not config.drop_path:
        return None
    seed = int(np.random.SeedSequence([config.seed, _DROP_STREAM, step, rank]).generate_state(1)[0])
    return DropPath(config.drop_path, torch.Generator().manual_seed(seed))
