"""Latency of whole networks on a device: by themselves, or beside networks of the device's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.block_cache import BlockCache
from nas.devices import Device, Measurement
from nas.files import make_folder
from nas.lut_plan import ROUNDS, network_models
from nas.progress import Progress, no_progress
from predictors.balanced import evenly_spaced
from predictors.latency import LatencyPredictor, truth_ms
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import NetworkSpec

_COMPANIONS = 16
"""So many networks of a table tell the machine's pace to half a percent, and are enough for `nas.devices.drift`."""


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


def measure_beside_table(
    latency: LatencyPredictor,
    genomes: Genomes,
    cache: BlockCache,
    device: Device,
    *,
    work_dir: Path,
    seed: int,
    progress: Progress = no_progress,
) -> list[float]:
    """Measure whole networks among some of the table's; return their latencies in ms, in order.

    A few seconds show the machine as it is at that moment. The networks of the table tell whether it is faster than
    when the table was measured, and latencies are then raised to that level, where they will be at other times. If it
    is slower, they are left as measured.

    Args:
        latency: the table's predictions; its held-out networks are what is measured again.
        genomes: canonical, ``int16[n, n_genes]``.
        cache: holds the space's blocks.
        device: what the table was measured on.
        work_dir: for the files.
        seed: of the order of measuring.
        progress: told of measuring.

    Raises:
        InputError, MachineError: as ``device.measure``.
    """
    known_ms = truth_ms(latency.table.held_out)
    chosen = evenly_spaced(known_ms, min(_COMPANIONS, len(known_ms)))
    companions = latency.space.check([latency.table.held_out[row].genes for row in chosen])
    networks = by_id(latency.space, genomes)
    networks |= {f"table-{row}": latency.space.lower(genome) for row, genome in zip(chosen, companions, strict=True)}
    measured = measure_networks(cache, networks, device, work_dir=work_dir, seed=seed, progress=progress)
    latency_ms = np.array([each.latency_ms for each in measured])
    pace = float(np.median(latency_ms[len(genomes) :] / known_ms[chosen]))
    at_ordinary_times: list[float] = (latency_ms[: len(genomes)] / min(1.0, pace)).tolist()
    return at_ordinary_times


def by_id(space: NetworkSpace, genomes: Genomes) -> dict[str, NetworkSpec]:
    """Return networks by the id of their architecture, in the order of distinct canonical genomes."""
    return {space.architecture(genome).id: space.lower(genome) for genome in genomes}
