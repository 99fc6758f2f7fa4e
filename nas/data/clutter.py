"""The source ``clutter``: a real digit among fragments of other digits and noise, drawn from scikit-learn's digits.

Every picture holds one whole digit, scaled, sheared, rotated and placed at random, with pieces of other digits around
and over it, in noise. Nothing is downloaded. Unlike the plain digits it is hard enough for the size of a network to
matter (``experiments/default-data``).

The handwritten digits are divided first: the pictures of a split, and the fragments in them, come from digits that no
other split uses.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.data.digits import CLASS_NAMES, load_grey_digits
from nas.data.images import SPLITS, DataDescription, Labels, Pixels
from nas.data.source import SourceImages, empty_images
from nas.data.splits import divide
from nas.progress import Progress

_SIDE = 8  # of scikit-learn's digits, in pixels
_CHUNK = 512  # pictures drawn at once; more would not fit a cache

_Floats = npt.NDArray[np.float32]
_Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How pictures are drawn. Ranges are uniform; lengths are shares of the picture's side, brightness is 0..1.

    Attributes:
        pictures: how many are drawn from each digit, in the order of `SPLITS`.
        side: of a whole digit.
        stretch: its width, relative to that side.
        turn_degrees: rotation either way; fragments are turned all the way round.
        shear: sideways shift per height, either way.
        brightness: of the digit.
        fragments: fewest and most.
        fragment_pixels: smallest and largest side of the piece cut out of a digit, of its 8 pixels.
        fragment_brightness: of a fragment.
        noise: standard deviation of the noise, drawn per picture.
    """

    pictures: tuple[int, int, int] = (9, 4, 12)
    side: _Range = (0.6, 0.8)
    stretch: _Range = (0.85, 1.15)
    turn_degrees: float = 25.0
    shear: float = 0.2
    brightness: _Range = (0.65, 1.0)
    fragments: tuple[int, int] = (1, 3)
    fragment_pixels: tuple[int, int] = (4, 5)
    fragment_brightness: _Range = (0.3, 0.65)
    noise: _Range = (0.02, 0.09)


class ClutterSource:
    """Cluttered digits, drawn at the resolution that is asked for."""

    usage = "clutter"

    def __init__(self, recipe: Recipe | None = None) -> None:
        self.recipe = recipe or Recipe()

    def describe(self, argument: str) -> DataDescription:
        """Return one channel and ten classes."""
        return DataDescription(channels=1, class_names=CLASS_NAMES)

    def read(self, argument: str, *, resolution: int, seed: int, progress: Progress) -> SourceImages:
        """Draw all pictures; the seed decides which digits serve which split, and everything in the pictures."""
        digits, digit_labels = load_grey_digits()
        sources = divide(digit_labels, np.zeros(len(digits), dtype=np.int8), CLASS_NAMES, seed=seed)
        counts = [len(sources[name]) * each for name, each in zip(SPLITS, self.recipe.pictures, strict=True)]
        images = empty_images(sum(counts), resolution, channels=1)
        labels: list[Labels] = []
        done = 0
        for position, (name, count) in enumerate(zip(SPLITS, counts, strict=True)):
            rng = np.random.default_rng([seed, position])
            shown = np.repeat(sources[name], self.recipe.pictures[position])
            labels.append(digit_labels[shown])
            for start in range(0, count, _CHUNK):
                part = digits[shown[start : start + _CHUNK]]
                images[done : done + len(part), :, :, 0] = _draw(
                    part, digits[sources[name]], resolution, self.recipe, rng
                )
                done += len(part)
                progress(done, len(images))
        all_labels = np.concatenate(labels)
        content = hashlib.sha256(images.tobytes())
        content.update(all_labels.astype("<i8").tobytes())
        return SourceImages(
            class_names=CLASS_NAMES,
            images=images,
            labels=all_labels,
            origins=np.repeat(np.arange(len(SPLITS), dtype=np.int8), counts),
            content_hash=content.hexdigest(),
        )


