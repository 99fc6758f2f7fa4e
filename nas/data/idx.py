"""The source ``idx:DIR``: files as MNIST, Fashion-MNIST and EMNIST come in, also compressed by gzip.

``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same with ``t10k`` or ``test``; what stands before and
between these words does not matter.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.data.arrays import Arrays, ArraySource
from nas.data.source import require_memory
from search_spaces.errors import InputError

_NAME = re.compile(r"(?:.*[-_.])?(train|t10k|test)[-_.](images|labels)[-_.]idx[134][-_.]ubyte(?:\.gz)?")
_BYTES = 0x08
"""The type code of unsigned bytes."""


class IdxSource(ArraySource):
    """Images and labels in the format of MNIST; every class is named by its number."""

    usage = "idx:DIR"

    def arrays(self, argument: str, *, pixels: bool) -> Arrays:
        """Return the files' arrays; without pixels, the headers alone of images."""
        return _arrays(argument, pixels=pixels)


def _arrays(argument: str, *, pixels: bool) -> Arrays:
    root = Path(argument).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {root}")
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if match := _NAME.fullmatch(path.name):
            name = f"{'train' if match[1] == 'train' else 'test'}_{match[2]}"
            if name in found:
                raise InputError(f"{found[name]} and {path.name} are both {name.replace('_', ' ')}; keep one of them")
            found[name] = path
    if not found:
        raise InputError(f"{root} has no files named as train-images-idx3-ubyte and train-labels-idx1-ubyte, or .gz")
    return {name: _array(path, pixels=pixels or name.endswith("labels")) for name, path in found.items()}


def _array(path: Path, *, pixels: bool) -> npt.NDArray[np.uint8]:
    """Return a file's content, or an empty shell of its shape."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zeros, code, axes = struct.unpack(">HBB", file.read(4))
            if zeros or code != _BYTES or not 1 <= axes <= 4:
                raise ValueError("it does not start as one of bytes does")
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            if not pixels:
                return np.broadcast_to(np.zeros((), np.uint8), shape)
            size = math.prod(shape)
            require_memory(size, f"the {path.name}", "divide the file")
            content = file.read(size + 1)
    except InputError:
        raise
    except (EOFError, ValueError, zlib.error, struct.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a readable IDX file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if len(content) != size:
        raise InputError(f"{path} is {'shorter' if len(content) < size else 'longer'} than its header says")
    return np.frombuffer(content, np.uint8).reshape(shape)
