"""A known device's blocks, and a few whole networks of a new device: which to measure, and what they tell.

The new device is thought to be the known one but for a factor, and for shares of latency that waiting for memory and
kinds of blocks and of layers may take or spare, none of which is likely to be large: a Bayesian linear regression. How
large they are, group by group, and how much is noise, is what makes the measured networks most probable (MacKay,
"Bayesian interpolation", Neural Computation 4, 1992): with ten networks nothing can be left out to choose by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from predictors.block_features import (
    CONTEXT,
    LAYERS,
    TIME,
    TOUCHED,
    WAIT,
    BlockTimes,
    by_family,
    by_image_size,
    by_side,
)
from predictors.calibration import Calibration, Matrix, Values, Waiting, feature_sums
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

_NOISE = 0.02
"""Relative error of a network that no correction explains, before anything is known of it."""
_CORRECTION = 0.1
"""Share of latency that a correction is likely to be, before anything is known of it."""
_SPREAD = 1.0
"""Of the logarithms of both."""
_FACTOR = 10.0
"""Spread of the factor on time, which may be anything."""
_BOUNDS = (1e-3, 0.5)


def informative(
    space: NetworkSpace,
    times: BlockTimes,
    waiting: Waiting | None,
    pool: Genomes,
    n: int,
    precision: str,
    batch: int = 1,
) -> list[int]:
    """Choose the networks that tell most about the others, before any is measured on the new device.

    One after another, each is the one that lowers the expected squared error over the pool most (V-optimal design).

    Args:
        space: what the genomes mean.
        times: of the blocks on the known device.
        waiting: on the known device.
        pool: networks to choose among, ``int16[m, n_genes]``, with m of at least n.
        n: how many.
        precision: of the new device.
        batch: images at a time, of the new device.

    Returns:
        Positions in the pool, rising.
    """
    sums, _, groups = _features(space, times, waiting, pool, precision, batch)
    shares, _ = _to_size(sums / sums[:, :1])
    covariance = np.diag(_prior(np.full(groups.max(), _CORRECTION), groups))
    chosen: list[int] = []
    for _ in range(n):
        between = shares @ covariance
        variance = np.sum(between * shares, axis=1) + _NOISE**2
        lowered = np.mean((between @ shares.T) ** 2, axis=0) / variance
        lowered[chosen] = -np.inf  # each once
        best = int(lowered.argmax())
        chosen.append(best)
        covariance -= np.outer(between[best], between[best]) / variance[best]
    return sorted(chosen)


def fit_transfer(
    space: NetworkSpace,
    times: BlockTimes,
    waiting: Waiting | None,
    genomes: Genomes,
    measured_ms: Values,
    precision: str = "fp32",
    batch: int = 1,
) -> Calibration:
    """Fit the map from the blocks of a known device to networks of another.

    Args:
        space: what the genomes mean.
        times: of the blocks on the known device.
        waiting: on the known device; the other's caches are taken to hold as much.
        genomes: networks that were measured on the other, ``int16[n, n_genes]``.
        measured_ms: their latency there, ``float64[n]``.
        precision: of the new device.
        batch: images at a time, of the new device.

    Returns:
        A calibration whose error is that of networks left out one by one, with the spreads that all of them suggest;
        its strength is the relative noise that was found.
    """
    sums, names, groups = _features(space, times, waiting, genomes, precision, batch)
    shares, size = _to_size(sums / measured_ms[:, None])
    evidence = _Evidence(shares, groups)
    start = np.log([_NOISE, *np.full(groups.max(), _CORRECTION)])
    found = minimize(evidence, start, method="L-BFGS-B", bounds=[tuple(np.log(_BOUNDS))] * len(start))
    covariance, prior = evidence.covariance(found.x)
    precision_matrix = np.linalg.inv(covariance)
    weights = precision_matrix.sum(axis=1)
    left_out = weights / np.diag(precision_matrix)
    factors = prior * (shares.T @ weights) / size
    if waiting:
        # Blocks wait as they do on the known device, times the factor on time, and a little more or less.
        factors[names.index(WAIT)] += factors[0]
    return Calibration(
        model="transfer",
        strength=float(np.exp(found.x[0])),
        waiting=waiting,
        factors=dict(zip(names, factors.tolist(), strict=True)),
        cross_validated_mape_percent={"transfer": float(100.0 * np.mean(np.abs(left_out)))},
    )


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Minus the logarithm of how probable measured latencies are, but for a constant.

    Attributes:
        shares: features over measured latency, ``float64[n, n_features]``: that they add up to 1 is what was measured.
        groups: of features; 0 is the factor on time.
    """

    shares: Matrix
    groups: npt.NDArray[np.intp]

    def __call__(self, logarithms: Values) -> float:
        """Return it, given those of the noise and of each group's spread."""
        covariance, _ = self.covariance(logarithms)
        lower = np.linalg.cholesky(covariance)
        whitened = np.linalg.solve(lower, np.ones(len(covariance)))
        expected = np.log(np.where(np.arange(len(logarithms)) == 0, _NOISE, _CORRECTION))
        unlikely = np.sum(((logarithms - expected) / _SPREAD) ** 2)
        return float(0.5 * whitened @ whitened + np.sum(np.log(np.diag(lower))) + 0.5 * unlikely)

    def covariance(self, logarithms: Values) -> tuple[Matrix, Values]:
        """Return that of the networks, ``float64[n, n]``, and the variance of each feature's factor."""
        noise, spread = np.exp(logarithms[0]), np.exp(logarithms[1:])
        prior = _prior(spread, self.groups)
        return self.shares @ (prior[:, None] * self.shares.T) + noise**2 * np.eye(len(self.shares)), prior


def _features(
    space: NetworkSpace, times: BlockTimes, waiting: Waiting | None, genomes: Genomes, precision: str, batch: int
) -> tuple[Matrix, list[str], npt.NDArray[np.intp]]:
    """Return features of networks, ``float64[n, n_features]``, their names, and which group each belongs to."""
    blocks = space.blocks
    kinds: list[Sequence[str]] = [CONTEXT, LAYERS, by_family(blocks), by_side(blocks), by_image_size(blocks)]
    groups = [names for names in ([TIME], [WAIT] if waiting else [], *kinds) if names]
    names = [name for group in groups for name in group]
    sums = feature_sums([*names, TOUCHED], space, times, genomes, precision, batch)
    if waiting:
        sums[:, names.index(WAIT)] *= waiting.at(sums[:, -1])
        sums[:, 0] += sums[:, names.index(WAIT)]
    return sums[:, :-1], names, np.repeat(np.arange(len(groups)), [len(names) for names in groups])


def _prior(spread: Values, groups: npt.NDArray[np.intp]) -> Values:
    return np.asarray(np.array([_FACTOR, *spread])[groups] ** 2, dtype=np.float64)


def _to_size(shares: Matrix) -> tuple[Matrix, Values]:
    """Return features of one size, so that factors compare, and their sizes; a feature that is 0 everywhere stays."""
    size = np.sqrt(np.mean(shares**2, axis=0))
    size = np.where(size > 0.0, size, 1.0)
    return shares / size, size
