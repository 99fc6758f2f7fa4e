"""A latency table without a measurement: every figure follows from MACs, so that a test can say what to expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from nas.block_cache import BlockCache
from nas.devices import Fingerprint, Measurement, MeasurementRun, ModelFile, Precision
from nas.lut import STATISTIC, network_error
from nas.onnx_format import exporter_name
from nas.progress import Progress, no_progress
from predictors.additive import AdditiveCost
from predictors.block_features import BlockTimes
from predictors.calibration import CalibratedCost, calibrate
from predictors.footprint import SizeFit
from predictors.latency import (
    BlockLatency,
    LatencyPredictor,
    LatencyTable,
    MeasuredNetwork,
    SustainedRatio,
    truth_ms,
)
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import BlockSpec, block_key
from tests.nas.small_models import IR_VERSION, OPSETS

MACS_PER_MS = 2e6
CALIBRATION, HELD_OUT = 12, 30
FINGERPRINT = Fingerprint(
    machine="none",
    cpu_model=None,
    isa_flags=(),
    cores=None,
    affinity=None,
    cpu_quota=None,
    governor=None,
    turbo=None,
    memory_gib=None,
    system="none",
    kernel="0",
    onnxruntime="0",
    provider="none",
    provider_options={},
    threads=1,
    optimization_level="none",
    allow_spinning=False,
)


def synthetic_table(space: NetworkSpace, *, noise: float = 0.01, seed: int = 0) -> LatencyTable:
    """Return a valid table: a block takes its MACs over `MACS_PER_MS` and a little more, networks vary by `noise`.

    Measured again, they are within about a tenth of that.
    """
    rng = np.random.default_rng(seed)
    values = np.array([0.01 + block.macs() / MACS_PER_MS for block in space.blocks])
    genomes = space.unique(space.sample(4 * (CALIBRATION + HELD_OUT), rng))[: CALIBRATION + HELD_OUT]
    exact = AdditiveCost(space, values, constant=0.02).predict(genomes)
    measured = exact * (1 + noise * rng.standard_normal(len(exact)))
    repeated = measured * (1 + 0.1 * noise * rng.standard_normal(len(exact)))
    times = BlockTimes(values, 1.5 * values)
    fitted = calibrate(space, times, genomes[:CALIBRATION], (measured + repeated)[:CALIBRATION] / 2)
    networks = tuple(
        MeasuredNetwork(genes=tuple(genome.tolist()), measured_ms=float(first), repeated_ms=float(second))
        for genome, first, second in zip(genomes, measured, repeated, strict=True)
    )
    tested = slice(CALIBRATION, None)
    errors = [
        network_error(cost.predict(genomes[tested]), networks[tested])
        for cost in (CalibratedCost(space, times, fitted, "fp32"), AdditiveCost(space, values))
    ]
    return LatencyTable(
        format_version=LatencyTable.CURRENT_VERSION,
        device="cpu",
        precision="fp32",
        batch=1,
        fingerprint=asdict(FINGERPRINT),
        fingerprint_hash=FINGERPRINT.hash,
        conditions={},
        space_hash=space.hash,
        statistic=STATISTIC,
        exporter=exporter_name(),
        created="2000-01-01T00:00:00+00:00",
        seed=seed,
        blocks=tuple(
            BlockLatency(
                block=block_key(block),
                latency_ms=float(value),
                cold_ms=1.5 * float(value),
                in_context_ms=float(value) + 0.01,
                noise_percent=0.0,
                rounds_ms=(float(value),),
                first_ms=(1.5 * float(value),),
            )
            for block, value in zip(space.blocks, values, strict=True)
        ),
        calibration=fitted,
        calibration_networks=networks[:CALIBRATION],
        held_out=networks[CALIBRATION:],
        sustained={
            "p50": SustainedRatio(ratio=1.1, mape_percent=1.0),
            "p90": SustainedRatio(ratio=1.3, mape_percent=2.0),
        },
        sizes={
            "file_mb": SizeFit(constant_mb=0.1, per_block_mb=0.01, per_weight_mb=1.0, mape_percent=0.0),
            "memory_mb": SizeFit(constant_mb=20.0, per_block_mb=0.0, per_weight_mb=3.0, mape_percent=0.0),
        },
        error=errors[0],
        plain_error=errors[1],
        macs_error=errors[1],
    )


def synthetic_latency(space: NetworkSpace, *, noise: float = 0.01) -> LatencyPredictor:
    """Return the predictor of `synthetic_table`."""
    return LatencyPredictor(space, synthetic_table(space, noise=noise))


def hollow_cache(space: NetworkSpace, directory: Path) -> BlockCache:
    """Return `hollow_models` of all blocks of a space."""
    return hollow_models(space.blocks, directory)


def hollow_models(blocks: Sequence[BlockSpec], directory: Path) -> BlockCache:
    """Return a cache of blocks of the right shapes that compute nothing: for a device that does not run them."""
    cache = BlockCache(directory)
    directory.mkdir()
    for block in blocks:
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, side, side])
            for name, channels, side in (
                ("input", block.in_channels, block.resolution),
                ("output", block.out_channels, block.out_resolution),
            )
        ]
        graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "hollow", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
        cache.path(block).write_bytes(model.SerializeToString())
    return cache


@dataclass(frozen=True)
class ChosenDevice:
    """A device that reports chosen latencies by model id, and lists in `asked` what it was given."""

    latency_ms: Callable[[str], float]
    asked: list[str]
    name: str = "cpu"
    slug: str = "cpu"
    precision: Precision = "fp32"
    batch: int = 1
    obstacle: str | None = None

    def fingerprint(self) -> Fingerprint:
        return FINGERPRINT

    def measure(
        self,
        models: Sequence[ModelFile],
        *,
        rounds: int = 12,
        spread_s: float = 0.0,
        seed: int = 0,
        work_dir: Path,
        progress: Progress = no_progress,
    ) -> MeasurementRun:
        measurements = []
        for model in models:
            assert model.path.is_file()
            self.asked.append(model.id)
            latency = self.latency_ms(model.id)
            measurements.append(
                Measurement(
                    id=model.id,
                    rounds_ms=(latency,) * rounds,
                    first_ms=(1.5 * latency,) * rounds,
                    median_ms=latency * 1.1,
                    p90_ms=latency * 1.2,
                    runs=rounds,
                )
            )
        return MeasurementRun(fingerprint=FINGERPRINT, measurements=tuple(measurements))


def at_the_pace_of(
    table: LatencyTable, latency_ms: Callable[[str], float], *, pace: float = 1.0
) -> Callable[[str], float]:
    """Return chosen latencies, with a table's own networks as slow as it says, times a factor."""
    held_out = {f"table-{row}": float(ms) * pace for row, ms in enumerate(truth_ms(table.held_out))}
    return lambda name: held_out[name] if name in held_out else latency_ms(name)


def genomes_by_id(space: NetworkSpace, genomes: Genomes) -> dict[str, Genomes]:
    """Return genomes by the id of their architecture, which is the id that a device sees."""
    return {space.architecture(genome).id: genome for genome in genomes}
