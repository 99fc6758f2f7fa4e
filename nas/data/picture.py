"""A picture of a data set: a few training images of every class, each class a row with its name."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nas.data.images import ImageData, Pixels

_TILE = 56  # side of an image in the picture, at least, in pixels
_GAP = 4
_NAME_SIZE = 16
_LONGEST_NAME = 24


def sample_picture(data: ImageData, *, columns: int, seed: int) -> bytes:
    """Return a PNG that shows random training images, `columns` of each class where it has so many."""
    rng = np.random.default_rng(seed)
    train = data.split("train")
    zoom = -(-_TILE // data.resolution)
    tile = zoom * data.resolution
    font = ImageFont.load_default(_NAME_SIZE)
    names = [_shortened(name) for name in data.class_names]
    left = 2 * _GAP + round(max(font.getlength(name) for name in names))
    size = (left + columns * (tile + _GAP), _GAP + len(names) * (tile + _GAP))
    picture = Image.new("L" if data.channels == 1 else "RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        top = _GAP + row * (tile + _GAP)
        draw.text((_GAP, top + tile / 2), name, fill="black", font=font, anchor="lm")
        members = np.flatnonzero(train.labels == row)
        for column, member in enumerate(rng.permutation(members)[:columns]):
            picture.paste(_enlarged(train.images[member], zoom), (left + column * (tile + _GAP), top))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _enlarged(image: Pixels, zoom: int) -> Image.Image:
    """Return an image with every pixel as a square of `zoom` pixels."""
    pixels = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
