"""A scale of values on which effects add up, found by evidence (warped Gaussian processes, Snelson et al. 2003).

Accuracy approaches a ceiling: what gives a small network two points gives a large one half a point. On the logarithm of
the distance from that ceiling the two are alike, and a regression learns from the one about the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.regression.base import Scaling, Values
from predictors.regression.evidence import fit_variances, some_rows

_BEYOND = (0.1, 0.2, 0.5, 1.0)
"""How far a bound may lie beyond the values told, as shares of their range."""
_MARGIN = 2.0  # of log evidence, to leave the values as they are unless they clearly ask for more
_FARTHEST = 10.0


@dataclass(frozen=True, slots=True)
class Warp:
    """From values to the scale they are fitted on, and back.

    Attributes:
        sign: 1 if values approach a bound from below, -1 if they do from above, 0 if they stay as they are.
        bound: that bound.
        farthest: the largest distance from it that is believed.
    """

    sign: int = 0
    bound: float = 0.0
    farthest: float = 0.0

    def __call__(self, y: Values) -> Values:
        """Return warped values; order is kept."""
        return -self.sign * np.log(self.sign * (self.bound - y)) if self.sign else y

    def back(self, z: Values) -> Values:
        """Return values of warped ones."""
        return self.bound - self.sign * self._distance(z) if self.sign else z

    def suits(self, y: Values) -> bool:
        """Return whether values keep clear of the bound."""
        return not self.sign or bool((self.sign * (self.bound - y)).min() > 0.005 * self.farthest)

    def slope(self, z: Values) -> Values:
        """Return by how much a value changes with its warped one: what turns small deviations back."""
        return self._distance(z) if self.sign else np.ones_like(z)

    def _distance(self, z: Values) -> Values:
        distance: Values = np.exp(np.minimum(-self.sign * z, np.log(self.farthest)))
        return distance


def fit_warp(x: Values, y: Values, scaling: Scaling) -> Warp:
    """Return the warp under which a linear model finds the values least surprising.

    Args:
        x: features ``float64[n, k]`` from that scaling.
        y: values ``float64[n]``.
        scaling: with the groups of the features.
    """
    spread, top, bottom = float(np.ptp(y)), float(y.max()), float(y.min())
    if spread == 0.0 or not x.shape[1]:
        return Warp()
    rows = some_rows(len(y))
    x, y = x[rows], y[rows]

    def log_evidence(warp: Warp) -> float:
        z = warp(y)
        scale = float(z.std())
        _, of_standardised = fit_variances(x, (z - z.mean()) / scale, scaling.groups)
        return float(of_standardised - len(y) * np.log(scale) - np.log(warp.slope(z)).sum())

    warps = [
        Warp(sign, end + sign * beyond * spread, _FARTHEST * spread)
        for sign, end in ((1, top), (-1, bottom))
        for beyond in _BEYOND
    ]
    best, chosen = log_evidence(Warp()) + _MARGIN, Warp()
    for warp in warps:
        if (value := log_evidence(warp)) > best:
            best, chosen = value, warp
    return chosen
