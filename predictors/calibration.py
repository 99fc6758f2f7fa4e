"""From block latencies to whole networks: corrections fitted on measured networks, chosen by cross-validation.

Blocks that are measured alone run with everything in the nearest cache. In a network they have other neighbours, and a
network that touches more memory than the caches hold waits for it at every run. What that costs is a property of the
device, so several explanations compete: corrections that add up over blocks, with or without a price for memory touched
beyond a capacity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from predictors.additive import AdditiveCost
from search_spaces.documents import document
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import BlockSpec

Values = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
CalibrationModel = Literal["scale", "affine", "context", "families", "resolutions", "inputs", "all"]

_MODELS: tuple[CalibrationModel, ...] = ("scale", "affine", "context", "families", "resolutions", "inputs", "all")
_CONSTANT = "constant"
_TIME = "time"
_NETWORKS = "networks"
_OVERFLOW = "overflow_mb"
_STRENGTHS = (0.003, 0.01, 0.03)
"""Pull of corrections towards none, in units of the error of one network per share of its time. A stronger pull looks
better in cross-validation, and worse on networks from another sampler."""
_LEAST_PULL = 1e-9
_CAPACITIES = tuple(np.linspace(0.1, 0.9, 9))
"""Shares of the calibration networks that fit into the capacities that are tried."""
_FOLDS = 8
_REPEATS = 3
_FEATURE = re.compile(r"time(:\w+|@\d+|%\d+)?|networks%\d+|blocks|mmacs|weights_mb|touched_mb")
_ELEMENT_BYTES = {"fp32": 4, "int8": 1}


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """From block latencies to a network's.

    Attributes:
        model: which explanation was chosen.
        strength: of its ridge.
        capacity_mb: memory that a network may touch without a price; None for no such price.
        factors: by feature: what a ms of a block's time, a block, a MB of its weights, a million MACs, a MB beyond the
            capacity count for, in ms.
        cross_validated_mape_percent: error of every explanation on networks left out of its fit.
    """

    model: CalibrationModel
    strength: float
    capacity_mb: float | None
    factors: dict[str, float]
    cross_validated_mape_percent: dict[CalibrationModel, float]


class CalibratedCost:
    """Latency in ms: a sum over blocks, plus a price for memory beyond a capacity.

    Args:
        space: what the genomes mean.
        values: latency of each of ``space.blocks``, ms.
        calibration: how they add up.
        precision: in which weights and activations are counted.
        batch: images at a time.
    """

    def __init__(
        self, space: NetworkSpace, values: Values, calibration: Calibration, precision: str, batch: int = 1
    ) -> None:
        factors = dict(calibration.factors)
        constant, price = factors.pop(_CONSTANT, 0.0), factors.pop(_OVERFLOW, 0.0)
        calibrated = np.zeros(len(space.blocks))
        for name, factor in factors.items():
            calibrated += factor * feature(name, space.blocks, values, precision, batch)
        self.space = space
        self.block_values: Values = calibrated
        self._within = AdditiveCost(space, calibrated, constant)
        self._beyond = self._within
        if calibration.capacity_mb is not None:
            touched = calibrated + price * feature("touched_mb", space.blocks, values, precision, batch)
            self._beyond = AdditiveCost(space, touched, constant - price * calibration.capacity_mb)

    def predict(self, genomes: Genomes) -> Values:
        """Return the latency of canonical genomes ``int16[n, n_genes]``, ``float64[n]``."""
        within = self._within.predict(genomes)
        if self._beyond is self._within:
            return within
        # The price is positive, so whichever sum is larger is the one that holds.
        larger: Values = np.maximum(within, self._beyond.predict(genomes))
        return larger

    def cheapest(self) -> tuple[float, Genomes]:
        """Return the lowest latency of the space and a genome ``int16[n_genes]`` that has it.

        Exact where the network that is fastest by one of the two sums is slower by that sum than by the other, as the
        smallest networks of a space are; else the better of those two.
        """
        return min((self._of(cost.cheapest()[1]) for cost in (self._within, self._beyond)), key=lambda each: each[0])

    def dearest(self) -> tuple[float, Genomes]:
        """Return the highest latency of the space and a genome ``int16[n_genes]`` that has it; exact."""
        return max((self._of(cost.dearest()[1]) for cost in (self._within, self._beyond)), key=lambda each: each[0])

    def _of(self, genome: Genomes) -> tuple[float, Genomes]:
        return float(self.predict(genome[None])[0]), genome


def calibrate(
    space: NetworkSpace,
    values: Values,
    genomes: Genomes,
    measured_ms: Values,
    precision: str = "fp32",
    batch: int = 1,
) -> Calibration:
    """Fit the map from block sums to whole networks, choosing explanation, capacity and ridge by cross-validation.

    Args:
        space: what the genomes mean.
        values: latency of each of ``space.blocks``, ms.
        genomes: calibration networks, ``int16[n, n_genes]``.
        measured_ms: their measured latency, ``float64[n]``.
        precision: in which the blocks' weights and activations are counted.
        batch: images at a time.
    """
    names = {model: _features_of(model, space.blocks) for model in _MODELS}
    sums = {
        name: AdditiveCost(space, feature(name, space.blocks, values, precision, batch)).predict(genomes) / measured_ms
        for name in sorted({"touched_mb", *(name for each in names.values() for name in each)} - {_CONSTANT})
    }
    sums[_CONSTANT] = 1.0 / measured_ms
    touched_mb = sums["touched_mb"] * measured_ms
    capacities: list[float | None] = [None, *(float(each) for each in np.quantile(touched_mb, _CAPACITIES))]
    errors: dict[CalibrationModel, float] = {}
    tried: list[tuple[float, CalibrationModel, float | None, float]] = []
    for model in _MODELS:
        for capacity in capacities:
            design = _design(names[model], sums, touched_mb, measured_ms, capacity)
            for strength in _STRENGTHS:
                # A price below zero would let larger networks be faster.
                if capacity is None or _fit(design, strength)[-1] > 0.0:
                    tried.append((_cross_validate(design, strength), model, capacity, strength))
        errors[model] = min(error for error, each, _, _ in tried if each == model)
    _, model, capacity, strength = min(tried, key=lambda each: each[0])
    factors = _fit(_design(names[model], sums, touched_mb, measured_ms, capacity), strength)
    keys = [*names[model], _OVERFLOW] if capacity is not None else names[model]
    return Calibration(
        model=model,
        strength=strength,
        capacity_mb=capacity,
        factors=dict(zip(keys, factors.tolist(), strict=True)),
        cross_validated_mape_percent=errors,
    )


def feature(name: str, blocks: Sequence[BlockSpec], values: Values, precision: str, batch: int = 1) -> Values:
    """Return a feature of every block, ``float64[n_blocks]``.

    ``time`` is its latency in ms; ``time:FAMILY``, ``time@SIDE`` and ``time%INPUT`` are the same for blocks of one
    family, on maps of about one side (a power of two), or of networks that take images of one size, else 0;
    ``networks%INPUT`` is 1 for the stems of those. ``blocks`` is 1, ``weights_mb`` the size of its weights,
    ``touched_mb`` that and the activations it writes, ``mmacs`` its million MACs.

    Raises:
        InputError: there is no such feature.
    """
    if not _FEATURE.fullmatch(name):
        raise InputError(f"a latency table counts on {name!r}, which is no feature of blocks")
    if name == "blocks":
        return np.ones(len(blocks))
    if name == "mmacs":
        return np.array([block.macs() / 1e6 for block in blocks])
    if name in ("weights_mb", "touched_mb"):
        written = batch * _ELEMENT_BYTES[precision] if name == "touched_mb" else 0
        return np.array([(block.weight_bytes(precision) + written * block.activations()) / 1e6 for block in blocks])
    family, side, size = (name.partition(mark)[2] for mark in ":@%")
    inputs = _inputs(blocks) if size else []
    chosen = [_belongs(block, family, side) and size in ("", str(_input(block, inputs))) for block in blocks]
    if name.startswith(_NETWORKS):
        return np.where(chosen, [float(block.role == "stem") for block in blocks], 0.0)
    return np.where(chosen, values, 0.0)


def _belongs(block: BlockSpec, family: str, side: str) -> bool:
    return family in ("", block.family) and side in ("", str(_side(block)))


def _side(block: BlockSpec) -> int:
    """Return the side of a block's map, rounded to a power of two."""
    return int(2 ** round(math.log2(block.resolution)))


