"""``ridge``: ridge regression with a penalty for each group of features, fitted by evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.regression.base import Scaling, Values
from predictors.regression.evidence import fit_variances


@dataclass(frozen=True, slots=True)
class Ridge:
    """A linear function, and what the data leave open about its coefficients.

    Attributes:
        weights: ``float64[k]``.
        prior: standard deviation of each weight before any data, ``float64[k]``.
        seen: directions, in weights relative to their prior, that the data tell about, ``float64[k, r]``, orthonormal.
        left: what the data leave of the deviation along each of them, ``float64[r]`` in 0..1.
        offset: value at the mean of the features.
        noise: standard deviation of evaluations around the function.
    """

    weights: Values
    prior: Values
    seen: Values
    left: Values
    offset: float
    noise: float

    def mean(self, x: Values) -> Values:
        """Return the expected value."""
        expected: Values = x @ self.weights + self.offset
        return expected

    def std(self, x: Values) -> Values:
        """Return its standard deviation."""
        white = x * self.prior
        told = np.square(white @ self.seen) @ (1.0 - np.square(self.left))
        deviation: Values = np.sqrt(np.maximum(np.square(white).sum(axis=1) - told, 0.0))
        return deviation

    def draw(self, x: Values, n_draws: int, rng: np.random.Generator) -> Values:
        """Return linear functions."""
        z = rng.normal(size=(n_draws, len(self.prior)))
        z -= ((z @ self.seen) * (1.0 - self.left)) @ self.seen.T
        drawn: Values = self.mean(x) + z @ (x * self.prior).T
        return drawn


def fit_ridge(x: Values, y: Values, scaling: Scaling, seed: int) -> Ridge:
    """Fit to at least two rows."""
    offset, scale = float(y.mean()), float(y.std())
    n_features = x.shape[1]
    if not n_features or scale == 0.0:
        nothing = np.zeros((n_features, 0))
        return Ridge(np.zeros(n_features), np.zeros(n_features), nothing, np.zeros(0), offset, scale)
    standardised = (y - offset) / scale
    fitted, _ = fit_variances(x, standardised, scaling.groups)
    prior = np.empty(n_features)
    for group, variance in zip(scaling.groups, fitted.linear, strict=True):
        prior[group] = np.sqrt(variance)
    # In units in which the prior is the identity; rows are few, so what they tell about has few directions.
    into, lengths, seen = np.linalg.svd(x * prior, full_matrices=False)
    weights = prior * (seen.T @ (lengths / (np.square(lengths) + fitted.noise) * (into.T @ standardised)))
    left = np.sqrt(fitted.noise / (np.square(lengths) + fitted.noise))
    return Ridge(scale * weights, scale * prior, seen.T, left, offset, scale * float(np.sqrt(fitted.noise)))
