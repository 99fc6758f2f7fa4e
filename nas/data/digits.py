"""The source ``digits``: scikit-learn's 1,797 handwritten digits, 8 x 8 pixels, grey; part of its package."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from nas.data.images import DataDescription, Labels, Pixels
from nas.data.source import SourceImages, empty_images
from nas.progress import Progress

CLASS_NAMES = tuple(str(digit) for digit in range(10))
_BRIGHTEST = 16  # of scikit-learn's pixels


class DigitsSource:
    """Digits scaled to the resolution with bilinear interpolation."""

    usage = "digits"

    def describe(self, argument: str) -> DataDescription:
        """Return one channel and ten classes."""
        return DataDescription(channels=1, class_names=CLASS_NAMES)

    def read(self, argument: str, *, resolution: int, seed: int, progress: Progress) -> SourceImages:
        """Return all digits; they are not divided, the same for every seed, and read at once."""
        small, labels = load_grey_digits()
        images = empty_images(len(small), resolution, channels=1)
        for index, pixels in enumerate(small):
            scaled = Image.fromarray(pixels).resize((resolution, resolution), Image.Resampling.BILINEAR)
            images[index, :, :, 0] = np.asarray(scaled)
        content = hashlib.sha256(small.tobytes())
        content.update(labels.astype("<i8").tobytes())
        return SourceImages(
            class_names=CLASS_NAMES,
            images=images,
            labels=labels,
            origins=np.zeros(len(labels), dtype=np.int8),
            content_hash=content.hexdigest(),
        )


def load_grey_digits() -> tuple[Pixels, Labels]:
    """Return scikit-learn's digits as ``uint8[1797, 8, 8]``, 0 is black, and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / _BRIGHTEST)).astype(np.uint8), digits.target.astype(np.int64)