def _inputs(blocks: Sequence[BlockSpec]) -> list[int]:
    """Return the sizes of the images that networks of these blocks take, falling."""
    return sorted({block.resolution for block in blocks if block.role == "stem"}, reverse=True)


def _input(block: BlockSpec, inputs: Sequence[int]) -> int | None:
    """Return the size of the images that a block's network takes: one that halves to the side of its map.

    Exactly if there is such a size, else rounded up; the largest of several, so that blocks that networks for images of
    several sizes share count for the largest.
    """
    if block.role == "stem":
        return block.resolution
    found = [
        (size % 2**halvings == 0, size)
        for size in inputs
        for halvings in range(size.bit_length())
        if -(-size // 2**halvings) == block.resolution
    ]
    return max(found)[1] if found else None


def _features_of(model: CalibrationModel, blocks: Sequence[BlockSpec]) -> list[str]:
    families = [f"{_TIME}:{family}" for family in sorted({block.family for block in blocks})]
    sides = [f"{_TIME}@{side}" for side in sorted({_side(block) for block in blocks})]
    sizes = _inputs(blocks)
    inputs = [f"{each}%{size}" for size in sizes for each in (_TIME, _NETWORKS)] if len(sizes) > 1 else []
    context = [_CONSTANT, "blocks", "weights_mb"]
    corrections: Mapping[CalibrationModel, list[str]] = {
        "scale": [],
        "affine": [_CONSTANT],
        "context": context,
        "families": [*context, *families],
        "resolutions": [*context, *sides],
        "inputs": [*context, *families, *inputs],
        "all": [*context, "mmacs", *families, *sides, *inputs],
    }
    return [_TIME, *corrections[model]]


def _design(
    names: Sequence[str],
    sums: Mapping[str, Values],
    touched_mb: Values,
    measured_ms: Values,
    capacity: float | None,
) -> Matrix:
    """Return features of networks over their measured latency, ``float64[n, n_features]``; the overflow last."""
    columns = [sums[name] for name in names]
    if capacity is not None:
        columns.append(np.maximum(0.0, touched_mb - capacity) / measured_ms)
    return np.stack(columns, axis=1)


def _cross_validate(design: Matrix, strength: float) -> float:
    """Return the MAPE on networks left out of the fit, percent."""
    n = len(design)
    # Networks come by rising cost: every part gets small and large ones, other ones in every repeat.
    parts = [
        (np.arange(n) * (2 * repeat + 1) + np.arange(n) // _FOLDS * repeat) % _FOLDS == k
        for repeat in range(_REPEATS)
        for k in range(_FOLDS)
    ]
    left_out = np.array(parts, dtype=np.float64)
    # All folds at once by normal equations. The pull keeps them regular; a column that is zero in a fold needs a little
    # more. Columns are scaled to their size.
    size = np.sqrt(np.mean(design**2, axis=0))
    scaled = design / np.where(size > 0.0, size, 1.0)
    squares = np.einsum("fn,ni,nj->fij", 1.0 - left_out, scaled, scaled, optimize=True)
    pull = strength**2 * np.einsum("fii->fi", squares)
    pull[:, 0] = 0.0
    squares += (pull + _LEAST_PULL)[:, :, None] * np.eye(scaled.shape[1])
    factors = np.linalg.solve(squares, ((1.0 - left_out) @ scaled)[:, :, None])[:, :, 0]
    errors = np.abs(factors @ scaled.T - 1.0)
    return float(100.0 * np.sum(errors * left_out) / np.sum(left_out))


def _fit(design: Matrix, strength: float) -> Values:
    """Return the factors that minimise the squared *relative* error; all but the first are pulled towards zero.

    A column of the design is a feature over the measured latency; the pull is on the share of latency it explains.
    """
    pull = strength * np.sqrt(len(design)) * np.sqrt(np.mean(design**2, axis=0))
    pull[0] = 0.0
    rows = np.concatenate([design, np.diag(pull)])
    target = np.concatenate([np.ones(len(design)), np.zeros(design.shape[1])])
    return np.asarray(np.linalg.lstsq(rows, target, rcond=None)[0], dtype=np.float64)
