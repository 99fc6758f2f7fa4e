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
        root: ``float64[k, r]``; times itself transposed, the covariance of the weights.
        offset: value at the mean of the features.
        noise: standard deviation of evaluations around the function.
    """

    weights: Values
    root: Values
    offset: float
    noise: float

    def mean(self, x: Values) -> Values:
        """Return the expected value."""
        expected: Values = x @ self.weights + self.offset
        return expected

    def std(self, x: Values) -> Values:
        """Return its standard deviation."""
        deviation: Values = np.linalg.norm(x @ self.root, axis=1)
        return deviation

    def draw(self, x: Values, n_draws: int, rng: np.random.Generator) -> Values:
        """Return linear functions."""
        drawn: Values = self.mean(x) + rng.normal(size=(n_draws, self.root.shape[1])) @ (x @ self.root).T
        return drawn


def fit_ridge(x: Values, y: Values, scaling: Scaling, seed: int) -> Ridge:
    """Fit to at least two rows."""
    offset, scale = float(y.mean()), float(y.std())
    if not x.shape[1] or scale == 0.0:
        return Ridge(np.zeros(x.shape[1]), np.zeros((x.shape[1], 1)), offset, scale)
    fitted, _ = fit_variances([x[:, group] @ x[:, group].T for group in scaling.groups], [], (y - offset) / scale)
    prior = np.empty(x.shape[1])
    for group, variance in zip(scaling.groups, fitted.linear, strict=True):
        prior[group] = variance
    # In units in which the prior is the identity, the posterior's precision is 1 + XᵀX / noise.
    white = x * np.sqrt(prior)
    values, vectors = np.linalg.eigh(white.T @ white / fitted.noise)
    shrunk = vectors / np.sqrt(1.0 + np.maximum(values, 0.0))
    root = np.sqrt(prior)[:, None] * shrunk
    weights = root @ (root.T @ (x.T @ ((y - offset) / scale))) / fitted.noise
    return Ridge(scale * weights, scale * root, offset, scale * float(np.sqrt(fitted.noise)))
