"""What a latency table is measured from: blocks in context, chains to subtract, whole networks; as files to measure.

A block is measured between two 1x1 convolutions, and chains of two 1x1 convolutions are measured too. Halves of the
chains at both ends are subtracted, which takes away the neighbours, the session's overhead and the layout reorders at
the graph's edges: what is left is what the block adds inside a network. The stem and the head keep the edge that they
have in a network, so a plain sum over blocks already contains one session.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from nas.block_cache import BlockCache
from nas.devices import Device, Measurement, ModelFile, Precision
from nas.files import make_folder, sha256_file, write_atomic
from nas.onnx_format import exporter_name
from nas.progress import Progress, no_progress
from predictors.additive import AdditiveCost
from predictors.balanced import evenly_spaced, sample_balanced
from predictors.latency import BlockLatency, LatencyPredictor, TableSource, block_times
from predictors.transfer import informative
from search_spaces.documents import document
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import BlockSpec, NetworkSpec, block_key

ROUNDS = 16
BLOCK_VISIT_MS = 4.0
NETWORK_VISIT_MS = 20.0
"""At most; it takes some ms per MB until the caches hold what they can of a network."""
CALIBRATION_NETWORKS = 96
HELD_OUT_NETWORKS = 40
REPEATED_NETWORKS = 40
"""At most so many of those are measured twice: that tells the noise floor, how far measurements keep from a budget, and
takes memory."""
FOOTPRINTS = 8
"""How many calibration networks, spread over their cost, are run in processes of their own for the memory they need."""
TRANSFER_NETWORKS = 10
LEAST_TRANSFER_NETWORKS = 8
SUSTAINED_S = 0.1
"""How long calibration networks run back to back, for the percentiles of a table."""

_POOL = 512
_macs, _params = operator.methodcaller("macs"), operator.methodcaller("params")
_NETWORKS = 1
"""Blocks are group 0: if they are measured at other times, calibration takes out what is different then. Whole
networks suffer more than blocks when others use the caches, so they tell of that among themselves."""


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """Which networks are measured whole beside the blocks of a space, and for which device.

    Attributes:
        device: name of the target.
        precision: arithmetic of what is measured.
        batch: images at a time.
        space_hash: whose blocks.
        exporter: what makes the files.
        seed: of the draw of networks.
        calibration: genes of the networks that the table is calibrated on.
        held_out: genes of those that it is tested on.
        source: the table to take blocks from; None to measure them.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    device: str
    precision: Precision
    batch: int
    space_hash: str
    exporter: str
    seed: int
    calibration: tuple[tuple[int, ...], ...]
    held_out: tuple[tuple[int, ...], ...]
    source: TableSource | None = None


def plan_table(space: NetworkSpace, device: Device, *, seed: int, held_out: int | None = None) -> TablePlan:
    """Choose the networks of a table.

    Args:
        space: whose networks.
        device: what the table is of.
        seed: of the draw.
        held_out: how many networks to test it on; None means `HELD_OUT_NETWORKS`.

    Raises:
        InputError: the space has fewer networks than are measured whole.
    """
    n_held_out = HELD_OUT_NETWORKS if held_out is None else held_out
    if space.count() < CALIBRATION_NETWORKS + n_held_out:
        raise InputError(
            f"space {space.name!r} has {space.count()} networks; a table is calibrated on {CALIBRATION_NETWORKS} and "
            f"tested on {n_held_out} others; offer more, or export and `nas bench` each"
        )
    calibration = calibration_sample(space, np.random.default_rng([seed, 0]))
    testing = held_out_sample(space, n_held_out, np.random.default_rng([seed, 1]), exclude=calibration)
    if len(calibration) < CALIBRATION_NETWORKS or len(testing) < n_held_out:
        raise InputError(
            f"space {space.name!r} has {space.count()} networks, too few to find {CALIBRATION_NETWORKS} to calibrate "
            f"on and {n_held_out} others at random; offer more, or give another --seed"
        )
    return _plan(space, device, seed, calibration, testing)


