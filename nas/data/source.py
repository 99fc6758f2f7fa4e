"""What a source of images must offer; each source is one file of this package, registered in its ``__init__``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nas.data.images import DataDescription, Labels, Pixels
from nas.data.splits import Origins
from nas.progress import Progress
from search_spaces.errors import InputError


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
    """

    class_names: tuple[str, ...]
    images: Pixels
    labels: Labels
    origins: Origins
    content_hash: str


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


def empty_images(n_images: int, resolution: int, channels: int) -> Pixels:
    """Return memory for ``uint8[n, resolution, resolution, channels]``.

    Raises:
        InputError: the machine's memory cannot hold them; without this check the system would end the process.
    """
    needed_bytes = 2 * n_images * resolution * resolution * channels  # once whole, once divided into splits
    available_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed_bytes > available_bytes:
        raise InputError(
            f"{n_images} images of {resolution} x {resolution} pixels need {needed_bytes / 1e9:.1f} GB of memory and "
            f"this machine has {available_bytes / 1e9:.1f} GB; choose a smaller resolution"
        )
    return np.empty((n_images, resolution, resolution, channels), dtype=np.uint8)
