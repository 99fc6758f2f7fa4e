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

    def covariance(self, grams: Sequence[Values], distances: Sequence[Values]) -> Values:
        """Return the prior covariance ``float64[n, p]`` without noise.

        Args:
            grams: inner products of rows by group, ``float64[n, p]`` each.
            distances: squared distances of rows by smooth part, ``float64[n, p]`` each.
        """
        parts = [variance * gram for variance, gram in zip(self.linear, grams, strict=True)]
        for variance, length, squared in zip(self.smooth, self.length, distances, strict=True):
            parts.append(variance * np.exp(-squared / (2.0 * length**2)))
        total: Values = np.sum(parts, axis=0)
        return total


def some_rows(n: int) -> npt.NDArray[np.int64]:
    """Return which of `n` rows decide: all of them, or of very many a random part, always the same."""
    return np.arange(n) if n <= _MAX_ROWS else np.random.default_rng(0).choice(n, size=_MAX_ROWS, replace=False)


def fit_variances(grams: Sequence[Values], distances: Sequence[Values], y: Values) -> tuple[Variances, float]:
    """Maximise the evidence of standardised values ``float64[n]``; returns it too, as a logarithm up to a constant.

    Of very many rows `some_rows` decide: a few numbers are fitted, in time of the third power.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import minimize

    rows = some_rows(len(y))
    if len(rows) < len(y):
        pairs = np.ix_(rows, rows)
        grams, distances, y = [gram[pairs] for gram in grams], [each[pairs] for each in distances], y[rows]
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
        smooth = [
            variance * np.exp(-squared / (2.0 * length**2))
            for variance, length, squared in zip(fitted.smooth, fitted.length, distances, strict=True)
        ]
        linear = [variance * gram for variance, gram in zip(fitted.linear, grams, strict=True)]
        covariance = np.sum([*linear, *smooth], axis=0)
        covariance[np.diag_indices(len(y))] += fitted.noise + _JITTER
        root = np.linalg.cholesky(covariance)
        unroot = solve_triangular(root, identity, lower=True, check_finite=False)
        inverse = unroot.T @ unroot
        weights = inverse @ y
        away = (logs - center) / width
        value = 0.5 * y @ weights + np.log(np.diag(root)).sum() + 0.5 * away @ away
        slope = np.outer(weights, weights) - inverse
        stretched = [
            part * squared / length**2 for part, squared, length in zip(smooth, distances, fitted.length, strict=True)
        ]
        slopes = [-0.5 * np.vdot(slope, part) for part in (*linear, *smooth, *stretched)]
        slopes.append(-0.5 * fitted.noise * np.trace(slope))
        return float(value), np.array(slopes) + away / width

    bounds = [(middle - 6.0 * spread, middle + 6.0 * spread) for middle, spread in zip(center, width, strict=True)]
    found = minimize(objective, center, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
    return split(found.x), -float(found.fun)
