"""Building a latency table: blocks measured in context, calibration on whole networks, proof on others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from nas.block_cache import BlockCache
from nas.devices import Device, Measurement, MeasurementRun, ModelFile
from nas.lut_plan import (
    BLOCK_VISIT_MS,
    FOOTPRINTS,
    NETWORK_VISIT_MS,
    REPEATED_NETWORKS,
    ROUNDS,
    SUSTAINED_S,
    TablePlan,
    block_latencies,
    block_models,
    network_models,
)
from nas.measure import FORMAT_VERSION
from nas.progress import Progress, no_progress
from predictors.additive import AdditiveCost
from predictors.calibration import CalibratedCost, calibrate
from predictors.footprint import Size, SizeFit, fit_size
from predictors.latency import (
    LatencyTable,
    MeasuredNetwork,
    Percentile,
    SustainedRatio,
    TableSource,
    block_times,
    sustained_ratio,
    truth_ms,
)
from predictors.quality import LatencyError, latency_error
from predictors.transfer import fit_transfer
from search_spaces.documents import content_hash
from search_spaces.errors import InputError, MachineError, ToolError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

STATISTIC: Literal["lower quartile of steady rounds"] = "lower quartile of steady rounds"
UNUSABLE_PERCENT = 25.0
"""A model whose even and odd rounds differ by more, after it was measured again, has no figure."""


def build_lut(
    plan: TablePlan,
    space: NetworkSpace,
    cache: BlockCache,
    device: Device,
    *,
    work_dir: Path,
    source: LatencyTable | None = None,
    preparing: Progress = no_progress,
    progress: Progress = no_progress,
) -> LatencyTable:
    """Measure what a plan names on a device, and return the calibrated, tested table.

    Args:
        plan: of that device.
        space: whose blocks.
        cache: holds the `planned_blocks`, exported for the device's batch.
        device: what to measure on.
        work_dir: holds what is being measured; a build that was killed goes on from here.
        source: the table that the plan takes blocks from, if it does.
        preparing: told of files made.
        progress: told of measuring.

    Raises:
        InputError: as ``device.measure`` and `table_of`.
        MachineError: as ``device.measure`` and `table_of`.
    """
    _require_source(plan, source)
    # What is left of a killed build is only good for the same build: same files, same protocol.
    identity = [FORMAT_VERSION, plan, device.fingerprint().hash, ROUNDS, BLOCK_VISIT_MS, NETWORK_VISIT_MS]
    work_dir = work_dir / content_hash(identity, 8)
    models = table_models(plan, space, cache, work_dir, progress=preparing)
    run = device.measure(models, rounds=ROUNDS, seed=plan.seed, work_dir=work_dir / "measuring", progress=progress)
    try:
        return table_of(plan, space, run, source)
    except ToolError:
        # A measurement that is no good must not be taken up again.
        shutil.rmtree(work_dir / "measuring")
        raise


def table_models(
    plan: TablePlan, space: NetworkSpace, cache: BlockCache, folder: Path, *, progress: Progress = no_progress
) -> list[ModelFile]:
    """Write all models of a table into a folder, and say how each is to be measured."""
    blocks = [] if plan.source else block_models(space, cache, folder, progress)
    genomes = space.check([*plan.calibration, *plan.held_out])
    specs = {network_id(number): space.lower(genome) for number, genome in enumerate(genomes)}
    networks = network_models(specs, cache, folder, progress)
    calibration, held_out = networks[: len(plan.calibration)], networks[len(plan.calibration) :]
    # The same files twice: a second session is an independent measurement of the same network.
    again = [replace(file, id=again_id(file.id)) for file in held_out[:REPEATED_NETWORKS]]
    # Calibration networks come by rising cost.
    spread = {round(position) for position in np.linspace(0, len(calibration) - 1, FOOTPRINTS)}
    fitting = [
        replace(file, sustained_s=SUSTAINED_S, footprint=number in spread) for number, file in enumerate(calibration)
    ]
    return [*blocks, *fitting, *held_out, *again]


def table_of(
    plan: TablePlan, space: NetworkSpace, run: MeasurementRun, source: LatencyTable | None = None
) -> LatencyTable:
    """Return the calibrated, tested table of a measurement of `table_models`.

    Raises:
        MachineError: a model could not be measured repeatably.
        InputError: the figures give some network a latency that is not positive, or `source` is not the table that
            the plan takes blocks from.
    """
    _require_source(plan, source)
    unusable = [each.noise_percent for each in run.measurements if each.noise_percent > UNUSABLE_PERCENT]
    if unusable:
        raise MachineError(
            f"{len(unusable)} of {len(run.measurements)} models could not be measured repeatably, the worst within "
            f"{max(unusable):.0f} %; stop what else runs on the device, and measure again from the start"
        )
    by_id = {measurement.id: measurement for measurement in run.measurements}
    blocks = source.blocks if source else block_latencies(space, by_id)
    calibration, held_out = space.check(plan.calibration), space.check(plan.held_out)
    fitting = _measured(calibration, by_id, start=0)
    testing = _measured(held_out, by_id, start=len(calibration))
    times = block_times(space, blocks)
    known = (calibration, truth_ms(fitting), plan.precision, plan.batch)
    fitted = (
        fit_transfer(space, times, source.calibration.waiting, *known) if source else calibrate(space, times, *known)
    )
    macs = AdditiveCost.of(space, lambda block: block.macs())
    predicted = CalibratedCost(space, times, fitted, plan.precision, plan.batch)
    if fitted.factors["time"] <= 0.0 or predicted.cheapest()[0] <= 0.0 or not (predicted.predict(held_out) > 0.0).all():
        raise InputError("the measurements contradict each other: some networks would take no time; measure again")
    return LatencyTable(
        format_version=LatencyTable.CURRENT_VERSION,
        device=plan.device,
        precision=plan.precision,
        batch=plan.batch,
        fingerprint=asdict(run.fingerprint),
        fingerprint_hash=run.fingerprint.hash,
        conditions=asdict(run.conditions),
        space_hash=space.hash,
        statistic=STATISTIC,
        exporter=plan.exporter,
        tool_version=version("paretonas"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=plan.seed,
        blocks=blocks,
        calibration=fitted,
        calibration_networks=tuple(fitting),
        sustained=_sustained(len(calibration), by_id),
        sizes=_sizes(space, calibration, by_id, plan.precision),
        held_out=tuple(testing),
        error=network_error(predicted.predict(held_out), testing),
        plain_error=network_error(AdditiveCost(space, times.latency_ms).predict(held_out), testing),
        macs_error=network_error(_line(macs.predict(calibration), truth_ms(fitting), macs.predict(held_out)), testing),
        source=plan.source,
    )


def _require_source(plan: TablePlan, source: LatencyTable | None) -> None:
    if plan.source != (source and TableSource.of(source)):
        raise InputError(
            "the table to take blocks from is not the one that this one was planned with: was it built again meanwhile?"
        )


def network_error(predicted: npt.NDArray[np.float64], networks: Sequence[MeasuredNetwork]) -> LatencyError:
    """Compare predictions, ms, with networks, of which some at least were measured twice."""
    twice = [(each.measured_ms, each.repeated_ms) for each in networks if each.repeated_ms is not None]
    first, second = np.array(twice, dtype=np.float64).reshape(-1, 2).T
    return latency_error(predicted, truth_ms(networks), first, second)


def network_id(number: int) -> str:
    """Return the id of a whole network's model."""
    return f"network-{number}"


