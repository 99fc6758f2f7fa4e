"""From block latencies to whole networks: corrections fitted on measured networks, chosen by cross-validation.

Blocks that are measured alone run with everything in the nearest cache; the first time, with nothing of it. In a
network other blocks run in between, and how much a block finds again depends on how much memory the network touches:
blocks of small networks run about as they do alone, those of larger ones wait for a share of what they waited the first
time. Where that sets in, and how large it grows, is a property of the device. What else networks add per block, layer
or kind is a matter of corrections that add up over blocks, and several explanations of them compete.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from predictors.additive import AdditiveCost
from predictors.block_features import (
    CONSTANT,
    CONTEXT,
    LAYERS,
    TIME,
    TOUCHED,
    WAIT,
    BlockTimes,
    by_family,
    by_image_size,
    by_side,
    feature,
)
from predictors.neighbours import NeighbourCost, by_neighbours, is_passed
from search_spaces.documents import document
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
CalibrationModel = Literal[
    "scale", "affine", "context", "layers", "families", "resolutions", "inputs", "neighbours", "all", "transfer"
]

_MODELS: tuple[CalibrationModel, ...] = (
    "scale",
    "affine",
    "context",
    "layers",
    "families",
    "resolutions",
    "inputs",
    "neighbours",
    "all",
)
_STRENGTHS = (0.01, 0.03)
"""Pull of corrections towards none, in units of the error of one network per share of its time. A stronger pull looks
better in cross-validation, and worse on networks from another sampler."""
_LEAST_PULL = 1e-9
MOST = 1e9
"""Whatever is larger in a table was not measured, and would overflow what is made of it."""
_STEPS = 6
"""Into how many steps of equal ratio the memory is divided that calibration networks touch."""
_TYPICAL = 1.5
"""Errors beyond so many times the median count by their size, not its square (Huber, Annals of Mathematical Statistics
35, 1964): what small networks find in the caches is partly luck."""
_REWEIGHTINGS = 10
_SHARES = 7
"""How many shares of waiting are looked at for the ends of the reachable range."""
_FOLDS = 8
_REPEATS = 3


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How much blocks wait in a network, by the memory that it touches; the caches of a device.

    Attributes:
        touched_mb: rising.
        share: of what a block waits when nothing of it is in the caches, at each of those; never falling. In between
            it is interpolated, beyond the ends it stays.
    """

    touched_mb: Annotated[tuple[Annotated[float, Field(ge=0, le=MOST)], ...], Field(min_length=1)]
    share: tuple[Annotated[float, Field(ge=0, le=MOST)], ...]

    def __post_init__(self) -> None:
        if len(self.share) != len(self.touched_mb):
            raise ValueError("share and touched_mb are not equally long")
        if (np.diff(self.touched_mb) <= 0.0).any() or (np.diff(self.share) < 0.0).any():
            raise ValueError("touched_mb does not rise, or share falls")

    def at(self, touched_mb: Values) -> Values:
        """Return the share in networks that touch so much, ``float64[n]``."""
        return np.asarray(np.interp(touched_mb, self.touched_mb, self.share), dtype=np.float64)


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """From block latencies to a network's.

    Attributes:
        model: which explanation was chosen; ``"transfer"`` for one of another device's blocks, see
            `predictors.transfer`.
        strength: of its ridge; of a transfer the relative noise of networks.
        waiting: for memory; None where no network waits.
        factors: by feature of `predictors.block_features` or `predictors.neighbours`: what it counts for, in ms; that
            of ``wait`` counts for the share that `waiting` tells, and is 1 if left out.
        cross_validated_mape_percent: error of every explanation on networks left out of its fit; in which steps
            `waiting` rises was chosen on all networks.
    """

    model: CalibrationModel
    strength: float
    waiting: Waiting | None
    factors: dict[str, float]
    cross_validated_mape_percent: dict[CalibrationModel, float]


