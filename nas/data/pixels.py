"""From the bytes of an image file to a square of pixels, with Pillow; the bytes are not trusted."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from nas.data.images import Pixels
from search_spaces.errors import first_line

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm"})
"""Endings of image files, in lower case."""

# Pillow decides by content, not by suffix. Of its many formats one runs Ghostscript and several print from C on
# standard error when a file is broken, so only those that the suffixes promise are tried.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM")

_GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B"})

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by its EXIF orientation."""

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What reading a broken file raises inside `strict_pillow`."""


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Make an image above Pillow's limit of pixels an error, and ignore warnings, which are about metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def is_stored_grey(path: Path) -> bool:
    """Tell from a file's header alone whether its pixels are stored as grey; a palette counts as colour."""
    with Image.open(path, formats=_FORMATS) as image:
        return image.mode in _GREY_MODES


def decode_square(content: bytes, *, resolution: int, channels: int) -> Pixels:
    """Decode an image, upright, and scale it so that its shorter side fits; the longer side is cropped evenly.

    The orientation in the EXIF data is obeyed, what is transparent becomes white, 16 bits become 8, and of an
    animation the first frame counts. Shrinking averages over all pixels that it merges.

    Args:
        content: the bytes of an image file.
        resolution: height and width of the result, in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        ``uint8[resolution, resolution, channels]``.

    Raises:
        Exception: one of `UNREADABLE`.
    """
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        # JPEG can decode at a half, a quarter or an eighth of its size; a factor of 2 is left to the averaging.
        image.draft(None, (2 * resolution, 2 * resolution))
        image.load()
        return square(_upright(image), resolution=resolution, channels=channels)


def square(image: Image.Image, *, resolution: int, channels: int) -> Pixels:
    """Return an image as `decode_square` does, but for the orientation."""
    flat = _flat(image, mode="L" if channels == 1 else "RGB")
    fitting = ImageOps.fit(flat, (resolution, resolution), method=Image.Resampling.BILINEAR)
    return np.asarray(fitting).reshape(resolution, resolution, channels)


def reason(error: BaseException) -> str:
    """Say in a few words why a file cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


def _upright(image: Image.Image) -> Image.Image:
    """Return an image as it is to be looked at.

    Pillow's `exif_transpose` would also write the remaining EXIF data anew, which fails in many ways where they are
    odd; nobody reads them here.
    """
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _flat(image: Image.Image, *, mode: str) -> Image.Image:
    """Return an image without transparency in a mode of 8 bits."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        overlay = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay)
    return image.convert(mode)
