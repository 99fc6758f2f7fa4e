"""Building a latency table: blocks measured in context, calibration on whole networks, proof on others.

A block is measured between two 1x1 convolutions, and chains of two 1x1 convolutions are measured too. Halves of the
chains at both ends are subtracted, which takes away the neighbours, the session's overhead and the layout reorders at
the graph's edges: what is left is what the block adds inside a network. The stem and the head keep the edge that they
have in a network, so a plain sum over blocks already contains one session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx

from nas.block_cache import BlockCache
from nas.devices import Device, Measurement, ModelFile
from nas.files import make_folder, sha256_file, write_atomic
from nas.onnx_format import exporter_name
from nas.progress import Progress, no_progress
from nas.stitch import pointwise, stitch
from predictors.additive import AdditiveCost
from predictors.latency import BlockLatency, LatencyTable, MeasuredNetwork, block_values, calibrate, calibrated_cost
from predictors.quality import LatencyError, latency_error
from search_spaces.documents import content_hash
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import BlockSpec, NetworkSpec, block_key

STATISTIC: Literal["min"] = "min"
ROUNDS = 12
VISIT_MS = 8.0
CALIBRATION_NETWORKS = 20
HELD_OUT_NETWORKS = 40
_POOL = 512


@dataclass(frozen=True, slots=True, order=True)
class _Edge:
    """A feature map between two blocks."""

    channels: int
    resolution: int

    @property
    def chain_id(self) -> str:
        return f"chain-{self.channels}x{self.resolution}"


def build_lut(
    space: NetworkSpace,
    cache: BlockCache,
    device: Device,
    *,
    work_dir: Path,
    seed: int,
    progress: Progress = no_progress,
) -> LatencyTable:
    """Measure every distinct block of a space on a device and return the calibrated, tested table.

    Args:
        space: whose blocks.
        cache: holds those blocks, exported.
        device: what to measure on.
        work_dir: holds what is being measured; a build that was killed goes on from here.
        seed: of the networks for calibration and test, and of the order of measuring.
        progress: told of measuring.

    Raises:
        InputError: the space has fewer networks than are measured whole; or as ``device.measure``.
        MachineError: as ``device.measure``.
    """
    if space.count() < CALIBRATION_NETWORKS + HELD_OUT_NETWORKS:
        raise InputError(
            f"space {space.name!r} has {space.count()} networks; a table is calibrated on {CALIBRATION_NETWORKS} and "
            f"tested on {HELD_OUT_NETWORKS} others; offer more, or export and `nas bench` each"
        )
    calibration = calibration_sample(space, np.random.default_rng([seed, 0]))
    held_out = held_out_sample(space, np.random.default_rng([seed, 1]), exclude=calibration)
    networks = np.concatenate([calibration, held_out])
    # What is left of a killed build is only good for the same build: same files, same protocol.
    work_dir = work_dir / content_hash(
        [space.hash, exporter_name(), device.fingerprint().hash, seed, ROUNDS, VISIT_MS], 8
    )
    make_folder(work_dir)
    models = list(_block_models(space, cache, work_dir))
    files = [
        _model_file(f"network-{i}", work_dir, partial(cache.network, space.lower(g))) for i, g in enumerate(networks)
    ]
    # The same files twice: a second session is an independent measurement of the same network.
    models += files + [ModelFile(_again(file.id), file.path, file.sha256) for file in files]
    run = device.measure(
        models, rounds=ROUNDS, visit_ms=VISIT_MS, seed=seed, work_dir=work_dir / "measuring", progress=progress
    )
    by_id = {measurement.id: measurement for measurement in run.measurements}
    blocks = tuple(_block_latency(block, number, by_id) for number, block in enumerate(space.blocks))
    measured = [
        MeasuredNetwork(
            genes=tuple(int(gene) for gene in genome),
            measured_ms=by_id[f"network-{number}"].min_ms,
            repeated_ms=by_id[_again(f"network-{number}")].min_ms,
        )
        for number, genome in enumerate(networks)
    ]
    fitting, testing = measured[: len(calibration)], measured[len(calibration) :]
    values = block_values(space, {entry.block: entry.latency_ms for entry in blocks})
    fitted = calibrate(space, values, calibration, _measured(fitting))
    return LatencyTable(
        format_version=LatencyTable.CURRENT_VERSION,
        device=device.name,
        fingerprint=asdict(run.fingerprint),
        fingerprint_hash=run.fingerprint.hash,
        conditions=asdict(run.conditions),
        space_hash=space.hash,
        statistic=STATISTIC,
        exporter=exporter_name(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        blocks=blocks,
        calibration=fitted,
        calibration_networks=tuple(fitting),
        held_out=tuple(testing),
        error=_error(calibrated_cost(space, values, fitted), held_out, testing),
        plain_error=_error(AdditiveCost(space, values), held_out, testing),
    )


def measure_networks(
    cache: BlockCache,
    networks: Mapping[str, NetworkSpec],
    device: Device,
    *,
    work_dir: Path,
    seed: int,
    progress: Progress = no_progress,
) -> tuple[Measurement, ...]:
    """Measure whole networks, named for the files, by the protocol of the table, in order; weights are random.

    The cache must hold their blocks.
    """
    make_folder(work_dir)
    models = [_model_file(name, work_dir, partial(cache.network, spec)) for name, spec in networks.items()]
    run = device.measure(
        models, rounds=ROUNDS, visit_ms=VISIT_MS, seed=seed, work_dir=work_dir / "measuring", progress=progress
    )
    return run.measurements


def calibration_sample(space: NetworkSpace, rng: np.random.Generator) -> Genomes:
    """Return networks that span the space's MACs, both ends included, ``int16[n, n_genes]``."""
    macs = AdditiveCost.of(space, lambda block: block.macs())
    ends = np.stack([macs.cheapest()[1], macs.dearest()[1]])
    pool = space.unique(np.concatenate([space.sample(_POOL, rng), ends]))
    size = np.log(macs.predict(pool))
    wanted = np.linspace(size.min(), size.max(), CALIBRATION_NETWORKS)
    distance = np.abs(size[None] - wanted[:, None])
    chosen: list[int] = []
    for row in distance:
        row[chosen] = np.inf  # each network once
        chosen.append(int(row.argmin()))
    return pool[chosen]