class CalibratedCost:
    """Latency in ms: a sum over blocks, what they wait for memory, and what they pass to blocks of other kinds.

    Args:
        space: what the genomes mean.
        times: of its blocks.
        calibration: how they add up.
        precision: in which weights and activations are counted.
        batch: images at a time.

    Attributes:
        space: as given.
        block_values: what every block adds to the networks that touch least memory, ms, ``float64[n_blocks]``.
    """

    def __init__(
        self, space: NetworkSpace, times: BlockTimes, calibration: Calibration, precision: str, batch: int = 1
    ) -> None:
        factors = dict(calibration.factors)
        constant, price = factors.pop(CONSTANT, 0.0), factors.pop(WAIT, 1.0)
        passed = {name: factors.pop(name) for name in calibration.factors if is_passed(name)}

        def total(names: Mapping[str, float]) -> Values:
            parts = [factor * feature(name, space.blocks, times, precision, batch) for name, factor in names.items()]
            return np.sum(parts, axis=0) if parts else np.zeros(len(space.blocks))

        self.space = space
        self._waiting = calibration.waiting
        self._touched = AdditiveCost(space, total({TOUCHED: 1.0}))
        least = self._waiting.share[0] if self._waiting else 0.0
        self._wait = AdditiveCost(space, total({WAIT: price}))
        self._hot = AdditiveCost(space, total(factors), constant)
        self._passed = NeighbourCost(space, passed) if passed else None
        self.block_values: Values = self._hot.block_values + least * self._wait.block_values

    def predict(self, genomes: Genomes) -> Values:
        """Return the latency of canonical genomes ``int16[n, n_genes]``, ``float64[n]``."""
        hot = self._hot.predict(genomes)
        if self._passed is not None:
            hot += self._passed.predict(genomes)
        if self._waiting is None:
            return hot
        waiting: Values = self._wait.predict(genomes) * self._waiting.at(self._touched.predict(genomes))
        return hot + waiting

    def cheapest(self) -> tuple[float, Genomes]:
        """Return the lowest latency of the space and a genome ``int16[n_genes]`` that has it.

        Exact where only blocks count, one by one; else that of a network that no change of one gene makes faster.
        """
        return self._cheapest

    def dearest(self) -> tuple[float, Genomes]:
        """Return the highest latency of the space and a genome ``int16[n_genes]`` that has it.

        Exact where only blocks count, one by one; else that of a network that no change of one gene makes slower.
        """
        return self._dearest

    @functools.cached_property
    def _cheapest(self) -> tuple[float, Genomes]:
        return self._end(1.0)

    @functools.cached_property
    def _dearest(self) -> tuple[float, Genomes]:
        return self._end(-1.0)

    def _end(self, sign: float) -> tuple[float, Genomes]:
        """Return the lowest signed latency that is found, and its genome."""
        shares = np.linspace(0.0, self._waiting.share[-1], _SHARES) if self._waiting else [0.0]
        # The exact ends of a space in which blocks wait equally in all networks, for several shares of waiting, and
        # those where they wait least and most.
        costs = [
            AdditiveCost(self.space, self._hot.block_values + share * self._wait.block_values, self._hot.constant)
            for share in shares
        ]
        if self._waiting:
            costs.append(self._touched)
        ends = [self._descended(sign, (cost.cheapest() if sign > 0.0 else cost.dearest())[1]) for cost in costs]
        latency_ms = self.predict(np.stack(ends))
        best = int((sign * latency_ms).argmin())
        return float(latency_ms[best]), ends[best]

    def _descended(self, sign: float, genome: Genomes) -> Genomes:
        """Change one gene after the other, each time the one that lowers the signed latency most."""
        gene = np.repeat(np.arange(self.space.n_genes), self.space.n_options)
        option = np.concatenate([np.arange(count) for count in self.space.n_options])
        neighbours, best = genome[None], math.inf
        while (signed := sign * self.predict(neighbours)).min() < best:
            best, genome = signed.min(), neighbours[signed.argmin()]
            neighbours = np.repeat(genome[None], len(gene), axis=0)
            neighbours[np.arange(len(gene)), gene] = option
            neighbours = self.space.canonical(neighbours)
        return genome


def calibrate(
    space: NetworkSpace,
    times: BlockTimes,
    genomes: Genomes,
    measured_ms: Values,
    precision: str = "fp32",
    batch: int = 1,
) -> Calibration:
    """Fit the map from blocks to whole networks, choosing explanation and ridge by cross-validation.

    Args:
        space: what the genomes mean.
        times: of its blocks.
        genomes: calibration networks, ``int16[n, n_genes]``.
        measured_ms: their measured latency, ``float64[n]``.
        precision: in which the blocks' weights and activations are counted.
        batch: images at a time.
    """
    names = {model: _features_of(model, space) for model in _MODELS}
    wanted = sorted({WAIT, TOUCHED, *(name for each in names.values() for name in each)})
    sums = dict(zip(wanted, feature_sums(wanted, space, times, genomes, precision, batch).T, strict=True))
    ends_mb = np.unique(np.geomspace(sums[TOUCHED].min(), sums[TOUCHED].max(), _STEPS + 1))
    waits = sums[WAIT][:, None] * _steps(sums[TOUCHED], ends_mb)
    tried: list[tuple[float, CalibrationModel, float, Values]] = []
    for model in _MODELS:
        design = np.column_stack([*(sums[name] for name in names[model]), waits]) / measured_ms[:, None]
        for strength in _STRENGTHS:
            factors = _fit(design, strength, len(ends_mb))
            tried.append((_cross_validate(design[:, factors != 0.0], strength), model, strength, factors))
    _, model, strength, factors = min(tried, key=lambda each: each[0])
    share = np.cumsum(factors[-len(ends_mb) :])
    waiting = Waiting(touched_mb=tuple(ends_mb.tolist()), share=tuple(share.tolist())) if share.any() else None
    return Calibration(
        model=model,
        strength=strength,
        waiting=waiting,
        factors=dict(zip(names[model], factors.tolist(), strict=False)),
        cross_validated_mape_percent={
            each: min(error for error, other, *_ in tried if other == each) for each in _MODELS
        },
    )


