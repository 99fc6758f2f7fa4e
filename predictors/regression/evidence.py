"""Variances of the parts of a Gaussian model, fitted by evidence (MacKay 1992; Rasmussen & Williams 2006, chapter 5).

One variance for each group of features: networks are few and features many, so what decides is how much each *kind* of
feature matters, and that the evaluations themselves tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from predictors.regression.base import Values

Groups = Sequence[slice]
"""Columns of features, group by group."""

_JITTER = 1e-8
_STEPS = 60
_MAX_ROWS = 200
# Weak log-normal priors on what is fitted to standardised values: they decide where a few rows say nothing.
_LINEAR, _SMOOTH, _LENGTH, _NOISE = (0.1, 2.0), (0.1, 2.0), (1.0, 0.7), (0.02, 1.5)


@dataclass(frozen=True, slots=True)
class Variances:
    """What was fitted, relative to the variance of the values.

    Attributes:
        linear: of the weights of each group of features.
        smooth: of each smooth part.
        length: the distance over which each smooth part changes.
        noise: of evaluations.
    """

    linear: Values
    smooth: Values
    length: Values
    noise: float

    def covariance(self, x: Values, other: Values, groups: Groups, smooth: Sequence[Groups] = ()) -> Values:
        """Return the prior covariance ``float64[n, p]`` of rows ``float64[n, k]`` with others, without noise."""
        # One product for all linear parts: columns times the square root of their variance.
        widths = np.sqrt(np.repeat(self.linear, [group.stop - group.start for group in groups]))
        covariance: Values = (x * widths) @ (other * widths).T
        for part in self._smooth([_squared_distances(x, other, columns) for columns in smooth]):
            covariance += part
        return covariance

    def _smooth(self, distances: Sequence[Values]) -> list[Values]:
        """Return the smooth parts of a covariance from squared distances."""
        return [
            variance * np.exp(-squared / (2.0 * length**2))
            for variance, length, squared in zip(self.smooth, self.length, distances, strict=True)
        ]


def some_rows(n: int) -> npt.NDArray[np.int64]:
    """Return which of `n` rows decide: all of them, or of very many a random part, always the same."""
    return np.arange(n) if n <= _MAX_ROWS else np.random.default_rng(0).choice(n, size=_MAX_ROWS, replace=False)


def fit_variances(x: Values, y: Values, groups: Groups, smooth: Sequence[Groups] = ()) -> tuple[Variances, float]:
    """Maximise the evidence; returns it too, as a logarithm up to a constant.

    Of very many rows `some_rows` decide: a few numbers are fitted, in time of the third power.

    Args:
        x: features ``float64[n, k]``.
        y: standardised values ``float64[n]``.
        groups: columns of the linear parts, one variance each.
        smooth: columns of each smooth part.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import minimize

    rows = some_rows(len(y))
    x, y = x[rows], y[rows]
    grams = [x[:, group] @ x[:, group].T for group in groups]
    distances = [_squared_distances(x, x, columns) for columns in smooth]
    n_linear, n_smooth = len(grams), len(distances)
    priors = np.array([_LINEAR] * n_linear + [_SMOOTH] * n_smooth + [_LENGTH] * n_smooth + [_NOISE])
    center, width = np.log(priors[:, 0]), priors[:, 1]
    identity = np.eye(len(y))

    def split(logs: Values) -> Variances:
        values = np.exp(logs)
        ends = np.cumsum([n_linear, n_smooth, n_smooth])
        linear, smooth, length, noise = np.split(values, ends)
        return Variances(linear, smooth, length, float(noise[0]))

    def objective(logs: Values) -> tuple[float, Values]:
        fitted = split(logs)
        linear = [variance * gram for variance, gram in zip(fitted.linear, grams, strict=True)]
        curved = fitted._smooth(distances)
        covariance = np.sum([*linear, *curved], axis=0)
        covariance[np.diag_indices(len(y))] += fitted.noise + _JITTER
        root = np.linalg.cholesky(covariance)
        unroot = solve_triangular(root, identity, lower=True, check_finite=False)
        inverse = unroot.T @ unroot
        weights = inverse @ y
        away = (logs - center) / width
        value = 0.5 * y @ weights + np.log(np.diag(root)).sum() + 0.5 * away @ away
        slope = np.outer(weights, weights) - inverse
        stretched = [
            part * squared / length**2 for part, squared, length in zip(curved, distances, fitted.length, strict=True)
        ]
        slopes = [-0.5 * np.vdot(slope, part) for part in (*linear, *curved, *stretched)]
        slopes.append(-0.5 * fitted.noise * np.trace(slope))
        return float(value), np.array(slopes) + away / width

    bounds = [(middle - 6.0 * spread, middle + 6.0 * spread) for middle, spread in zip(center, width, strict=True)]
    found = minimize(objective, center, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
    return split(found.x), -float(found.fun)


def _squared_distances(x: Values, other: Values, groups: Groups) -> Values:
    """Return squared distances between rows over some columns, ``float64[n, p]``."""
    total = np.zeros((len(x), len(other)))
    for columns in groups:
        left, right = x[:, columns], other[:, columns]
        total += np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1) - 2.0 * left @ right.T
    return np.maximum(total, 0.0)
