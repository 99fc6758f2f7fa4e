"""Data sets by name: ``clutter``, ``digits``, or ``folder:PATH`` for the user's own images. Needs no torch."""

from __future__ import annotations

from nas.data.clutter import ClutterSource
from nas.data.digits import DigitsSource
from nas.data.folder import FolderSource
from nas.data.images import SPLITS, DataDescription, ImageData, ImageSplit, SplitName, channel_statistics
from nas.data.source import DataSource, SourceImages
from nas.data.splits import divide
from nas.progress import Progress, no_progress
from search_spaces.errors import InputError, unknown_name

__all__ = [
    "SOURCES",
    "SPLITS",
    "DataDescription",
    "DataSource",
    "ImageData",
    "ImageSplit",
    "SourceImages",
    "SplitName",
    "describe_data",
    "load_data",
]

SOURCES: tuple[DataSource, ...] = (ClutterSource(), DigitsSource(), FolderSource())
"""Every source; another one is a file of its own and a line here."""


def describe_data(spec: str) -> DataDescription:
    """Return channels and classes of a data set without decoding its images.

    Args:
        spec: ``clutter``, ``digits`` or ``folder:PATH``.

    Raises:
        InputError: the specification is not known, or the data are of no use.
        MachineError: the disk refuses to list a folder.
    """
    source, argument = _find_source(spec)
    return source.describe(argument)


def load_data(spec: str, *, resolution: int, seed: int, progress: Progress = no_progress) -> ImageData:
    """Read a data set and divide it into three disjoint splits, each with images of every class.

    Args:
        spec: ``clutter``, ``digits`` or ``folder:PATH``.
        resolution: height and width of the images, in pixels.
        seed: decides the order of rows, and which of them become the splits that the source lacks: a fifth of its
            training images for each.
        progress: called after each image, by sources that take long.

    Raises:
        InputError: the specification is not known, or the data are of no use; the message names what to mend.
        MachineError: the disk refuses to list a folder.
    """
    source, argument = _find_source(spec)
    for name, value, least in (("resolution", resolution, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    whole = source.read(argument, resolution=resolution, seed=seed, progress=progress)
    rows = divide(whole.labels, whole.origins, whole.class_names, seed=seed)
    splits = {name: ImageSplit(whole.images[chosen], whole.labels[chosen]) for name, chosen in rows.items()}
    mean, std = channel_statistics(splits["train"].images)
    return ImageData(
        name=spec,
        class_names=whole.class_names,
        channels=whole.images.shape[-1],
        resolution=resolution,
        mean=mean,
        std=std,
        content_hash=whole.content_hash,
        splits=splits,
    )


def _find_source(spec: str) -> tuple[DataSource, str]:
    name, _, argument = spec.partition(":")
    for source in SOURCES:
        known, _, wanted = source.usage.partition(":")
        if name == known:
            if bool(argument) != bool(wanted):
                raise InputError(f"data {spec!r} should be written {source.usage}")
            return source, argument
    raise unknown_name("data", spec, (source.usage for source in SOURCES))
