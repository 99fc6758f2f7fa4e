"""Latency lookup tables: measured blocks, calibration on whole networks, and the table's own held-out error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from predictors.additive import AdditiveCost
from predictors.quality import LatencyError, mape_percent
from search_spaces.blocks import FAMILIES
from search_spaces.documents import document
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import block_key

Values = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
CalibrationModel = Literal["scale", "affine", "families"]

# Strength of the pull of each family's factor towards the common factor, in units of relative error.
_FAMILY_RIDGE = 0.05
_FOLDS = 5


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLatency:
    """One measured block.

    Attributes:
        block: the block's canonical JSON.
        latency_ms: what the block adds to a network it stands in; may be slightly negative for blocks that cost less
            than the noise.
        in_context_ms: the raw figure: the block between two 1x1 convolutions.
        noise_percent: relative difference between the minima of even and odd rounds of the raw figure.
    """

    block: str
    latency_ms: float
    in_context_ms: float
    noise_percent: float


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredNetwork:
    """A whole network measured to calibrate or to test a table; `repeated_ms` is a second, independent figure."""

    genes: tuple[int, ...]
    measured_ms: Annotated[float, Field(gt=0)]
    repeated_ms: Annotated[float, Field(gt=0)]


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """From block latencies to a network's: ``constant_ms + sum(factor[family] * block latency)``."""

    model: CalibrationModel
    constant_ms: float
    factors: dict[str, float]
    cross_validated_mape_percent: dict[CalibrationModel, float]


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Everything known about a device's latency on one space.

    Attributes:
        device: name of the target, as on the command line.
        fingerprint: what identifies the machine and its software, as the device reported it.
        fingerprint_hash: hash of the identifying part.
        conditions: load, temperature and times of the measurement, which identify nothing.
        space_hash: the space whose blocks these are.
        statistic: how rounds become one figure; the same for blocks, networks and verification.
        exporter: what made the ONNX blocks; networks must come from the same.
        created: UTC time, ISO 8601.
        seed: of calibration and held-out networks and of the order of measuring.
        error: on `held_out`, after calibration.
        plain_error: on `held_out`, of the plain sum of blocks.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    device: str
    fingerprint: dict[str, object]
    fingerprint_hash: str
    conditions: dict[str, object]
    space_hash: str
    statistic: Literal["min"]
    exporter: str
    created: str
    seed: int
    blocks: tuple[BlockLatency, ...]
    calibration: Calibration
    calibration_networks: tuple[MeasuredNetwork, ...]
    held_out: Annotated[tuple[MeasuredNetwork, ...], Field(min_length=2)]
    error: LatencyError
    plain_error: LatencyError


class LatencyPredictor(AdditiveCost):
    """Latency in ms of genome arrays, from a table.

    Raises:
        InputError: the table belongs to another space or lacks one of its blocks.
    """

    def __init__(self, space: NetworkSpace, table: LatencyTable) -> None:
        if table.space_hash != space.hash:
            raise InputError(
                f"the latency table of device {table.device!r} was measured for space {table.space_hash}, "
                f"this run's is {space.hash}; run `nas build-lut --device {table.device}`"
            )
        values = block_values(space, {entry.block: entry.latency_ms for entry in table.blocks})
        missing = {block.family for block in space.blocks} - set(table.calibration.factors)
        if missing:
            raise InputError(
                f"the table of device {table.device!r} has no calibration for {', '.join(sorted(missing))}"
            )
        self._held_out = space.check([network.genes for network in table.held_out])
        super().__init__(space, *_calibrated(space, values, table.calibration))
        self.table = table

    @property
    def margin(self) -> float:
        """How much slower than predicted a network may be: 90 % of the held-out ones stay within; never negative."""
        measured = np.array([network.measured_ms for network in self.table.held_out])
        return max(0.0, float(np.quantile(measured / self.predict(self._held_out), 0.9)) - 1.0)


