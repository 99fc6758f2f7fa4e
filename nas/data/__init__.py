"""Data sets by name, see `SOURCES`: built in, or the user's own images. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from nas.data.clutter import ClutterSource
from nas.data.digits import DigitsSource
from nas.data.folder import FolderSource
from nas.data.function import FunctionSource, names_a_function
from nas.data.idx import IdxSource
from nas.data.images import SPLITS, DataDescription, ImageData, ImageSplit, SplitName, channel_statistics
from nas.data.npz import NpzSource
from nas.data.source import DataSource, SourceImages, told_unreadable
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
    "resolved",
    "told_unreadable",
]

SOURCES: tuple[DataSource, ...] = (
    ClutterSource(),
    DigitsSource(),
    FolderSource(),
    NpzSource(),
    IdxSource(),
    FunctionSource(),
)
"""Every source; another one is a file of its own and a line here."""


_PATHS = ("PATH", "FILE", "DIR")
"""Words for an argument that is a place on disk."""


def describe_data(spec: str) -> DataDescription:
    """Return channels and classes of a data set without decoding its images.

    Args:
        spec: written as the usage of one of `SOURCES`.

    Raises:
        InputError: the specification is not known, or the data are of no use.
        MachineError: the disk refuses to list a folder.
    """
    source, argument = _find_source(spec)
    return source.describe(argument)


def load_data(spec: str, *, resolution: int, seed: int, progress: Progress = no_progress) -> ImageData:
    """Read a data set and divide it into three disjoint splits, each with images of every class.

    Args:
        spec: written as the usage of one of `SOURCES`.
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
    try:
        rows = divide(whole.labels, whole.origins, whole.class_names, seed=seed)
    except InputError as error:
        left_out = f"; {told_unreadable(whole.unreadable)}" if whole.unreadable else ""
        raise InputError(f"{error}{left_out}") from None
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
        unreadable=whole.unreadable,
    )


def resolved(spec: str) -> str:
    """Return a specification that means the same from every folder, if it names a path; else as it is."""
    source, argument = _find_source(spec)
    name, _, wanted = source.usage.partition(":")
    return f"{name}:{Path(argument).expanduser().resolve()}" if wanted in _PATHS else spec


def _find_source(spec: str) -> tuple[DataSource, str]:
    """Return the source of a specification, and what the source is told; raises `InputError` if there is none."""
    name, _, argument = spec.partition(":")
    for source in SOURCES:
        known, _, wanted = source.usage.partition(":")
        if name == known and not isinstance(source, FunctionSource):
            if bool(argument) != bool(wanted):
                raise InputError(f"data {spec!r} should be written {source.usage}")
            return source, argument
    if names_a_function(spec):
        return FunctionSource(), spec
    unknown = unknown_name("data", spec, (source.usage for source in SOURCES))
    if argument.isidentifier():
        raise InputError(f"{unknown}; nor is there a module {name!r}, installed or in the current folder")
    raise unknown
