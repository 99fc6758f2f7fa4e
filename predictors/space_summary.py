"""What a space of networks holds, in figures: for people who choose one, and for its page in the documentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.additive import AdditiveCost
from search_spaces.language import ABSENT, NetworkSpace
from search_spaces.spec import BlockSpec

_SAMPLE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Smallest and largest value in the whole space, exact, and the median of networks drawn uniformly."""

    smallest: float
    median: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSummary:
    """A space in figures.

    Attributes:
        name: of the space.
        hash: its content hash.
        architectures: exact number of distinct networks.
        genes: number of choices.
        blocks: number of distinct blocks, which a latency table measures.
        blocks_by_resolution: the same by side of the input, pixels.
        params: learned parameters.
        macs: multiply-accumulates of one image.
        weight_bytes: size of the deployed weights in fp32.
    """

    name: str
    hash: str
    architectures: int
    genes: int
    blocks: int
    blocks_by_resolution: dict[int, int]
    params: Range
    macs: Range
    weight_bytes: Range


def summarise(space: NetworkSpace, *, seed: int = 0) -> SpaceSummary:
    """Return a space in figures."""
    genomes = space.sample_uniform(_SAMPLE, np.random.default_rng(seed))

    def extent(cost: AdditiveCost) -> Range:
        median = float(np.median(cost.predict(genomes)))
        return Range(smallest=cost.cheapest()[0], median=median, largest=cost.dearest()[0])

    def fp32_bytes(block: BlockSpec) -> int:
        return block.weight_bytes("fp32")

    return SpaceSummary(
        name=space.name,
        hash=space.hash,
        architectures=space.count(),
        genes=space.n_genes,
        blocks=len(space.blocks),
        blocks_by_resolution={side: len(numbers) for side, numbers in blocks_by_resolution(space).items()},
        params=extent(AdditiveCost.of(space, lambda block: block.params())),
        macs=extent(AdditiveCost.of(space, lambda block: block.macs())),
        weight_bytes=extent(AdditiveCost.of(space, fp32_bytes)),
    )


def blocks_by_resolution(space: NetworkSpace) -> dict[int, list[int]]:
    """Return the numbers of the blocks that networks at each side of the input may have."""
    sides = space.layout.input.resolutions
    result: dict[int, set[int]] = {side: set() for side in sides}
    for slot in space.slots:
        # Every slot has the resolution, where it is a gene, as its first dimension.
        for side, part in zip(sides, np.split(slot.table, len(sides)), strict=True):
            result[side].update(int(number) for number in np.unique(part) if number > ABSENT)
    return {side: sorted(numbers) for side, numbers in result.items()}
