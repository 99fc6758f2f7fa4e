from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from search_spaces.errors import InputError
from search_spaces.language import ABSENT, UNREACHABLE, ImageInput, Layout, NetworkSpace, Operator, Stage
from search_spaces.spec import block_key
from tests.search_spaces.reference import blocks_of, every_network
from tests.search_spaces.strategies import PROPERTY, layouts, seeds

MBCONV = Operator(family="mbconv", sizes=(("kernel", (3,)), ("expansion", (2,))))
ATTENTION = Operator(family="attention", sizes=(("expansion", (1,)),))
STAGE = Stage(width=(16,), depth=(1, 3), operators=(MBCONV,))
LAYOUT = Layout(
    name="plain",
    input=ImageInput(channels=1, resolution=8, classes=2),
    stem_kernel=3,
    stem_stride=2,
    stages=(STAGE, STAGE),
    head_features=4,
)

FIXED_FIELDS: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("convnext", {"kernel": (3,), "expansion": (2,), "channels": (8,)}),
    ("mbconv", {"kernel": (3,), "expansion": (2,), "resolution": (8,)}),
    ("attention", {"expansion": (1,), "position_kernel": (3, 5)}),
]


def with_stage(**changes: Any) -> Layout:
    return dataclasses.replace(LAYOUT, stages=(dataclasses.replace(STAGE, **changes),))


def with_input(**changes: int) -> Layout:
    return dataclasses.replace(LAYOUT, input=dataclasses.replace(LAYOUT.input, **changes))


def with_sizes(family: str, **sizes: tuple[int, ...]) -> Layout:
    return with_stage(operators=(Operator(family=family, sizes=tuple(sizes.items())),))


@PROPERTY
@given(layouts(), seeds)
def test_lowering_follows_the_layout(layout: Layout, seed: int) -> None:
    space = NetworkSpace(layout)
    genomes = space.sample(24, np.random.default_rng(seed))
    numbers = space.block_numbers(genomes)
    assert numbers.shape == (24, len(space.slots))
    slots = [slot.name for slot in space.slots]
    for genome, row in zip(genomes, numbers, strict=True):
        expected = blocks_of(layout, space.decode(genome))
        assert space.lower(genome).blocks == expected
        blocks = [placed.block for placed in expected]
        for block, following in itertools.pairwise(blocks):
            assert (block.out_channels, block.out_resolution) == (following.in_channels, following.resolution)
        by_slot = {placed.slot: placed.block for placed in expected}
        for slot, number in zip(slots, row, strict=True):
            assert (number == ABSENT) == (slot not in by_slot)
            assert number == ABSENT or space.blocks[number] == by_slot[slot]


@PROPERTY
@given(layouts(max_depth=2))
def test_every_network_is_lowered_and_every_block_and_table_entry_is_used(layout: Layout) -> None:
    space = NetworkSpace(layout)
    genomes = every_network(space)
    assert len(genomes) == space.count()
    numbers = space.block_numbers(genomes)
    assert (numbers != UNREACHABLE).all()
    assert set(numbers.ravel().tolist()) - {ABSENT} == set(range(len(space.blocks)))
    keys = [block_key(block) for block in space.blocks]
    assert len(set(keys)) == len(keys)
    for slot in space.slots:
        # Entries that no genome points to are marked, so that a wrong look-up cannot pass for a cost.
        pointed = np.zeros(len(slot.table), dtype=bool)
        pointed[slot.entries(genomes)] = True
        assert (pointed | (slot.table == UNREACHABLE) | (slot.table == ABSENT)).all(), slot.name


@PROPERTY
@given(layouts(max_depth=2))
def test_networks_that_differ_in_a_gene_differ_in_a_block(layout: Layout) -> None:
    space = NetworkSpace(layout)
    numbers = space.block_numbers(every_network(space))
    assert len(np.unique(numbers, axis=0)) == space.count()


@PROPERTY
@given(layouts())
def test_slot_families_hold_every_block_that_may_stand_there(layout: Layout) -> None:
    space = NetworkSpace(layout)
    families = space.slot_families()
    assert list(families) == [slot.name for slot in space.slots]
    for slot in space.slots:
        listed = [block for blocks in families[slot.name].values() for block in blocks]
        assert {block_key(block) for block in listed} == {
            block_key(space.blocks[number]) for number in slot.table.tolist() if number >= 0
        }
        assert len(listed) == len(set(listed))
        assert all(block.family == family for family, blocks in families[slot.name].items() for block in blocks)


