"""Dividing a labelled set into training, validation and test: disjoint, stratified by class, the same for a seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas.data.images import SPLITS, Labels, SplitName
from search_spaces.errors import InputError

HELD_OUT_SHARE = 0.2
"""The share of a class that is cut for validation, and again for test."""

Origins = npt.NDArray[np.int8]
"""The split that the source itself puts a row into, ``int8[n]``, as a position in `SPLITS`."""


def divide(
    labels: Labels, origins: Origins, class_names: tuple[str, ...], *, seed: int
) -> dict[SplitName, npt.NDArray[np.int64]]:
    """Return the rows of each split, shuffled; splits that the source lacks are cut from its training rows.

    Each class gives `HELD_OUT_SHARE` of its training rows, and at least one, to each split that is missing.

    Args:
        labels: ``int64[n]``, positions in `class_names`.
        origins: ``int8[n]``, positions in `SPLITS`; all 0 if the source is not divided.
        class_names: one per class.
        seed: decides what is cut and the order of rows.

    Raises:
        InputError: a class has too few images for a split.
    """
    rng = np.random.default_rng(seed)
    missing = [name for position, name in enumerate(SPLITS) if not (origins == position).any()]
    parts: dict[SplitName, list[npt.NDArray[np.int64]]] = {name: [] for name in SPLITS}
    for label, class_name in enumerate(class_names):
        given = [np.flatnonzero((labels == label) & (origins == position)) for position in range(len(SPLITS))]
        _refuse_too_few(class_name, [len(rows) for rows in given], missing)
        pool = rng.permutation(given[0])
        cut = max(1, round(HELD_OUT_SHARE * len(pool)))
        for name, rows in zip(SPLITS[1:], given[1:], strict=True):
            if name in missing:
                rows, pool = pool[:cut], pool[cut:]
            parts[name].append(rows)
        parts[SPLITS[0]].append(pool)
    return {name: rng.permutation(np.concatenate(rows)) for name, rows in parts.items()}


def _refuse_too_few(class_name: str, counts: list[int], missing: list[SplitName]) -> None:
    """Raise `InputError` unless a class can have an image in each split."""
    needed = 1 + len(missing)
    if counts[0] < needed:
        also = f" ({' and '.join(missing)} are cut from it)" if missing else ""
        raise InputError(
            f"class {class_name!r} has {counts[0]} training images, but every class needs at least {needed}{also}"
        )
    for name, count in zip(SPLITS[1:], counts[1:], strict=True):
        if name not in missing and count == 0:
            raise InputError(f"class {class_name!r} has no image in the {name} split, but every class needs at least 1")
