"""The source ``npz:FILE``: arrays of images and labels in one of numpy's archives, see `nas.data.arrays`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from nas.data.arrays import Arrays, ArraySource
from nas.data.source import require_memory
from search_spaces.errors import InputError, first_line


class NpzSource(ArraySource):
    """An archive that ``numpy.savez`` or ``savez_compressed`` has written; nothing in it is executed."""

    usage = "npz:FILE"

    def arrays(self, argument: str, *, pixels: bool) -> Arrays:
        """Return the archive's arrays; without pixels, the headers alone of those with more than two axes."""
        return _arrays(argument, pixels=pixels)


def _arrays(argument: str, *, pixels: bool) -> Arrays:
    """Return an archive's arrays; where pixels are not asked for, those of more than two axes are empty shells."""
    path = Path(argument).expanduser()
    with _explained(path), zipfile.ZipFile(path) as archive:
        members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
        require_memory(sum(each.file_size for each in members), f"the arrays in {path}", "divide the file")
        return {each.filename.removesuffix(".npy"): _array(archive, each, pixels=pixels) for each in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, pixels: bool) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"{member.filename} holds Python objects or nothing, which is not read")
    # A header may promise any number of elements, for which numpy would make room before it reads the first.
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} is shorter than its header says")
    if not pixels and len(shape) > 2:
        return np.broadcast_to(np.zeros((), dtype), shape)
    with archive.open(member) as file:
        array: npt.NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a missing, damaged or hostile archive raises into one line."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - numpy and zipfile document no error types for damaged files
        raise InputError(f"{path} is not a readable .npz file ({first_line(error)})") from None
