"""The source ``folder:PATH``: images in one folder per class.

Either ``PATH/<class>/*.png``, which is divided by the seed, or ``PATH/train/<class>/*.png`` beside ``PATH/val``
(or ``valid``, ``validation``) and ``PATH/test``; whichever of the two is missing is cut from ``train``. Links are
followed: whoever names a folder trusts it for reading. Hidden files are ignored; images that are damaged are left out
and named; anything else is refused, so that no part of a data set is lost unnoticed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.images import SPLITS, DataDescription, SplitName
from nas.data.pixels import SUFFIXES, UNREADABLE, decode_square, is_stored_grey, reason, strict_pillow
from nas.data.source import SPLIT_NAMES, SourceImages, empty_images
from nas.progress import Progress
from search_spaces.errors import InputError, MachineError, unknown_name

_IGNORED = frozenset({"Thumbs.db", "desktop.ini"})  # what Windows leaves in folders of pictures


@dataclass(frozen=True, slots=True)
class _File:
    """One image file: where it is, its class as a position, and its split as a position in `SPLITS`."""

    path: Path
    label: int
    origin: int


class FolderSource:
    """Image files, grey only if every file is stored as grey, scaled and cropped to squares."""

    usage = "folder:PATH"

    def describe(self, argument: str) -> DataDescription:
        """Return channels and classes; opens headers up to the first colour image, and decodes nothing."""
        root = Path(argument).expanduser()
        class_names, files = _list_images(root)
        channels = _channels(files)
        return DataDescription(channels=channels, class_names=class_names)

    def read(self, argument: str, *, resolution: int, seed: int, progress: Progress) -> SourceImages:
        """Return all images, in the natural order of their names; the same for every seed."""
        root = Path(argument).expanduser()
        class_names, files = _list_images(root)
        channels = _channels(files)
        images = empty_images(len(files), resolution, channels)
        content_hash = hashlib.sha256()
        good: list[_File] = []
        unreadable: list[str] = []
        with strict_pillow():
            for done, file in enumerate(files, start=1):
                name = file.path.relative_to(root).as_posix()
                content = _content(file.path)
                try:
                    images[len(good)] = decode_square(content, resolution=resolution, channels=channels)
                except UNREADABLE as error:
                    unreadable.append(f"{name} ({reason(error)})")
                else:
                    good.append(file)
                    content_hash.update(os.fsencode(name) + b"\0%d\0" % len(content) + content)
                progress(done, len(files))
        return SourceImages(
            class_names=class_names,
            images=images[: len(good)],
            labels=np.array([file.label for file in good], dtype=np.int64),
            origins=np.array([file.origin for file in good], dtype=np.int8),
            content_hash=content_hash.hexdigest(),
            unreadable=tuple(unreadable),
        )


def _content(path: Path) -> bytes:
    """Return a file's bytes; one that the disk refuses is not damaged, and must not be left out."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror or error}") from None


def _list_images(root: Path) -> tuple[tuple[str, ...], list[_File]]:
    """Return class names and image files in an order that does not depend on the file system.

    Raises:
        InputError: the folder is missing, or its layout is not one of the two that are understood.
        MachineError: the folder cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}")
    split_folders = _split_folders(root)
    class_names = tuple(sorted(_class_folders(split_folders["train"])))
    if len(class_names) < 2:
        raise InputError(
            f"{split_folders['train']} has {len(class_names)} class folders and needs at least 2: images belong into "
            f"{root}/<class>/, or into {root}/train/<class>/ with val/ and test/ beside it"
        )
    files: list[_File] = []
    for split, folder in split_folders.items():
        present = _class_folders(folder)
        unknown = sorted(present - set(class_names))
        if unknown:
            raise InputError(f"{folder} has classes that {split_folders['train']} lacks: {', '.join(unknown)}")
        for label, class_name in enumerate(class_names):
            if class_name in present:
                paths = _images_of_class(folder / class_name)
                files += [_File(path, label, SPLITS.index(split)) for path in paths]
    return class_names, files


def _split_folders(root: Path) -> dict[SplitName, Path]:
    """Return the folder of each split that is given; the root itself for training if there is no such division."""
    names, _ = _children(root)
    # A folder `train` that holds images is a class of that name.
    if "train" not in names or not _children(root / "train")[0]:
        return {"train": root}
    given: dict[SplitName, Path] = {}
    for name in names:
        if name not in SPLIT_NAMES:
            raise unknown_name(f"folder beside {root / 'train'}:", name, SPLIT_NAMES)
        split = SPLIT_NAMES[name]
        if split in given:
            raise InputError(f"{given[split]} and {root / name} are both for {split}; keep one of them")
        given[split] = root / name
    return given


def _class_folders(folder: Path) -> set[str]:
    names, files = _children(folder)
    stray = [name for name in files if Path(name).suffix.lower() in SUFFIXES]
    if stray:
        raise InputError(f"{folder / stray[0]} belongs to no class: images belong into {folder}/<class>/")
    return set(names)


def _images_of_class(folder: Path) -> list[Path]:
    folders, files = _children(folder)
    if folders:
        raise InputError(f"{folder / folders[0]} is a folder inside a class; images belong directly into {folder}")
    others = [name for name in files if Path(name).suffix.lower() not in SUFFIXES]
    if others:
        raise InputError(
            f"{folder / others[0]} is not an image of a known format ({' '.join(sorted(SUFFIXES))}); "
            f"convert or remove it ({len(others)} such files in this folder)"
        )
    return [folder / name for name in sorted(files, key=_natural)]


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sort key by which 2.png comes before 10.png; text and numbers alternate, so that like meets like."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _children(folder: Path) -> tuple[list[str], list[str]]:
    """Return the visible folders and files of a folder, each sorted by name, links followed."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _IGNORED:
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
                else:
                    raise InputError(f"{entry.path} is neither a file nor a folder; perhaps a broken link")
    except OSError as error:
        raise MachineError(f"cannot list {folder}: {error.strerror}") from None
    return sorted(folders), sorted(files)


def _channels(files: Sequence[_File]) -> int:
    """Return 1 if every file is stored as grey, else 3; files whose header is damaged do not count."""
    with strict_pillow():
        for file in files:
            try:
                if not is_stored_grey(file.path):
                    return 3
            except UNREADABLE:
                continue
    return 1
