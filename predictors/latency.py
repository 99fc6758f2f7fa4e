"""Latency lookup tables: measured blocks, calibration on whole networks, and the table's own held-out error."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from predictors.block_features import TIME, BlockTimes
from predictors.calibration import MOST, CalibratedCost, Calibration
from predictors.footprint import Size, SizeFit
from predictors.quality import LatencyError, mape_percent
from search_spaces.documents import content_hash, document
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import BlockSpec, block_key

if TYPE_CHECKING:
    import pandas as pd

_LEAST_FOR_INTERVAL = 9
Values = npt.NDArray[np.float64]
Percentile = Literal["p50", "p90"]
_Time = Annotated[float, Field(ge=-MOST, le=MOST)]
"""Milliseconds."""


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLatency:
    """One measured block.

    Attributes:
        block: the block's canonical JSON.
        latency_ms: what the block adds to a network whose memory the nearest caches hold; may be slightly negative for
            blocks that cost less than the noise.
        cold_ms: what it adds where nothing of it is in the caches.
        in_context_ms: the raw figure: the block between two 1x1 convolutions.
        noise_percent: how far the figures of even and odd rounds of the raw figure are apart.
        rounds_ms: the rounds of the raw figure.
        first_ms: the first runs of the raw figure, once the machine's ups and downs are taken out.
        slowness: how slow the machine was around each of those; empty where nobody told.
    """

    block: str
    latency_ms: _Time
    cold_ms: _Time
    in_context_ms: float
    noise_percent: float
    rounds_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    slowness: tuple[float, ...] = ()


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredNetwork:
    """A whole network measured to calibrate or to test a table; `repeated_ms` is an independent second session's."""

    genes: tuple[int, ...]
    measured_ms: Annotated[float, Field(gt=0)]
    repeated_ms: Annotated[float, Field(gt=0)] | None = None


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedRatio:
    """How a percentile of a network that runs back to back relates to its latency.

    Attributes:
        ratio: median over networks.
        mape_percent: mean error of latency times ratio, over those networks.
    """

    ratio: Annotated[float, Field(gt=0)]
    mape_percent: Annotated[float, Field(ge=0)]


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """The table of another device that a transferred table has its blocks from.

    Attributes:
        device: name of that device.
        table_hash: of its table.
    """

    device: str
    table_hash: str

    @classmethod
    def of(cls, table: LatencyTable) -> TableSource:
        """Return what identifies a table."""
        return cls(device=table.device, table_hash=content_hash(table))


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Everything known about a device's latency on one space.

    Attributes:
        device: name of the target, as on the command line.
        precision: arithmetic of the networks.
        batch: images at a time.
        fingerprint: what identifies the machine and its software, as the device reported it.
        fingerprint_hash: hash of the identifying part.
        conditions: load, temperature and times of the measurement, which identify nothing.
        space_hash: the space whose blocks these are.
        statistic: how rounds become one figure; the same for blocks, networks and verification.
        exporter: what made the ONNX blocks; networks must come from the same.
        tool_version: of this package, which made the table; empty if that was before it was told.
        created: UTC time, ISO 8601.
        seed: of calibration and held-out networks and of the order of measuring.
        sustained: of the calibration networks, by percentile.
        sizes: of some calibration networks, those that the device tells.
        error: on `held_out`, after calibration.
        plain_error: on `held_out`, of the plain sum of blocks.
        macs_error: on `held_out`, of a straight line through the MACs of the calibration networks.
        source: where the blocks were measured, if not on this device: only whole networks were measured here.
    """

    CURRENT_VERSION: ClassVar[int] = 4

    format_version: int
    device: str
    precision: Literal["fp32", "int8"]
    batch: int
    fingerprint: dict[str, object]
    fingerprint_hash: str
    conditions: dict[str, object]
    space_hash: str
    statistic: Literal["lower quartile of steady rounds"]
    exporter: str
    tool_version: str = ""
    created: str
    seed: int
    blocks: tuple[BlockLatency, ...]
    calibration: Calibration
    calibration_networks: tuple[MeasuredNetwork, ...]
    held_out: Annotated[tuple[MeasuredNetwork, ...], Field(min_length=2)]
    sustained: dict[Percentile, SustainedRatio]
    sizes: dict[Size, SizeFit]
    error: LatencyError
    plain_error: LatencyError
    macs_error: LatencyError
    source: TableSource | None = None


class LatencyPredictor(CalibratedCost):
    """Latency in ms of genome arrays, from a table.

    Raises:
        InputError: the table belongs to another space, lacks one of its blocks, or predicts what cannot be.
    """

    def __init__(self, space: NetworkSpace, table: LatencyTable) -> None:
        if table.space_hash != space.hash:
            raise InputError(
                f"the latency table of device {table.device!r} was measured for space {table.space_hash}, not for "
                f"{space.hash}; measure one for this space"
            )
        if not table.calibration.factors.get(TIME, 0.0) > 0.0:
            raise InputError(f"the table of device {table.device!r} does not count the time of blocks")
        times = block_times(space, table.blocks)
        self._held_out = space.check([network.genes for network in table.held_out])
        super().__init__(space, times, table.calibration, table.precision, table.batch)
        predicted = np.array([*self.predict(self._held_out), self.cheapest()[0], self.dearest()[0]])
        if not ((predicted > 0.0) & np.isfinite(predicted)).all():
            raise InputError(f"the table of device {table.device!r} predicts latencies that are not positive numbers")
        self.table = table

    def predict_percentile(self, genomes: Genomes, percentile: Percentile) -> Values:
        """Return a percentile of running back to back, ms, ``float64[n]``, of canonical genomes ``int16[n, n_genes]``.

        Raises:
            InputError: the table does not tell that percentile.
        """
        return self.predict(genomes) * self.sustained(percentile).ratio

    def sustained(self, percentile: Percentile) -> SustainedRatio:
        """Return how a percentile of running back to back relates to latency; `InputError` if the table has it not."""
        if percentile not in self.table.sustained:
            raise InputError(f"the table of device {self.table.device!r} does not tell {percentile}")
        return self.table.sustained[percentile]

    def block_ms(self, block: BlockSpec) -> float:
        """Return what one of the space's blocks adds to a small network, ms, as predictions count it."""
        return float(self.block_values[self._numbers[block]])

    def columns(self, genomes: Genomes) -> pd.DataFrame:
        """Return all that the table tells of canonical genomes ``int16[n, n_genes]``, a row each.

        Columns: ``latency_ms``, ``low_ms`` and ``high_ms`` (where nine of ten measurements lie, if the table was tested
        on nine networks at least), ``p50_ms`` and ``p90_ms`` (running back to back), and, where the device tells them,
        ``file_mb`` and ``memory_mb`` (what a process needs at most to load and run the network, beyond the runtime).
        """
        import pandas as pd

        columns = {"latency_ms": self.predict(genomes)}
        if len(self._held_out) >= _LEAST_FOR_INTERVAL:
            columns["low_ms"], columns["high_ms"] = self.interval(genomes)
        columns |= {f"{name}_ms": self.predict_percentile(genomes, name) for name in self.table.sustained}
        for name, fit in self.table.sizes.items():
            columns[name] = fit.cost(self.space, self.table.precision).predict(genomes)
        return pd.DataFrame(columns)

    @functools.cached_property
    def _numbers(self) -> dict[BlockSpec, int]:
        return {block: number for number, block in enumerate(self.space.blocks)}

    @property
    def margin(self) -> float:
        """How much slower than predicted a network may be: 90 % of the held-out ones stay within; never negative."""
        return max(0.0, float(np.quantile(self.held_out_ratios(), 0.9)) - 1.0)

    @property
    def repeat_margin(self) -> float:
        """How much slower a second measurement of a network may be than the first, relative: the largest difference.

        It is that of the held-out networks that were measured twice in one run, whichever came first. Of as many more
        networks like these, n / (n + 1) stay within in either direction (split-conformal): with 40 of them, 98.8 % of
        second measurements. Chosen networks, and other runs, may differ by more. 0 where none was measured twice.
        """
        twice = [(each.measured_ms, each.repeated_ms) for each in self.table.held_out if each.repeated_ms is not None]
        return max((max(pair) / min(pair) - 1.0 for pair in twice), default=0.0)

    def interval(self, genomes: Genomes, coverage: float = 0.9) -> tuple[Values, Values]:
        """Return where a measurement is expected, ms, ``float64[n]`` each: split-conformal from the held-out networks.

        Args:
            genomes: canonical, ``int16[n, n_genes]``.
            coverage: share of networks whose measured latency lies inside.

        Raises:
            InputError: the held-out networks are too few for that coverage.
        """
        errors = np.sort(np.abs(self.held_out_ratios() - 1.0))
        rank = math.ceil((len(errors) + 1) * coverage)
        if not 0.0 < coverage < 1.0 or rank > len(errors):
            raise InputError(f"{len(errors)} held-out networks give no interval of coverage {coverage:g}")
        predicted, width = self.predict(genomes), errors[rank - 1]
        return predicted * (1.0 - width), predicted * (1.0 + width)

    def held_out_ratios(self) -> Values:
        """Return measured over predicted latency of the networks that the table was tested on, ``float64[n]``."""
        ratios: Values = truth_ms(self.table.held_out) / self.predict(self._held_out)
        return ratios


def block_times(space: NetworkSpace, entries: Sequence[BlockLatency]) -> BlockTimes:
    """Return the times of each of ``space.blocks``; raises `InputError` for a missing one."""
    by_key = {entry.block: entry for entry in entries}
    missing = [key for block in space.blocks if (key := block_key(block)) not in by_key]
    if missing:
        raise InputError(f"the latency table lacks {len(missing)} of the space's blocks, such as {missing[0]}")
    known = [by_key[block_key(block)] for block in space.blocks]
    return BlockTimes(np.array([each.latency_ms for each in known]), np.array([each.cold_ms for each in known]))


def sustained_ratio(latency_ms: Values, percentile_ms: Values) -> SustainedRatio:
    """Return how a percentile relates to latency, both of the same networks, ``float64[n]``, ms."""
    ratio = float(np.median(percentile_ms / latency_ms))
    return SustainedRatio(ratio=ratio, mape_percent=mape_percent(ratio * latency_ms, percentile_ms))


def truth_ms(networks: Sequence[MeasuredNetwork]) -> Values:
    """Return the best figure there is of measured networks, ``float64[n]``: the mean of those measured twice."""
    return np.array([(each.measured_ms + (each.repeated_ms or each.measured_ms)) / 2 for each in networks])
