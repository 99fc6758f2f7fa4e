"""What a data set is to everything that trains or evaluates: three disjoint splits of square images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from search_spaces.errors import unknown_name

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

Pixels = npt.NDArray[np.uint8]
"""Images as ``uint8[n, height, width, channels]``, 0 is black."""

Labels = npt.NDArray[np.int64]
"""Positions in the class names, ``int64[n]``."""

_STATISTICS_CHUNK = 1024  # images whose squares are in memory at once


@dataclass(frozen=True, slots=True)
class DataDescription:
    """What a network must know of a data set before any image is decoded.

    Attributes:
        channels: 1 for grey, 3 for colour.
        class_names: in the order of the labels.
    """

    channels: int
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ImageSplit:
    """Images and labels in an order shuffled by the seed, so that the first rows are a fair sample of all classes.

    Attributes:
        images: ``uint8[n, height, width, channels]``.
        labels: ``int64[n]``, positions in the class names.
    """

    images: Pixels
    labels: Labels


@dataclass(frozen=True, slots=True, eq=False)
class ImageData:
    """A data set at one resolution, divided into three disjoint splits.

    Attributes:
        name: the specification it was loaded by.
        class_names: in the order of the labels.
        channels: 1 for grey, 3 for colour.
        resolution: height and width in pixels.
        mean: per channel over the training split, pixels counted as 0..1.
        std: standard deviation, likewise; 1 for a channel that never changes.
        content_hash: SHA-256 of the source's content; of a source that draws its images, of what it has drawn.
        splits: all of them, by name.
        unreadable: files that were left out because they are damaged, each with the reason.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content_hash: str
    splits: Mapping[SplitName, ImageSplit]
    unreadable: tuple[str, ...] = ()

    def split(self, name: SplitName) -> ImageSplit:
        """Return one split; raises `InputError` if the name is none of `SPLITS`."""
        if name not in self.splits:
            raise unknown_name("split", name, SPLITS)
        return self.splits[name]

    def normalise(self, images: Pixels) -> npt.NDArray[np.float32]:
        """Return what a network sees: mean 0 and standard deviation 1 per channel over the training split.

        Args:
            images: ``uint8[n, height, width, channels]``.

        Returns:
            ``float32[n, channels, height, width]``, contiguous.
        """
        mean, std = (np.array(values, dtype=np.float32).reshape(-1, 1, 1) for values in (self.mean, self.std))
        result = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        result /= 255
        result -= mean
        result /= std
        return result


def channel_statistics(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of ``uint8[n, height, width, channels]``, in units of 0..1.

    The sums are of integers and therefore exact, whatever the order of the images. The standard deviation of a
    channel that never changes is given as 1, so that dividing by it is harmless.
    """
    channels = images.shape[-1]
    total, squares = np.zeros(channels, dtype=np.int64), np.zeros(channels, dtype=np.int64)
    for start in range(0, len(images), _STATISTICS_CHUNK):
        values = images[start : start + _STATISTICS_CHUNK].reshape(-1, channels).astype(np.int64)
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
    count = images.size // channels
    # This is n² times the variance: zero exactly when a channel is constant; Python's integers cannot overflow.
    spread = [count * int(s) - int(t) ** 2 for t, s in zip(total, squares, strict=True)]
    mean = tuple(int(t) / count / 255 for t in total)
    return mean, tuple(value**0.5 / count / 255 if value else 1.0 for value in spread)