def held_out_sample(space: NetworkSpace, rng: np.random.Generator, *, exclude: Genomes) -> Genomes:
    """Return random networks that are none of `exclude`: what a user's search meets, not what calibration chose."""
    taken = {row.tobytes() for row in exclude}
    pool = space.unique(space.sample(_POOL, rng))
    fresh: Genomes = np.array([row for row in pool if row.tobytes() not in taken], dtype=np.int16)
    return fresh[:HELD_OUT_NETWORKS]


def _block_models(space: NetworkSpace, cache: BlockCache, work_dir: Path) -> Iterator[ModelFile]:
    """Yield every block in context, and the chains to subtract."""
    like = cache.block(space.blocks[0])
    edges: set[_Edge] = set()
    for number, block in enumerate(space.blocks):
        before, after = _edges(block)
        edges.update(edge for edge in (before, after) if edge is not None)
        yield _model_file(f"block-{number}", work_dir, partial(_in_context, cache.block(block), before, after, like))
    for edge in sorted(edges):
        neighbour = pointwise(edge.channels, edge.resolution, like)
        yield _model_file(edge.chain_id, work_dir, partial(stitch, [neighbour, neighbour]))


def _again(name: str) -> str:
    """Return the id of a model's second session."""
    return f"{name}-again"


def _edges(block: BlockSpec) -> tuple[_Edge | None, _Edge | None]:
    """Return the feature maps on both sides of a block; None at the ends of a network."""
    before = _Edge(block.in_channels, block.resolution) if block.role != "stem" else None
    after = _Edge(block.out_channels, block.out_resolution) if block.role != "head" else None
    return before, after


def _in_context(
    block: onnx.ModelProto, before: _Edge | None, after: _Edge | None, like: onnx.ModelProto
) -> onnx.ModelProto:
    parts = [block]
    if before is not None:
        parts.insert(0, pointwise(before.channels, before.resolution, like))
    if after is not None:
        parts.append(pointwise(after.channels, after.resolution, like))
    return stitch(parts)


def _block_latency(block: BlockSpec, number: int, measured: Mapping[str, Measurement]) -> BlockLatency:
    """Return what a block adds to a network: its time in context less half of the chain at each end."""
    context = measured[f"block-{number}"]
    halves = [measured[edge.chain_id].min_ms / 2 for edge in _edges(block) if edge is not None]
    return BlockLatency(
        block=block_key(block),
        latency_ms=context.min_ms - sum(halves),
        in_context_ms=context.min_ms,
        noise_percent=context.noise_percent,
    )


def _model_file(name: str, work_dir: Path, make: Callable[[], onnx.ModelProto]) -> ModelFile:
    """Write a model into the work directory, unless a killed build left it there."""
    path = work_dir / f"{name}.onnx"
    if not path.exists():
        write_atomic(path, make().SerializeToString())
    return ModelFile(name, path, sha256_file(path))


def _error(predictor: AdditiveCost, genomes: Genomes, networks: Sequence[MeasuredNetwork]) -> LatencyError:
    repeated = np.array([network.repeated_ms for network in networks])
    return latency_error(predictor.predict(genomes), _measured(networks), repeated)


def _measured(networks: Sequence[MeasuredNetwork]) -> npt.NDArray[np.float64]:
    return np.array([network.measured_ms for network in networks])
