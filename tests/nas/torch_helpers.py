"""What tests around the supernet share: few images, one thread, weights that leave nothing at its default."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nas.data import ImageData, ImageSplit, load_data

TRAIN, HELD_OUT = 256, 60


@functools.cache
def few_digits() -> ImageData:
    """Return scikit-learn's digits at 24x24 with the first `TRAIN` training and `HELD_OUT` other images."""
    data = load_data("digits", resolution=24, seed=0)
    splits = {
        name: ImageSplit(split.images[:count], split.labels[:count])
        for (name, split), count in zip(data.splits.items(), (TRAIN, HELD_OUT, HELD_OUT), strict=True)
    }
    return dataclasses.replace(data, splits=splits)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread during the block: sums have one order, and nobody waits for a busy core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def scramble(model: nn.Module, *, seed: int) -> None:
    """Move every weight and statistic away from zero and one, so that one that is cut wrongly changes the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.mul_(0.8 + 0.4 * noise)
            if tensor.ndim == 1 and not name.endswith("running_var"):
                tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator) - 0.1)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of all weights and statistics."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Return whether two states are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