def plan_transfer(
    source: LatencyPredictor, device: Device, *, seed: int, networks: int = TRANSFER_NETWORKS
) -> TablePlan:
    """Choose the networks of a table that has its blocks from another device's.

    Args:
        source: the table of the known device.
        device: what the new table is of.
        seed: of the draw.
        networks: how many to fit the difference on, see `predictors.transfer`.

    Raises:
        InputError: the networks are too few for a fit, or the space has fewer than are measured whole.
    """
    if networks < LEAST_TRANSFER_NETWORKS:
        raise InputError(f"a table is transferred on at least {LEAST_TRANSFER_NETWORKS} networks, got {networks}")
    space, table = source.space, source.table
    rng = np.random.default_rng([seed, 0])
    spanning = _spanning(AdditiveCost.of(space, _macs), rng)
    pool = space.unique(np.concatenate([space.sample(max(_POOL, 4 * networks), rng), spanning]))
    times = block_times(space, table.blocks)
    known = (space, times, table.calibration.waiting, pool, min(networks, len(pool)))
    calibration = pool[informative(*known, device.precision, device.batch)]
    testing = held_out_sample(space, HELD_OUT_NETWORKS, np.random.default_rng([seed, 1]), exclude=calibration)
    if len(calibration) < networks or len(testing) < HELD_OUT_NETWORKS:
        raise InputError(
            f"space {space.name!r} has {space.count()} networks, too few to transfer a table on {networks} and test it "
            f"on {HELD_OUT_NETWORKS} others"
        )
    return _plan(space, device, seed, calibration, testing, source=TableSource.of(source.table))


def _plan(
    space: NetworkSpace,
    device: Device,
    seed: int,
    calibration: Genomes,
    held_out: Genomes,
    source: TableSource | None = None,
) -> TablePlan:
    return TablePlan(
        format_version=TablePlan.CURRENT_VERSION,
        device=device.name,
        precision=device.precision,
        batch=device.batch,
        space_hash=space.hash,
        exporter=exporter_name(),
        seed=seed,
        calibration=tuple(tuple(row) for row in calibration.tolist()),
        held_out=tuple(tuple(row) for row in held_out.tolist()),
        source=source,
    )


def planned_blocks(plan: TablePlan, space: NetworkSpace) -> tuple[BlockSpec, ...]:
    """Return the blocks that the models of a table are made of."""
    if plan.source is None:
        return space.blocks
    networks = [space.lower(genome) for genome in space.check([*plan.calibration, *plan.held_out])]
    return tuple({block_key(placed.block): placed.block for network in networks for placed in network}.values())


def calibration_sample(space: NetworkSpace, rng: np.random.Generator) -> Genomes:
    """Return networks to calibrate on, by rising MACs, ``int16[n, n_genes]``.

    Half of them span the space, a quarter each at equal distances on the logarithm of MACs and of parameters, both
    ends included, so that nothing is extrapolated: networks that touch more memory wait for it. A quarter is at equal
    MACs among networks as most of a space are, deep and of the kinds of blocks that have most variants, since an error
    per block or kind adds up in those. The rest has random genes: networks of which each is of many sizes and kinds.
    """
    macs, params = (AdditiveCost.of(space, count) for count in (_macs, _params))
    share = CALIBRATION_NETWORKS // 4
    chosen = space.sample(0, rng)
    for cost, drawn in (
        (macs, _spanning(macs, rng)),
        (params, _spanning(params, rng)),
        (macs, space.sample_uniform(_POOL, rng)),
    ):
        pool = _fresh(drawn, space, chosen)
        chosen = np.concatenate([chosen, pool[evenly_spaced(cost.predict(pool), min(share, len(pool)))]])
    random = _fresh(space.sample(_POOL, rng), space, chosen)[: CALIBRATION_NETWORKS - len(chosen)]
    both = np.concatenate([chosen, random])
    return both[np.argsort(macs.predict(both), kind="stable")]


def _spanning(cost: AdditiveCost, rng: np.random.Generator) -> Genomes:
    """Return networks of all sizes, the ends of the space among them."""
    ends = np.stack([cost.cheapest()[1], cost.dearest()[1]])
    return np.concatenate([ends, sample_balanced(cost, _POOL, rng)])


def held_out_sample(space: NetworkSpace, n: int, rng: np.random.Generator, *, exclude: Genomes) -> Genomes:
    """Return networks that are none of `exclude`, every network of the space with the same probability."""
    return _fresh(space.sample_uniform(max(_POOL, 4 * n), rng), space, exclude)[:n]


def _fresh(drawn: Genomes, space: NetworkSpace, exclude: Genomes) -> Genomes:
    """Return distinct ones of some genomes, without those of `exclude`, in the order in which they were drawn."""
    taken = {row.tobytes() for row in exclude}
    first: dict[bytes, int] = {}
    for number, row in enumerate(space.canonical(drawn)):
        if row.tobytes() not in taken:
            first.setdefault(row.tobytes(), number)
    return space.canonical(drawn)[list(first.values())]


