"""Latency of whole networks on a device: by themselves, or beside networks of the device's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nas.block_cache import BlockCache
from nas.devices import Device, Measurement
from nas.files import make_folder
from nas.lut_check import MOST_DRIFT_PERCENT
from nas.lut_plan import ROUNDS, network_models
from nas.progress import Notice, Progress, ignore, no_progress
from predictors.balanced import evenly_spaced
from predictors.latency import LatencyPredictor, truth_ms
from search_spaces.spec import NetworkSpec

_COMPANIONS = 16
"""So many networks of a table tell the machine's pace; more than `nas.devices.drift.LEAST_OTHERS`, so that its ups and
downs are taken out of few finalists, too."""


def measure_networks(
    cache: BlockCache,
    networks: Mapping[str, NetworkSpec],
    device: Device,
    *,
    work_dir: Path,
    seed: int,
    sustained_s: float = 0.0,
    progress: Progress = no_progress,
) -> tuple[Measurement, ...]:
    """Measure whole networks, named for the files, by the protocol of the table, in order; weights are random.

    The cache must hold their blocks. With `sustained_s`, each runs back to back for so long after the rounds.
    """
    make_folder(work_dir)
    models = [replace(file, sustained_s=sustained_s) for file in network_models(networks, cache, work_dir)]
    run = device.measure(models, rounds=ROUNDS, seed=seed, work_dir=work_dir / "measuring", progress=progress)
    return run.measurements


@dataclass(frozen=True, slots=True)
class BesideTable:
    """Latencies of networks, and what networks of the table tell of the machine meanwhile.

    Attributes:
        latency_ms: of each network, as slow as it is when the machine is no faster than when the table was measured.
        pace: how slow the machine was then, relative to the table: below 1 for a faster one, by which latencies were
            divided; those of a slower one are left as measured. 1 where the table is of other conditions.
    """

    latency_ms: tuple[float, ...]
    pace: float


def measure_beside_table(
    latency: LatencyPredictor,
    networks: Mapping[str, NetworkSpec],
    cache: BlockCache,
    device: Device,
    *,
    work_dir: Path,
    seed: int,
    progress: Progress = no_progress,
    notice: Notice = ignore,
) -> BesideTable:
    """Measure whole networks among some of the table's.

    A few seconds show the machine as it is at that moment. The networks of the table tell whether it is faster than
    when the table was measured, where latencies will be again at other times.

    Args:
        latency: the table's predictions; its held-out networks are what is measured again, if it is of the conditions
            that are here.
        networks: by name; none begins with ``table-``.
        cache: holds the blocks of these networks.
        device: where to measure.
        work_dir: for the files.
        seed: of the order of measuring.
        progress: told of measuring.
        notice: told of a machine that is no longer what the table was measured on.

    Raises:
        InputError, MachineError: as ``device.measure``.
    """
    table, space = latency.table, latency.space
    companions: dict[str, NetworkSpec] = {}
    known_ms = truth_ms(table.held_out)
    chosen = evenly_spaced(known_ms, min(_COMPANIONS, len(known_ms)))
    if table.fingerprint_hash == device.fingerprint().hash:
        genomes = space.check([table.held_out[row].genes for row in chosen])
        companions = {f"table-{row}": space.lower(genome) for row, genome in zip(chosen, genomes, strict=True)}
        cache.fill(list(dict.fromkeys(placed.block for network in companions.values() for placed in network)))
    measured = measure_networks(
        cache, {**networks, **companions}, device, work_dir=work_dir, seed=seed, progress=progress
    )
    latency_ms = np.array([each.latency_ms for each in measured])
    if not companions:
        return BesideTable(tuple(latency_ms.tolist()), 1.0)
    pace = float(np.median(latency_ms[len(networks) :] / known_ms[chosen]))
    drift_percent = 100.0 * (pace - 1.0)
    if abs(drift_percent) > MOST_DRIFT_PERCENT:
        notice(
            f"{table.device} runs networks of its table {abs(drift_percent):.0f} % "
            f"{'slower' if pace > 1.0 else 'faster'} than when that was measured; if that stays, build it again"
        )
    return BesideTable(tuple((latency_ms[: len(networks)] / min(1.0, pace)).tolist()), pace)
