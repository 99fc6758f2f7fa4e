"""How the speed of a machine changed while models were measured in turn, and figures without that.

Models that are visited one after the other share what a machine does at that time: its clock, and who else uses its
caches. A visit's time is taken as the model's own time, times the machine's slowness at that moment, times noise. The
slowness is what the neighbours in time were slower than usual, so a model with its own ups and downs keeps them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WINDOW = 10
"""How many visits before and after one tell how slow the machine was: those of other models among them."""
LEAST_OTHERS = WINDOW
"""Fewer other models around a visit tell nothing."""

_ITERATIONS = 4

Values = npt.NDArray[np.float64]


def slowness(models: npt.NDArray[np.int64], times: Values) -> Values:
    """Return how slow the machine was around each of some visits, ``float64[n]``.

    It is relative to the state that lower quartiles show: dividing by it leaves those of half of the models larger and
    of half smaller, so that figures with and without it can be compared.

    Args:
        models: which model each visit was of, ``int64[n]``, in the order of the visits.
        times: of each visit, ``float64[n]``.
    """
    index = np.unique(models, return_inverse=True)[1]
    others = _others_around(index)
    logarithms = np.log(times)
    by_model = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    drift = np.zeros(len(times))
    for _ in range(_ITERATIONS):
        steady = logarithms - drift
        own = np.array([np.median(steady[visits]) for visits in by_model])
        drift = _median_of(others, logarithms - own[index])
    steady = logarithms - drift
    level = np.median([np.quantile(logarithms[each], 0.25) - np.quantile(steady[each], 0.25) for each in by_model])
    return np.asarray(np.exp(drift - level), dtype=np.float64)


def _others_around(index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return, for each visit, the positions of those before and after it that were of other models.

    ``int64[n, 2 * WINDOW + 1]``, -1 for none; all are none where they are of too few models.
    """
    n = len(index)
    positions = np.arange(n)[:, None] + np.arange(-WINDOW, WINDOW + 1)[None, :]
    inside = (positions >= 0) & (positions < n)
    around = index[np.where(inside, positions, 0)]
    other = inside & (around != index[:, None])
    ordered = np.sort(np.where(other, around, -1), axis=1)
    models = ((ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum(axis=1) + (ordered[:, 0] >= 0)
    return np.where(other & (models >= LEAST_OTHERS)[:, None], positions, -1)


def _median_of(positions: npt.NDArray[np.int64], values: Values) -> Values:
    """Return the median of the values at each row of positions; 0 where there are none."""
    known = (positions >= 0).any(axis=1)
    result = np.zeros(len(values))
    chosen = np.where(positions[known] >= 0, values[positions[known]], np.nan)
    result[known] = np.nanmedian(chosen, axis=1)
    return result