def block_values(space: NetworkSpace, latency_ms: Mapping[str, float]) -> Values:
    """Return the latency of each of ``space.blocks``, ``float64[n_blocks]``; raises `InputError` for a missing one."""
    missing = [key for block in space.blocks if (key := block_key(block)) not in latency_ms]
    if missing:
        raise InputError(f"the latency table lacks {len(missing)} of the space's blocks, such as {missing[0]}")
    return np.array([latency_ms[block_key(block)] for block in space.blocks])


def calibrated_cost(space: NetworkSpace, values: Values, calibration: Calibration) -> AdditiveCost:
    """Return the latency in ms of genome arrays, from the latency of each of ``space.blocks`` and a calibration."""
    return AdditiveCost(space, *_calibrated(space, values, calibration))


def calibrate(space: NetworkSpace, values: Values, genomes: Genomes, measured_ms: Values) -> Calibration:
    """Fit the map from block sums to whole networks, choosing the model by cross-validation.

    Args:
        space: what the genomes mean.
        values: latency of each of ``space.blocks``, ms.
        genomes: calibration networks, ``int16[n, n_genes]``.
        measured_ms: their measured latency, ``float64[n]``.
    """
    families = sorted(FAMILIES)
    sums = family_sums(space, values, genomes, families)
    models: tuple[CalibrationModel, ...] = ("scale", "affine", "families")
    errors = {model: _cross_validate(model, sums, measured_ms) for model in models}
    best = min(models, key=errors.__getitem__)
    constant, factors = _fit(best, sums, measured_ms)
    return Calibration(
        model=best,
        constant_ms=constant,
        factors=dict(zip(families, factors.tolist(), strict=True)),
        cross_validated_mape_percent=errors,
    )


def family_sums(space: NetworkSpace, values: Values, genomes: Genomes, families: Sequence[str]) -> Matrix:
    """Return each network's block latencies summed by family, ``float64[n, n_families]``, ms."""
    own = np.array([block.family for block in space.blocks])
    return np.stack([AdditiveCost(space, values * (own == f)).predict(genomes) for f in families], axis=1)


def _calibrated(space: NetworkSpace, values: Values, calibration: Calibration) -> tuple[Values, float]:
    """Return the calibrated value of each block, and the constant of a network."""
    return values * np.array([calibration.factors[block.family] for block in space.blocks]), calibration.constant_ms


def _cross_validate(model: CalibrationModel, sums: Matrix, measured_ms: Values) -> float:
    """Return the MAPE on networks left out of the fit."""
    fold = np.arange(len(measured_ms)) % _FOLDS
    predicted: Values = np.empty(len(measured_ms), dtype=np.float64)
    for k in range(_FOLDS):
        constant, factors = _fit(model, sums[fold != k], measured_ms[fold != k])
        predicted[fold == k] = constant + sums[fold == k] @ factors
    return mape_percent(predicted, measured_ms)


def _fit(model: CalibrationModel, sums: Matrix, measured_ms: Values) -> tuple[float, Values]:
    """Return constant and factor per family that minimise the squared *relative* error."""
    total = sums.sum(axis=1)
    scale = float(_least_squares((total / measured_ms)[:, None], np.ones(len(total)))[0])
    n_families = sums.shape[1]
    if model == "scale":
        return 0.0, np.full(n_families, scale, dtype=np.float64)
    if model == "affine":
        columns: Matrix = np.stack([total, np.ones(len(total))], axis=1) / measured_ms[:, None]
        slope, constant = _least_squares(columns, np.ones(len(total))).tolist()
        return constant, np.full(n_families, slope, dtype=np.float64)
    # Ridge regression of the residual on each family's share, so that unseen families keep the common factor.
    design = np.concatenate([sums / measured_ms[:, None], _FAMILY_RIDGE * np.eye(n_families)])
    target = np.concatenate([1.0 - scale * total / measured_ms, np.zeros(n_families)])
    return 0.0, scale + _least_squares(design, target)


def _least_squares(design: Matrix, target: Values) -> Values:
    return np.asarray(np.linalg.lstsq(design, target, rcond=None)[0], dtype=np.float64)
