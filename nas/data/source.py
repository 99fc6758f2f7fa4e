"""What a source of images must offer; each source is one file of this package, registered in its ``__init__``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nas.data.images import DataDescription, Labels, Pixels, SplitName
from nas.data.splits import Origins
from nas.progress import Progress
from search_spaces.errors import InputError

_SHOWN = 5  # unreadable files that a message names

SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""What people call the splits."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceImages:
    """Everything a source holds, at one resolution, before it is divided into splits.

    Attributes:
        class_names: in the order of the labels.
        images: ``uint8[n, resolution, resolution, channels]``.
        labels: ``int64[n]``, positions in the class names.
        origins: ``int8[n]``, the split each row belongs to, as a position in `SPLITS`; splits that no row belongs
            to are cut from the training rows.
        content_hash: SHA-256 of the source's content, whatever the resolution; if the images are drawn, of these.
        unreadable: files that were left out because they are damaged, each with the reason.
    """

    class_names: tuple[str, ...]
    images: Pixels
    labels: Labels
    origins: Origins
    content_hash: str
    unreadable: tuple[str, ...] = ()


class DataSource(Protocol):
    """A kind of data set.

    Attributes:
        usage: how it is named on the command line: ``name``, or ``name:ARGUMENT`` if it takes an argument.
    """

    usage: str

    def describe(self, argument: str) -> DataDescription:
        """Return channels and classes without decoding the images; raises `InputError` on data of no use."""

    def read(self, argument: str, *, resolution: int, seed: int, progress: Progress) -> SourceImages:
        """Return all images as squares of `resolution` pixels.

        Args:
            argument: what followed the colon of the specification, or nothing.
            resolution: height and width of the images, in pixels.
            seed: for sources that draw their images.
            progress: called after each image, by sources that take long.

        Raises:
            InputError: the data are of no use; the message names what to mend.
        """


def told_unreadable(unreadable: Sequence[str]) -> str:
    """Return in words how many files were left out, and which the first are."""
    shown = ", ".join(unreadable[:_SHOWN]) + (", …" if len(unreadable) > _SHOWN else "")
    return f"{len(unreadable)} image{'s'[: len(unreadable) - 1]} cannot be read: {shown}"


def empty_images(n_images: int, resolution: int, channels: int) -> Pixels:
    """Return memory for ``uint8[n, resolution, resolution, channels]``.

    Raises:
        InputError: the machine's memory cannot hold them; without this check the system would end the process.
    """
    needed_bytes = 2 * n_images * resolution * resolution * channels  # once whole, once divided into splits
    require_memory(
        needed_bytes, f"{n_images} images of {resolution} x {resolution} pixels", "choose a smaller resolution"
    )
    return np.empty((n_images, resolution, resolution, channels), dtype=np.uint8)


def require_memory(needed_bytes: int, what: str, remedy: str) -> None:
    """Raise `InputError` if something needs more memory than the machine has."""
    available_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed_bytes > available_bytes:
        raise InputError(
            f"{what} need {needed_bytes / 1e9:.1f} GB of memory and this machine has {available_bytes / 1e9:.1f} GB; "
            f"{remedy}"
        )
