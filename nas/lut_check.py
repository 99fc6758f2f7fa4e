"""The proof of a latency table, repeated at any time: predicted against measured, on networks it has never seen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nas.block_cache import BlockCache
from nas.devices import Device
from nas.lut import again_id, network_error, network_id
from nas.lut_plan import REPEATED_NETWORKS, ROUNDS, held_out_sample, network_models
from nas.progress import Progress, no_progress
from predictors.latency import LatencyPredictor, MeasuredNetwork, truth_ms
from predictors.quality import LatencyError
from search_spaces.errors import InputError

MOST_DRIFT_PERCENT = 5.0
"""A device that has become slower or faster by more needs a new table; less is told beside the error."""

_SALT = 2  # keeps these networks apart from those that a build with the same seed draws


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """What a table is worth now.

    Attributes:
        error: as measured.
        drift_percent: how much slower the device runs networks of the table now than when they were measured for it,
            median.
        steady_error: with the drift taken out of the measurements.
        networks: what was measured, with both sessions.
        predicted_ms: of those networks.
    """

    error: LatencyError
    drift_percent: float
    steady_error: LatencyError
    networks: tuple[MeasuredNetwork, ...]
    predicted_ms: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """``kept``, ``missed``, ``too noisy`` to tell, or ``drifted``: the device is no longer what was measured."""
        if abs(self.drift_percent) > MOST_DRIFT_PERCENT:
            return "drifted"
        if not self.steady_error.shortfalls:
            return "kept"
        return "too noisy" if self.steady_error.too_noisy else "missed"

    def to_json(self) -> dict[str, object]:
        """Return the figures as a plain value."""
        return {
            "verdict": self.verdict,
            "shortfalls": list(self.steady_error.shortfalls),
            "within_5_percent_at_least": self.steady_error.within_5_percent_at_least,
            "drift_percent": self.drift_percent,
            "error": asdict(self.error),
            "steady_error": asdict(self.steady_error),
        }


def check_lut(
    latency: LatencyPredictor,
    cache: BlockCache,
    device: Device,
    *,
    networks: int,
    work_dir: Path,
    seed: int,
    progress: Progress = no_progress,
) -> TableCheck:
    """Measure networks that are neither of the table's calibration nor of its own test, and those of its calibration.

    Args:
        latency: the table's predictions.
        cache: holds the space's blocks.
        device: where the table was measured.
        networks: how many new ones; some are measured in two sessions.
        work_dir: for the files.
        seed: of the draw and of the order of measuring.
        progress: told of measuring.

    Raises:
        InputError: the space has too few other networks; or as ``device.measure``.
        MachineError: as ``device.measure``.
    """
    space, table = latency.space, latency.table
    known = space.check([each.genes for each in (*table.calibration_networks, *table.held_out)])
    fresh = held_out_sample(space, networks, np.random.default_rng([seed, _SALT]), exclude=known)
    if len(fresh) < networks:
        raise InputError(f"space {space.name!r} has too few networks for {networks} that the table does not know")
    old = known[: len(table.calibration_networks)]
    specs = {network_id(number): space.lower(genome) for number, genome in enumerate(np.concatenate([fresh, old]))}
    files = network_models(specs, cache, work_dir)
    again = [replace(file, id=again_id(file.id)) for file in files[: min(len(fresh), REPEATED_NETWORKS)]]
    run = device.measure([*files, *again], rounds=ROUNDS, seed=seed, work_dir=work_dir / "measuring", progress=progress)
    latency_ms = [measurement.latency_ms for measurement in run.measurements]
    first, now, second = latency_ms[: len(fresh)], latency_ms[len(fresh) : len(files)], latency_ms[len(files) :]
    measured = tuple(
        MeasuredNetwork(genes=tuple(genome.tolist()), measured_ms=one, repeated_ms=other)
        for genome, one, other in zip(fresh, first, [*second, *[None] * (len(first) - len(second))], strict=True)
    )
    predicted = latency.predict(fresh)
    drift = float(np.median(np.array(now) / truth_ms(table.calibration_networks)))
    return TableCheck(
        error=network_error(predicted, measured),
        drift_percent=100.0 * (drift - 1.0),
        steady_error=network_error(predicted * drift, measured),
        networks=measured,
        predicted_ms=tuple(predicted.tolist()),
    )