def _draw(shown: Pixels, others: Pixels, resolution: int, recipe: Recipe, rng: np.random.Generator) -> Pixels:
    """Return pictures ``uint8[n, resolution, resolution]`` of the digits `shown` among fragments of `others`."""
    n = len(shown)
    canvas = np.zeros((n, resolution, resolution), dtype=np.float32)
    n_fragments = rng.integers(*recipe.fragments, size=n, endpoint=True)
    for turn in range(recipe.fragments[1]):
        rows = np.flatnonzero(n_fragments > turn)
        pieces = _cut(others[rng.integers(len(others), size=len(rows))], recipe, rng)
        side = rng.uniform(*recipe.side, size=len(rows))
        placed = _paste(
            pieces,
            resolution,
            size=np.stack([side, side], axis=1),
            angle=rng.uniform(-np.pi, np.pi, len(rows)),
            shear=np.zeros(len(rows)),
            centre=rng.uniform(0.0, 1.0, (len(rows), 2)),
        )
        brightness = rng.uniform(*recipe.fragment_brightness, size=(len(rows), 1, 1)).astype(np.float32)
        canvas[rows] = np.maximum(canvas[rows], placed * brightness)
    side = rng.uniform(*recipe.side, size=n)
    turn = np.radians(recipe.turn_degrees)
    placed = _paste(
        shown,
        resolution,
        size=np.stack([side * rng.uniform(*recipe.stretch, size=n), side], axis=1),
        angle=rng.uniform(-turn, turn, n),
        shear=rng.uniform(-recipe.shear, recipe.shear, n),
        # Whole inside the picture but for the empty corners.
        centre=0.5 + (1.0 - side[:, None]) * rng.uniform(-0.5, 0.5, (n, 2)),
    )
    np.maximum(canvas, placed * rng.uniform(*recipe.brightness, size=(n, 1, 1)).astype(np.float32), out=canvas)
    noise = rng.uniform(*recipe.noise, size=(n, 1, 1)).astype(np.float32)
    canvas += noise * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.round(255.0 * canvas.clip(0.0, 1.0)).astype(np.uint8)


def _cut(digits: Pixels, recipe: Recipe, rng: np.random.Generator) -> Pixels:
    """Return the digits black but for a square piece, which is moved to the middle."""
    n = len(digits)
    side = rng.integers(*recipe.fragment_pixels, size=n, endpoint=True)[:, None]
    corner = rng.integers(0, _SIDE - side + 1, size=(n, 2))
    inside = np.arange(_SIDE) - (_SIDE - side) // 2  # position in the piece, per position in the result
    kept = (inside >= 0) & (inside < side)
    y, x = (np.where(kept, corner[:, [axis]] + inside, 0) for axis in (0, 1))
    pieces: Pixels = digits[np.arange(n)[:, None, None], y[:, :, None], x[:, None, :]]
    return pieces * (kept[:, :, None] & kept[:, None, :])


def _paste(
    digits: Pixels,
    resolution: int,
    *,
    size: npt.NDArray[np.float64],
    angle: npt.NDArray[np.float64],
    shear: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
) -> _Floats:
    """Return empty pictures that show one transformed digit each, ``float32[n, resolution, resolution]`` in 0..1.

    Args:
        digits: ``uint8[n, 8, 8]``.
        resolution: side of the pictures in pixels.
        size: width and height, ``float64[n, 2]``, 1 being the picture's side.
        angle: clockwise, radians, ``float64[n]``.
        shear: sideways shift per height, ``float64[n]``.
        centre: x and y of the middle in 0..1, ``float64[n, 2]``.
    """
    n = len(digits)
    # An empty frame, so that every place outside the digit can be looked up at the nearest place inside the frame.
    framed = np.pad(digits, ((0, 0), (1, 1), (1, 1))).astype(np.float32) / 255
    side = _SIDE + 2
    cos, sin = np.cos(angle), np.sin(angle)
    at = (np.arange(resolution) + 0.5) / resolution
    dx, dy = at - centre[:, [0]], at - centre[:, [1]]
    # Where each pixel of the picture lies in the digit: rotated back, sheared back, scaled.
    along = [(cos / size[:, 0], sin / size[:, 0]), ((shear * cos - sin) / size[:, 1], (shear * sin + cos) / size[:, 1])]
    u, v = (
        ((a * _SIDE)[:, None, None] * dx[:, None, :] + (b * _SIDE)[:, None, None] * dy[:, :, None]) for a, b in along
    )
    x, y = (np.clip(w + (side - 1) / 2, 0.0, side - 1.001).astype(np.float32) for w in (u, v))
    left, top = x.astype(np.int32), y.astype(np.int32)
    right_share, lower_share = x - left, y - top
    corner = top * side + left + (np.arange(n, dtype=np.int32) * side * side)[:, None, None]
    flat = framed.ravel()
    upper = flat[corner] * (1 - right_share) + flat[corner + 1] * right_share
    lower = flat[corner + side] * (1 - right_share) + flat[corner + side + 1] * right_share
    result: _Floats = upper * (1 - lower_share) + lower * lower_share
    return result