def test_blocks_below_the_smallest_depth_always_exist() -> None:
    space = NetworkSpace(with_stage(depth=(2, 3)))
    numbers = space.block_numbers(every_network(space))
    absent = {slot.name: bool((numbers[:, i] == ABSENT).any()) for i, slot in enumerate(space.slots)}
    assert [name for name, sometimes in absent.items() if sometimes] == ["stage1.block3"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"input": ImageInput(channels=3, resolution=8, classes=2)},
        {"input": ImageInput(channels=1, resolution=16, classes=2)},
        {"input": ImageInput(channels=1, resolution=8, classes=3)},
        {"stem_kernel": 5},
        {"stem_stride": 4},
        {"head_features": 8},
        {"stages": (STAGE,)},
        {"stages": (STAGE, dataclasses.replace(STAGE, width=(32,)))},
        {"stages": (STAGE, dataclasses.replace(STAGE, depth=(1, 2)))},
        {
            "stages": (
                STAGE,
                dataclasses.replace(STAGE, operators=(dataclasses.replace(MBCONV, sizes=MBCONV.sizes[::-1]),)),
            )
        },
    ],
    ids=lambda change: ",".join(change),
)
def test_the_hash_changes_with_the_layout(change: dict[str, Any]) -> None:
    # Genes alone do not say how many channels the images have: equal genes may mean other networks.
    assert NetworkSpace(dataclasses.replace(LAYOUT, **change)).hash != NetworkSpace(LAYOUT).hash
    assert NetworkSpace(dataclasses.replace(LAYOUT)).hash == NetworkSpace(LAYOUT).hash


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (dataclasses.replace(LAYOUT, stages=()), "stages"),
        (with_input(resolution=6), "6 must be a multiple of 4"),
        (with_input(channels=0), "channels must be at least 1"),
        (with_input(resolution=0), "resolution must be at least"),
        (with_input(classes=0), "classes must be at least 1"),
        (with_sizes("mbcon", kernel=(3,)), "unknown block family in stage 1 'mbcon'; did you mean 'mbconv'"),
        (
            with_sizes("mbconv", kernl=(3,), expansion=(2,)),
            "unknown elastic size of mbconv in stage 1 'kernl'; did you mean 'kernel'",
        ),
        (with_stage(width=()), r"stage 1: options must be positive, got \[\]"),
        (with_stage(width=(16, 0)), r"stage 1: options must be positive, got \[16, 0\]"),
        (with_stage(depth=(0, 1)), r"stage 1: options must be positive, got \[0, 1\]"),
        (with_sizes("mbconv", kernel=(-3,), expansion=(2,)), r"stage 1: options must be positive, got \[-3\]"),
        (with_stage(width=(16, 16)), r"'stage1.width' needs distinct options, got \[16, 16\]"),
        (with_stage(operators=()), "operator"),
        (with_stage(operators=(MBCONV, MBCONV)), "must differ; repeated: stage1.block1.mbconv"),
        (dataclasses.replace(LAYOUT, stem_stride=0), "stem"),
        (dataclasses.replace(LAYOUT, stem_stride=-2), "stem"),
        (dataclasses.replace(LAYOUT, stem_kernel=0), "stem"),
        (dataclasses.replace(LAYOUT, head_features=0), "head"),
        (with_sizes("mbconv", kernel=(3,)), "expansion"),
        # Even kernels shrink the image by a pixel.
        (with_sizes("mbconv", kernel=(4,), expansion=(2,)), "kernel"),
        # Blocks of a stage follow one another at one resolution.
        (with_sizes("mbconv", kernel=(3,), expansion=(2,), stride=(1, 2)), "stride"),
        (with_sizes("downsample"), "downsample"),
        (with_sizes("head", features=(3,), classes=(2,)), "head"),
        # Attention heads have 16 channels each.
        (with_stage(width=(24,), operators=(ATTENTION,)), "24"),
        # Width and resolution are the stage's; the position kernel is the same in all attention blocks.
        *(
            pytest.param(
                with_sizes(family, **sizes),
                "elastic size",
                marks=pytest.mark.xfail(strict=True, raises=TypeError, reason="fixed fields pass for elastic sizes"),
            )
            for family, sizes in FIXED_FIELDS
        ),
    ],
)
def test_bad_layouts_are_refused(layout: Layout, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkSpace(layout)
