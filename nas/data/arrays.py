"""Images and labels as named arrays, which files and functions supply: from these to what a source returns.

An array is named for what it holds and for its split, as Keras and MedMNIST do: ``x_train`` or ``train_images`` with
``y_train`` or ``train_labels``, likewise for ``val`` (or ``valid``, ``validation``) and ``test``; or ``x`` or
``images`` with ``y`` or ``labels`` for a set that is still to be divided. ``class_names`` may name the classes in their
order.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nas.data.images import SPLITS, DataDescription, Pixels, SplitName
from nas.data.pixels import square
from nas.data.source import SPLIT_NAMES, SourceImages, empty_images
from nas.progress import Progress
from search_spaces.errors import InputError

Arrays = Mapping[str, npt.NDArray[Any]]

_IMAGES, _LABELS = ("x", "images"), ("y", "labels")
_CLASS_NAMES = "class_names"
_CHANNELS = (1, 3, 4)
_MOST_CLASSES = 100_000
_EXAMPLES = "x_train and y_train, train_images and train_labels, or x and y for a set that is still to be divided"


class ArraySource(ABC):
    """What sources have in common whose images come as named arrays; these come in an order of their own."""

    usage: str

    @abstractmethod
    def arrays(self, argument: str, *, pixels: bool) -> Arrays:
        """Return the arrays; where pixels are not asked for, images may be empty shells of their shape."""

    def describe(self, argument: str) -> DataDescription:
        """Return channels and classes."""
        return describe_arrays(self.arrays(argument, pixels=False), argument)

    def read(self, argument: str, *, resolution: int, seed: int, progress: Progress) -> SourceImages:
        """Return all images; the same for every seed."""
        return read_arrays(self.arrays(argument, pixels=True), argument, resolution=resolution, progress=progress)


def describe_arrays(arrays: Arrays, source: str) -> DataDescription:
    """Return channels and classes.

    Args:
        arrays: as `read_arrays` takes them; of images only shape and type are looked at.
        source: where they come from, for messages.

    Raises:
        InputError: they are not a labelled set of images.
    """
    parts = _parts(arrays, source)
    channels = {_layout(images, name, source)[1] for _, name, images, _ in parts}
    if len(channels) > 1:
        raise InputError(
            f"{source} has images of {' and of '.join(map(str, sorted(channels)))} channels; make them alike"
        )
    class_names, _ = _classes(parts, arrays, source)
    return DataDescription(channels=1 if channels == {1} else 3, class_names=class_names)


def read_arrays(arrays: Arrays, source: str, *, resolution: int, progress: Progress) -> SourceImages:
    """Return all images as squares of `resolution` pixels.

    Args:
        arrays: by name; images ``uint8[n, h, w]`` or with channels (1, 3 or 4, the fourth for opacity) last or second,
            labels ``int[n]`` or texts.
        source: where they come from, for messages.
        resolution: height and width of the images, in pixels.
        progress: called after each image.

    Raises:
        InputError: they are not a labelled set of images.
    """
    described = describe_arrays(arrays, source)
    parts = _parts(arrays, source)
    _, labels = _classes(parts, arrays, source)
    images = empty_images(len(labels), resolution, described.channels)
    content = hashlib.sha256()
    done = 0
    for split, name, raw, given in parts:
        last, _ = _layout(raw, name, source)
        content.update(f"{split} {last.shape} {given.dtype.kind}".encode())
        content.update(repr(given.tolist()).encode())
        for pixels in last:
            content.update(np.ascontiguousarray(pixels).data)
            images[done] = _squared(pixels, resolution, described.channels)
            done += 1
            progress(done, len(labels))
    content.update(repr(described.class_names).encode())
    return SourceImages(
        class_names=described.class_names,
        images=images,
        labels=labels,
        origins=np.repeat(
            np.array([SPLITS.index(split) for split, *_ in parts], dtype=np.int8), [len(part[3]) for part in parts]
        ),
        content_hash=content.hexdigest(),
    )


_Part = tuple[SplitName, str, npt.NDArray[Any], npt.NDArray[Any]]
"""A split, the name of its images, its images and its labels ``[n]``."""


def _parts(arrays: Arrays, source: str) -> list[_Part]:
    """Return the splits that are given, checked to be images and labels of equal number."""
    names = {name.lower(): name for name in arrays}
    if len(names) < len(arrays):
        raise InputError(f"{source} holds arrays whose names differ in capitals alone; keep one of each")
    parts: list[_Part] = []
    for split, images, labels in _pairs(names, source):
        given = arrays[labels]
        if given.ndim == 2 and given.shape[1] == 1:
            given = given[:, 0]
        if given.ndim != 1 or given.dtype.kind not in "iuU":
            raise InputError(f"{source}: {labels} is {_told(arrays[labels])}, not one whole number or text per image")
        found = next(iter(arrays[images].shape), 1)
        if len(given) != found:
            raise InputError(f"{source}: {images} holds {found} images, but {labels} {len(given)} labels")
        parts.append((split, images, arrays[images], given))
    return parts


def _pairs(names: Mapping[str, str], source: str) -> Iterator[tuple[SplitName, str, str]]:
    """Yield each split with the names of its images and labels, training first."""
    left = dict(names)
    left.pop(_CLASS_NAMES, None)
    found: list[tuple[SplitName, str, str]] = []
    for split in SPLITS:
        spelled = [each for each, meant in SPLIT_NAMES.items() if meant == split]
        images, labels = (_named(left, kinds, spelled, plain=split == "train") for kinds in (_IMAGES, _LABELS))
        if len(images) > 1 or len(labels) > 1:
            raise InputError(f"{source} holds {' and '.join(images + labels)}, which are for the same; keep one pair")
        if images and labels:
            found.append((split, images[0], labels[0]))
        elif images or labels:
            raise InputError(f"{source} holds {(images + labels)[0]} alone; images and labels go in pairs: {_EXAMPLES}")
    if left:
        raise InputError(f"{source} holds {min(left.values())!r}, which is unknown; name arrays {_EXAMPLES}")
    if not found or found[0][0] != "train":
        raise InputError(f"{source} holds no training images; name arrays {_EXAMPLES}")
    yield from found


def _named(left: dict[str, str], kinds: tuple[str, ...], splits: list[str], *, plain: bool) -> list[str]:
    """Take the arrays of a split and of a kind (images or labels) out of `left`, and return their names."""
    spelled = [f"{kind}_{split}" for kind in kinds for split in splits]
    spelled += [f"{split}_{kind}" for kind in kinds for split in splits]
    return [left.pop(each) for each in (*spelled, *(kinds if plain else ())) if each in left]


def _layout(images: npt.NDArray[Any], name: str, source: str) -> tuple[npt.NDArray[Any], int]:
    """Return images with their channels last, ``uint8[n, h, w, c]``, and how many channels they have."""
    last = images[..., None] if images.ndim == 3 else images
    if last.ndim == 4 and last.shape[3] not in _CHANNELS and last.shape[1] in _CHANNELS:
        last = np.moveaxis(last, 1, 3)
    if images.dtype != np.uint8 or last.ndim != 4 or last.shape[3] not in _CHANNELS or 0 in last.shape:
        raise InputError(
            f"{source}: {name} is {_told(images)}, not images: uint8[n, height, width] or with 1, 3 or 4 channels, in "
            f"values of 0 to 255"
        )
    return last, last.shape[3]


def _classes(parts: list[_Part], arrays: Arrays, source: str) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the names of the classes, and every image's position among them."""
    named = _named_classes(arrays, source)
    given = [labels for *_, labels in parts]
    if len({labels.dtype.kind == "U" for labels in given}) > 1:
        raise InputError(f"{source} has labels that are texts and labels that are numbers; make them alike")
    present = np.unique(np.concatenate(given))
    if named is not None and present.dtype.kind == "U":
        raise InputError(f"{source} has labels that are texts and {_CLASS_NAMES}; keep one of them")
    if named is not None:
        names = tuple(named)
        if int(present[0]) < 0 or int(present[-1]) >= len(names):
            raise InputError(
                f"{source} has labels {present[0]} to {present[-1]}, but names {len(names)} classes, from 0 on"
            )
        values = np.arange(len(names))
    else:
        values = np.unique(parts[0][3])
        names = tuple(str(each) for each in values)
        strange = np.setdiff1d(present, values)
        if len(strange):
            raise InputError(f"{source} has no training image of class {strange[0]}, which other images belong to")
    if len(set(names)) < len(names) or len(names) < 2:
        raise InputError(f"{source} has {len(set(names))} classes and needs at least 2, each of its own name")
    positions = np.searchsorted(values, np.concatenate(given))
    return names, positions.astype(np.int64)


def _named_classes(arrays: Arrays, source: str) -> list[str] | None:
    for name, array in arrays.items():
        if name.lower() == _CLASS_NAMES:
            if array.ndim != 1 or array.dtype.kind != "U" or len(array) > _MOST_CLASSES:
                raise InputError(f"{source}: {name} is {_told(array)}, not one text per class")
            return [str(each) for each in array]
    return None


def _told(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _squared(pixels: Pixels, resolution: int, channels: int) -> Pixels:
    """Return one image ``uint8[h, w, c]`` as a square."""
    if pixels.shape == (resolution, resolution, channels):
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return square(image, resolution=resolution, channels=channels)
