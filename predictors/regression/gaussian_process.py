"""``gaussian-process``: linear in each group of features, and smooth in genes and in coarse features.

How much each part explains, and how noisy evaluations are, is fitted by evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.regression.base import Regression, Scaling, Values
from predictors.regression.evidence import Groups, Variances, fit_variances
from predictors.regression.ridge import fit_ridge

_MAX_ROWS = 600  # a fit takes time of the third power of them
_JITTER = 1e-8


@dataclass(frozen=True, slots=True)
class GaussianProcess:
    """A fitted process.

    Attributes:
        rows: features that it was fitted to, ``float64[n, k]``.
        variances: of its parts.
        groups: linear parts, as columns.
        smooth: columns of each smooth part.
        inverse: of the covariance of the rows, ``float64[n, n]``.
        weights: of the rows, ``float64[n]``.
        offset, scale: from standardised values to values.
    """

    rows: Values
    variances: Variances
    groups: Groups
    smooth: tuple[Groups, ...]
    inverse: Values
    weights: Values
    offset: float
    scale: float

    @property
    def noise(self) -> float:
        """Standard deviation of evaluations around the function."""
        return self.scale * float(np.sqrt(self.variances.noise))

    def mean(self, x: Values) -> Values:
        """Return the expected value."""
        expected: Values = self.offset + self.scale * (self._covariance(x, self.rows) @ self.weights)
        return expected

    def std(self, x: Values) -> Values:
        """Return its standard deviation."""
        across = self._covariance(x, self.rows)
        own = sum(
            variance * np.square(x[:, group]).sum(axis=1)
            for variance, group in zip(self.variances.linear, self.groups, strict=True)
        )
        left = own + self.variances.smooth.sum() - np.einsum("ij,jk,ik->i", across, self.inverse, across, optimize=True)
        deviation: Values = self.scale * np.sqrt(np.maximum(left, 0.0))
        return deviation

    def draw(self, x: Values, n_draws: int, rng: np.random.Generator) -> Values:
        """Return functions drawn jointly at all of `x`."""
        across = self._covariance(x, self.rows)
        left = self._covariance(x, x) - across @ self.inverse @ across.T
        values, vectors = np.linalg.eigh(left)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn: Values = self.mean(x) + self.scale * (rng.normal(size=(n_draws, len(x))) @ root.T)
        return drawn

    def _covariance(self, x: Values, other: Values) -> Values:
        return self.variances.covariance(x, other, self.groups, self.smooth)


def fit_gaussian_process(x: Values, y: Values, scaling: Scaling, seed: int) -> Regression:
    """Fit to at least two rows; of very many, to a random part."""
    offset, scale = float(y.mean()), float(y.std())
    if not x.shape[1] or scale == 0.0:
        return fit_ridge(x, y, scaling, seed)
    if len(x) > _MAX_ROWS:
        rows = np.random.default_rng(seed).choice(len(x), size=_MAX_ROWS, replace=False)
        x, y = x[rows], y[rows]
    smooth = tuple(
        part
        for coarse in (False, True)
        if (
            part := [
                group for group, is_coarse in zip(scaling.groups, scaling.coarse, strict=True) if is_coarse == coarse
            ]
        )
    )
    standardised: Values = (y - offset) / scale
    fitted, _ = fit_variances(x, standardised, scaling.groups, smooth)
    covariance = fitted.covariance(x, x, scaling.groups, smooth)
    covariance[np.diag_indices(len(x))] += fitted.noise + _JITTER
    inverse: Values = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    weights: Values = np.asarray(inverse @ standardised, dtype=np.float64)
    return GaussianProcess(x, fitted, scaling.groups, smooth, inverse, weights, offset, scale)
