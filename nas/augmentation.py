"""Training images that are never the same twice: moved, zoomed, mirrored, tinted, with a square erased.

On batches, where they are: on the accelerator. What is drawn is a function of seed and step, on the CPU, so
that it is the same everywhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.training_record import TrainingConfig

_STREAM = 4  # keeps these draws apart from others of the same seed


def augmented(images: Tensor, config: TrainingConfig, step: int, *, rank: int = 0) -> Tensor:
    """Return a step's images ``float[n, c, h, w]``, normalised before and after, changed as the config says.

    Every image gets draws of its own, also in another process (`rank`) of the same training. What comes in from beyond
    an edge is a reflection; what is erased is the mean.
    """
    n = len(images)
    rng = np.random.default_rng([config.seed, _STREAM, step, rank])
    # All draws are made, whatever is switched on: one setting more changes nothing about the others.
    mirrored = np.where(rng.random(n) < 0.5 * config.flip, -1.0, 1.0)
    scale = np.exp(config.zoom * rng.uniform(-1.0, 1.0, n))
    moved = 2.0 * config.shift * rng.uniform(-1.0, 1.0, (2, n))
    contrast, brightness, saturation = (config.colour * rng.uniform(-1.0, 1.0, n) for _ in range(3))
    corners = rng.random((2, n))
    if config.flip or config.zoom or config.shift:
        images = _sampled(images, mirrored / scale, 1.0 / scale, moved)
    if config.colour:
        images = _tinted(images, 1.0 + contrast, brightness, 1.0 + saturation)
    if config.erase:
        images = _erased(images, config.erase, corners)
    return images


_Draws = npt.NDArray[np.float64]


def _sampled(images: Tensor, across: _Draws, down: _Draws, moved: _Draws) -> Tensor:
    """Look every pixel up at a place that is scaled about the middle, then moved by a part of half the side."""
    theta = np.zeros((len(images), 2, 3))
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = across, down, moved.T
    matrices = torch.from_numpy(theta).to(images)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    sampled = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return sampled.contiguous(memory_format=torch.channels_last)


def _tinted(images: Tensor, contrast: _Draws, brightness: _Draws, saturation: _Draws) -> Tensor:
    by_image = [torch.from_numpy(each).to(images).reshape(-1, 1, 1, 1) for each in (contrast, brightness, saturation)]
    grey = images.mean(dim=1, keepdim=True)
    return (grey + (images - grey) * by_image[2]) * by_image[0] + by_image[1]


def _erased(images: Tensor, share: float, corners: _Draws) -> Tensor:
    """Put the mean, which is 0, into a square of a share of the side, wholly inside the image."""
    keep = torch.ones_like(images[:, :1])
    sides = [max(1, round(share * side)) for side in images.shape[2:]]
    tops, lefts = (
        (corner * (side - square + 1)).astype(int)
        for corner, side, square in zip(corners, images.shape[2:], sides, strict=True)
    )
    for image, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        keep[image, :, top : top + sides[0], left : left + sides[1]] = 0.0
    return images * keep