def again_id(name: str) -> str:
    """Return the id of a model's second session."""
    return f"{name}-again"


def _measured(genomes: Genomes, by_id: Mapping[str, Measurement], *, start: int) -> list[MeasuredNetwork]:
    networks = []
    for number, genome in enumerate(genomes, start=start):
        name = network_id(number)
        again = by_id.get(again_id(name))
        networks.append(
            MeasuredNetwork(
                genes=tuple(int(gene) for gene in genome),
                measured_ms=by_id[name].latency_ms,
                repeated_ms=again.latency_ms if again else None,
            )
        )
    return networks


def _sustained(n: int, by_id: Mapping[str, Measurement]) -> dict[Percentile, SustainedRatio]:
    networks = [by_id[network_id(number)] for number in range(n)]
    runs = [(each.latency_ms, each.sustained.p50_ms, each.sustained.p90_ms) for each in networks if each.sustained]
    latency_ms, p50_ms, p90_ms = np.array(runs, dtype=np.float64).reshape(-1, 3).T
    return {"p50": sustained_ratio(latency_ms, p50_ms), "p90": sustained_ratio(latency_ms, p90_ms)}


def _sizes(
    space: NetworkSpace, genomes: Genomes, by_id: Mapping[str, Measurement], precision: str
) -> dict[Size, SizeFit]:
    footprints = [by_id[network_id(number)].footprint for number in range(len(genomes))]
    told: dict[Size, list[float | None]] = {
        "file_mb": [each.file_mb if each else None for each in footprints],
        "memory_mb": [each.memory_mb if each else None for each in footprints],
    }
    fits: dict[Size, SizeFit] = {}
    for name, sizes_mb in told.items():
        known = [number for number, size_mb in enumerate(sizes_mb) if size_mb is not None]
        if known:
            fits[name] = fit_size(space, genomes[known], np.array([sizes_mb[number] for number in known]), precision)
    return fits


def _line(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], at: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return a straight line through points, fitted to the relative error, at other places."""
    design = np.stack([x, np.ones(len(x))], axis=1) / y[:, None]
    slope, constant = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)[0]
    return np.asarray(constant + slope * at, dtype=np.float64)