def _steps(touched_mb: Values, ends_mb: Values) -> Matrix:
    """Return how much networks have of each step's rise of a share, ``float64[n, n_ends]``; of the first all."""
    rises = [np.clip((touched_mb - low) / (high - low), 0.0, 1.0) for low, high in itertools.pairwise(ends_mb)]
    return np.column_stack([np.ones(len(touched_mb)), *rises])


def feature_sums(
    names: Sequence[str], space: NetworkSpace, times: BlockTimes, genomes: Genomes, precision: str, batch: int = 1
) -> Matrix:
    """Return features of whole networks, ``float64[n, n_features]``; the constant is 1.

    Raises:
        InputError: there is no such feature.
    """

    def total(name: str) -> Values:
        if name == CONSTANT:
            return np.ones(len(genomes))
        if is_passed(name):
            return NeighbourCost(space, {name: 1.0}).predict(genomes)
        return AdditiveCost(space, feature(name, space.blocks, times, precision, batch)).predict(genomes)

    return np.stack([total(name) for name in names], axis=1)


def _features_of(model: CalibrationModel, space: NetworkSpace) -> list[str]:
    blocks, kinds = space.blocks, [*CONTEXT, *LAYERS]
    families, sides, sizes, neighbours = by_family(blocks), by_side(blocks), by_image_size(blocks), by_neighbours(space)
    corrections: Mapping[CalibrationModel, list[str]] = {
        "scale": [],
        "affine": [CONSTANT],
        "context": list(CONTEXT),
        "layers": kinds,
        "families": [*kinds, *families],
        "resolutions": [*kinds, *sides],
        "inputs": [*kinds, *families, *sizes],
        "neighbours": [*kinds, *families, *neighbours],
        "all": [*kinds, *families, *sides, *sizes, *neighbours],
    }
    return [TIME, *corrections[model]]


def _cross_validate(design: Matrix, strength: float) -> float:
    """Return the MAPE on networks left out of the fit, percent."""
    n = len(design)
    # Networks come by rising cost: every part gets small and large ones, other ones in every repeat.
    parts = [
        (np.arange(n) * (2 * repeat + 1) + np.arange(n) // _FOLDS * repeat) % _FOLDS == k
        for repeat in range(_REPEATS)
        for k in range(_FOLDS)
    ]
    left_out = np.array(parts)
    factors = _robust_fits(design, strength, ~left_out)
    errors = np.abs(factors @ design.T - 1.0)
    return float(100.0 * np.sum(errors * left_out) / np.sum(left_out))


def _fit(design: Matrix, strength: float, n_prices: int) -> Values:
    """Return the factors that fit best, the last of which are prices: those that would be below zero are zero.

    A price below zero would let larger networks be faster.
    """
    factors, used = np.zeros(design.shape[1]), np.ones(design.shape[1], dtype=bool)
    while True:
        factors[used] = _robust_fits(design[:, used], strength, np.ones((1, len(design)), dtype=bool))[0]
        lowest = len(factors) - n_prices + int(factors[-n_prices:].argmin())
        if factors[lowest] >= 0.0:
            return factors
        used[lowest], factors[lowest] = False, 0.0


def _robust_fits(design: Matrix, strength: float, known: npt.NDArray[np.bool_]) -> Matrix:
    """Fit factors to the relative errors of several sets of networks at once; large errors count less.

    Args:
        design: features over measured latency, ``float64[n, n_features]``. All factors but the first are pulled towards
            zero, by the share of latency that they explain.
        strength: of that pull.
        known: the networks of each set, ``bool[n_sets, n]``.

    Returns:
        Factors, ``float64[n_sets, n_features]``.
    """
    size = np.sqrt(np.mean(design**2, axis=0))
    size = np.where(size > 0.0, size, 1.0)
    scaled = design / size
    pull = strength**2 * np.einsum("fn,ni->fi", known, scaled**2)
    pull[:, 0] = 0.0
    # A feature that is zero in a set needs a little to be kept at zero.
    pull += _LEAST_PULL
    weights: npt.NDArray[Any] = known.astype(np.float64)
    factors: npt.NDArray[Any] = np.zeros((len(known), design.shape[1]))
    for _ in range(_REWEIGHTINGS):
        squares = np.matmul(scaled.T * weights[:, None, :], scaled)
        squares += pull[:, :, None] * np.eye(scaled.shape[1])
        factors = np.linalg.solve(squares, (weights @ scaled)[:, :, None])[:, :, 0]
        errors = np.abs(factors @ scaled.T - 1.0)
        typical = np.nanmedian(np.where(known, errors, np.nan), axis=1, keepdims=True)
        weights = known * np.minimum(1.0, _TYPICAL * typical / np.maximum(errors, _LEAST_PULL))
    return factors / size
