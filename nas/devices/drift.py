"""How the speed of a machine changed while models were measured in turn, and figures without that.

Models that are visited one after the other share what a machine does at that time: its clock, and who else uses its
caches. A visit's time is taken as the model's own time, times the machine's slowness at that moment, times noise. The
slowness is what the neighbours in time were slower than usual, so a model with its own ups and downs keeps them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WINDOW = 10
"""How many visits before and after one tell how slow the machine was; they take less than half a second."""
LEAST_MODELS = 2 * WINDOW
"""Fewer models than that would see themselves among their neighbours."""

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
    names, index = np.unique(models, return_inverse=True)
    if len(names) < LEAST_MODELS:
        return np.ones(len(times))
    logarithms = np.log(times)
    by_model = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    drift = np.zeros(len(times))
    for _ in range(_ITERATIONS):
        steady = logarithms - drift
        own = np.array([np.median(steady[visits]) for visits in by_model])
        drift = _of_neighbours(logarithms - own[index])
    steady = logarithms - drift
    level = np.median([np.quantile(logarithms[each], 0.25) - np.quantile(steady[each], 0.25) for each in by_model])
    return np.asarray(np.exp(drift - level), dtype=np.float64)


def _of_neighbours(values: Values) -> Values:
    """Return the median of the values before and after each one, without itself; fewer of them at the ends."""
    padded = np.pad(values, WINDOW, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * WINDOW + 1).copy()
    around[:, WINDOW] = np.nan
    return np.asarray(np.nanmedian(around, axis=1), dtype=np.float64)
