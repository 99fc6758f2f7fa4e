from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from search_spaces.language import ABSENT, NetworkSpace
from search_spaces.space import Genomes
from search_spaces.tiny import tiny
from tests.search_spaces.reference import blocks_of

SAMPLES = 20_000


@pytest.fixture(scope="module")
def space() -> NetworkSpace:
    return tiny(3, 10)


@pytest.fixture(scope="module")
def genomes(space: NetworkSpace) -> Genomes:
    return space.sample(SAMPLES, np.random.default_rng(0))


def test_architectures_are_counted_exactly(space: NetworkSpace) -> None:
    # A block is an MBConv of 2 kernels x 2 expansions, a ConvNeXt of 3 x 2 (2 x 2 in the last stage) or an attention
    # of 2 expansions.
    stage1 = 2 * (12 + 12**2)
    stage2 = 3 * (12 + 12**2 + 12**3)
    stage3 = 3 * (10 + 10**2 + 10**3)
    assert space.count() == stage1 * stage2 * stage3 == 5_872_201_920


def test_tiny_is_worth_searching_and_quick_to_measure(space: NetworkSpace) -> None:
    assert space.count() >= 10**8
    assert len(space.blocks) == 110
    assert len(space.layout.stages) >= 3
    assert space.layout.sides(space.layout.input.resolution)[0] <= 16


def test_every_block_is_a_choice_among_three_operators(space: NetworkSpace) -> None:
    blocks = {name: set(families) for name, families in space.slot_families().items() if ".block" in name}
    assert len(blocks) == 2 + 3 + 3
    assert set(map(frozenset, blocks.values())) == {frozenset({"mbconv", "convnext", "attention"})}


def test_consecutive_blocks_fit(space: NetworkSpace, genomes: Genomes) -> None:
    for genome in genomes[:2000]:
        network = space.lower(genome)
        blocks = [placed.block for placed in network]
        assert network.input_shape == (3, 24, 24)
        for block, following in itertools.pairwise(blocks):
            assert following.in_channels == block.out_channels
            assert following.resolution == block.out_resolution
        assert (blocks[-1].out_channels, blocks[-1].out_resolution) == (10, 1)


def test_every_tap_of_a_kernel_meets_a_pixel(space: NetworkSpace) -> None:
    # Otherwise networks that differ in that kernel alone would be the same function, counted twice.
    for block in space.blocks:
        for field in dataclasses.fields(block):
            if field.name == "kernel":
                assert getattr(block, field.name) // 2 < block.resolution


def test_depth_is_the_number_of_blocks(space: NetworkSpace, genomes: Genomes) -> None:
    for genome in genomes[:500]:
        chosen = space.decode(genome)
        slots = [placed.slot for placed in space.lower(genome)]
        for stage in (1, 2, 3):
            depth = int(chosen[f"stage{stage}.depth"])
            inside = [slot for slot in slots if slot.startswith(f"stage{stage}.block")]
            assert inside == [f"stage{stage}.block{block}" for block in range(1, depth + 1)]


def test_bulk_lookup_equals_slow_lowering(space: NetworkSpace, genomes: Genomes) -> None:
    numbers = space.block_numbers(genomes)
    for genome, row in zip(genomes[:1000], numbers[:1000], strict=True):
        used = tuple(space.blocks[number] for number in row if number != ABSENT)
        assert used == tuple(placed.block for placed in blocks_of(space.layout, space.decode(genome)))


def test_every_block_is_reached_and_no_table_entry_is_left_unfilled(space: NetworkSpace, genomes: Genomes) -> None:
    found = set(space.block_numbers(genomes).ravel().tolist())
    assert found == {ABSENT, *range(len(space.blocks))}


def test_input_and_classes_reach_the_network() -> None:
    genome = np.zeros(tiny(1, 2).n_genes, dtype=np.int16)
    grey, colour = tiny(1, 2), tiny(3, 10)
    assert grey.hash != colour.hash
    assert grey.lower(genome).input_shape == (1, 24, 24)
    assert grey.lower(genome).blocks[-1].block.out_channels == 2


def test_the_largest_network_contains_every_block(space: NetworkSpace, genomes: Genomes) -> None:
    largest = space.resize(genomes[:1], largest=True)[0]
    smallest = space.resize(genomes[:1], largest=False)[0]
    assert len(space.lower(largest).blocks) == len(space.slots)
    assert len(space.lower(smallest).blocks) == 4 + 3
    assert space.lower(smallest).macs() < space.lower(largest).macs()