def block_models(
    space: NetworkSpace, cache: BlockCache, folder: Path, progress: Progress = no_progress
) -> list[ModelFile]:
    """Write every block of a space in context, and the chains to subtract; what a killed build left is kept."""
    jobs: dict[str, _Job] = {}
    edges: set[_Edge] = set()
    for number, block in enumerate(space.blocks):
        before, after = _edges(block)
        edges.update(edge for edge in (before, after) if edge is not None)
        jobs[f"block-{number}"] = _InContext(cache, block, before, after)
    for edge in sorted(edges):
        jobs[edge.chain_id] = _Chain(cache, edge)
    return _written(jobs, cache, folder, progress)


def network_models(
    networks: Mapping[str, NetworkSpec],
    cache: BlockCache,
    folder: Path,
    progress: Progress = no_progress,
) -> list[ModelFile]:
    """Write whole networks, named for the files; the cache must hold their blocks, and weights are random."""
    jobs: dict[str, _Job] = {name: _Whole(cache, spec) for name, spec in networks.items()}
    files = _written(jobs, cache, folder, progress)
    return [whole_network(file) for file in files]


def whole_network(file: ModelFile) -> ModelFile:
    """Return a file to be measured as the networks of tables are: a shorter visit would find large ones half cold."""
    visit_ms = min(NETWORK_VISIT_MS, BLOCK_VISIT_MS * (1.0 + file.path.stat().st_size / 1e6))
    return replace(file, visit_ms=visit_ms, group=_NETWORKS)


def block_latencies(space: NetworkSpace, measured: Mapping[str, Measurement]) -> tuple[BlockLatency, ...]:
    """Return what every block adds to a network: its time in context less half of the chain at each end."""
    return tuple(_block_latency(block, number, measured) for number, block in enumerate(space.blocks))


def _block_latency(block: BlockSpec, number: int, measured: Mapping[str, Measurement]) -> BlockLatency:
    context = measured[f"block-{number}"]
    chains = [measured[edge.chain_id] for edge in _edges(block) if edge is not None]
    return BlockLatency(
        block=block_key(block),
        latency_ms=context.latency_ms - sum(chain.latency_ms / 2 for chain in chains),
        cold_ms=context.cold_ms - sum(chain.cold_ms / 2 for chain in chains),
        in_context_ms=context.latency_ms,
        noise_percent=context.noise_percent,
        rounds_ms=context.rounds_ms,
        first_ms=context.first_ms,
        slowness=context.slowness,
    )


@dataclass(frozen=True, slots=True, order=True)
class _Edge:
    """A feature map between two blocks."""

    channels: int
    resolution: int

    @property
    def chain_id(self) -> str:
        return f"chain-{self.channels}x{self.resolution}"

    def pointwise(self, cache: BlockCache) -> onnx.ModelProto:
        return cache.pointwise(self.channels, self.resolution)


def _edges(block: BlockSpec) -> tuple[_Edge | None, _Edge | None]:
    """Return the feature maps on both sides of a block; None at the ends of a network."""
    before = _Edge(block.in_channels, block.resolution) if block.role != "stem" else None
    after = _Edge(block.out_channels, block.out_resolution) if block.role != "head" else None
    return before, after


@dataclass(frozen=True, slots=True)
class _InContext:
    cache: BlockCache
    block: BlockSpec
    before: _Edge | None
    after: _Edge | None

    def parts(self) -> list[onnx.ModelProto]:
        before, after = ([edge.pointwise(self.cache)] if edge else [] for edge in (self.before, self.after))
        return [*before, self.cache.block(self.block), *after]


@dataclass(frozen=True, slots=True)
class _Chain:
    cache: BlockCache
    edge: _Edge

    def parts(self) -> list[onnx.ModelProto]:
        return [self.edge.pointwise(self.cache)] * 2


@dataclass(frozen=True, slots=True)
class _Whole:
    cache: BlockCache
    spec: NetworkSpec

    def parts(self) -> list[onnx.ModelProto]:
        return [self.cache.block(placed.block) for placed in self.spec]


_Job = _InContext | _Chain | _Whole


def _written(jobs: Mapping[str, _Job], cache: BlockCache, folder: Path, progress: Progress) -> list[ModelFile]:
    make_folder(folder)
    paths = {name: folder / f"{name}.onnx" for name in jobs}
    missing = [(job, paths[name]) for name, job in jobs.items() if not paths[name].exists()]
    done = len(jobs) - len(missing)
    progress(done, len(jobs))
    for made, path in missing:
        write_atomic(path, cache.chain(made.parts()).SerializeToString())
        done += 1
        progress(done, len(jobs))
    return [ModelFile(name, path, sha256_file(path), BLOCK_VISIT_MS) for name, path in paths.items()]
