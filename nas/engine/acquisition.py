"""Which candidates are worth a true evaluation: the expected gain in hypervolume, over joint draws of a predictor.

Hypervolume is, up to a constant, the mean over random directions of the best scalarised value (Golovin & Zhang 2020,
arXiv:2006.04655, lemma 5): one formula for any number of objectives, costly and exact ones alike. Its gain for a batch,
in expectation over joint draws, is maximised greedily, as in q-EHVI (Daulton et al. 2020, arXiv:2006.05078).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.engine.pareto import Indices
from nas.engine.problem import Values

_DIRECTIONS = 192
_EDGE = 0.1
"""How far the reference point lies beyond the worst of the front, as a share of its range: the ends count as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What was chosen.

    Attributes:
        rows: of the candidates, in the order in which they were chosen.
        gain: expected gain in hypervolume by the first of them, relative to that of the front.
    """

    rows: Indices
    gain: float


def choose_batch(
    draws: Values, possible: Values, front: Values, scale: Values, n: int, rng: np.random.Generator
) -> Batch:
    """Choose candidates one after the other, each by what it adds to the front and to those chosen before it.

    Args:
        draws: what is minimised, as each of `s` draws has it, ``float64[s, p, m]``.
        possible: whether each draw keeps all bounds, 0 or 1, ``float64[s, p]``.
        front: true values of what is minimised, ``float64[k, m]``, feasible; may be empty.
        scale: values ``float64[j, m]`` that span the range worth looking at, such as those of the last population.
        n: how many; fewer if there are fewer candidates.
        rng: of the directions.
    """
    low = np.minimum(scale.min(axis=0), front.min(axis=0, initial=np.inf))
    high = np.maximum(scale.max(axis=0), front.max(axis=0, initial=-np.inf))
    span = np.where(high > low, high - low, 1.0)
    reference = high + _EDGE * span
    directions = _directions(draws.shape[2], rng)
    candidates = _scalarised((reference - draws) / span, directions) * possible[..., None]
    best = np.zeros((len(draws), len(directions)))
    if len(front):
        best += _scalarised((reference - front) / span, directions).max(axis=0)
    volume = float(best.mean())
    rows: list[int] = []
    first_gain = 0.0
    for _ in range(min(n, draws.shape[1])):
        gains = np.maximum(candidates - best[:, None], 0.0).mean(axis=(0, 2))
        gains[rows] = -1.0
        row = int(gains.argmax())
        if not rows:
            first_gain = float(gains[row])
        rows.append(row)
        best = np.maximum(best, candidates[:, row])
    return Batch(rows=np.array(rows, dtype=np.int64), gain=first_gain / volume if volume > 0.0 else np.inf)


def _directions(n_objectives: int, rng: np.random.Generator) -> Values:
    """Return unit vectors of the positive orthant, ``float64[d, m]``, uniform."""
    drawn = np.abs(rng.normal(size=(_DIRECTIONS, n_objectives)))
    directions: Values = np.maximum(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), 1e-6)
    return directions


def _scalarised(better: Values, directions: Values) -> Values:
    """Return ``float[…, d]``: per direction, the volume of the box towards it, from ``float64[…, m]`` (0 at worst)."""
    m = better.shape[-1]
    nearest = np.full((*better.shape[:-1], len(directions)), np.inf)
    for objective in range(m):
        np.minimum(nearest, better[..., objective, None] / directions[:, objective], out=nearest)
    result: Values = np.maximum(nearest, 0.0) ** m
    return result
