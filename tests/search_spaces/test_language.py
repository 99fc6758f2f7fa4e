from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from search_spaces.errors import InputError
from search_spaces.language import ABSENT, UNREACHABLE, NetworkSpace
from search_spaces.layout import Head, ImageInput, Layout, Operator, Sharing, Stage, Stem
from search_spaces.spec import block_key
from tests.search_spaces.reference import blocks_of, every_network
from tests.search_spaces.strategies import PROPERTY, layouts, seeds

MBCONV = Operator(family="mbconv", sizes=(("kernel", (3,)), ("expansion", (2,))))
ATTENTION = Operator(family="attention", sizes=(("expansion", (1,)),))
STAGE = Stage(width=(16,), depth=(1, 3), operators=(MBCONV,))
FIRST = dataclasses.replace(STAGE, stride=1)
HALVING = dataclasses.replace(STAGE, first="operator")
LAYOUT = Layout(
    name="plain",
    input=ImageInput(channels=1, resolution=8, classes=2),
    stem=Stem(settings=(("kernel", 3), ("stride", 2))),
    stages=(FIRST, STAGE),
    head=Head(settings=(("features", 4),)),
)

ENUMERATED = settings(PROPERTY, max_examples=40)
"""For properties of all networks of a space, of which there may be thousands."""

FIXED_FIELDS: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("convnext", {"kernel": (3,), "expansion": (2,), "channels": (8,)}),
    ("mbconv", {"kernel": (3,), "expansion": (2,), "resolution": (8,)}),
    ("attention", {"expansion": (1,), "position_kernel": (3, 5)}),
]


def with_stage(**changes: Any) -> Layout:
    return dataclasses.replace(LAYOUT, stages=(dataclasses.replace(FIRST, **changes),))


def with_input(**changes: Any) -> Layout:
    return dataclasses.replace(LAYOUT, input=dataclasses.replace(LAYOUT.input, **changes))


def with_stem(*settings: tuple[str, int]) -> Layout:
    return dataclasses.replace(LAYOUT, stem=Stem(settings=settings))


def with_sizes(family: str, **sizes: tuple[float, ...]) -> Layout:
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


@ENUMERATED
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
        pointed[genomes[:, slot.genes] @ slot.strides] = True
        assert (pointed | (slot.table == UNREACHABLE) | (slot.table == ABSENT)).all(), slot.name


@ENUMERATED
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
        {"stem": Stem(settings=(("kernel", 5), ("stride", 2)))},
        {"stem": Stem(settings=(("kernel", 3), ("stride", 4)))},
        {"stem": dataclasses.replace(LAYOUT.stem, width=(16,)), "stages": (HALVING, STAGE)},
        {"head": Head(settings=(("features", 8),))},
        {"sharing": Sharing(kernel_transforms=True)},
        {"sharing": Sharing(layer_scale=1e-6)},
        {"sharing": Sharing(switchable_layer_scale=True)},
        {"stages": (FIRST,)},
        {"stages": (FIRST, dataclasses.replace(STAGE, width=(32,)))},
        {"stages": (FIRST, dataclasses.replace(STAGE, depth=(1, 2)))},
        {
            "stages": (
                FIRST,
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
        (dataclasses.replace(LAYOUT, stages=()), "has no stages; give 1 to 32"),
        (with_input(resolution=6), "at resolution 6, stage 2 is given a side of 3 pixels"),
        (with_input(channels=0), "channels must be at least 1"),
        (with_input(resolution=0), "resolution must be at least"),
        (with_input(classes=0), "classes must be at least 1"),
        (with_input(smaller=(16,)), r"resolution must be the largest one, \(16, 8\)"),
        (with_input(smaller=(8,)), "options of resolution must be distinct"),
        (with_sizes("mbcon", kernel=(3,)), "unknown block family in stage 1 'mbcon'; did you mean 'mbconv'"),
        (
            with_sizes("mbconv", kernl=(3,), expansion=(2,)),
            "unknown setting of mbconv in stage 1 'kernl'; did you mean 'kernel'",
        ),
        (with_stage(width=()), r"stage 1: options of width must be numbers of at least 1, got \[\]"),
        (with_stage(width=(16, 0)), r"stage 1: options of width must be numbers of at least 1, got \[16, 0\]"),
        (with_stage(depth=(0, 1)), r"stage 1: options of depth must be numbers of at least 1, got \[0, 1\]"),
        (with_sizes("mbconv", kernel=(-3,), expansion=(2,)), r"options of mbconv.kernel must be numbers of at least 1"),
        (with_sizes("mbconv", kernel=(0, 3), expansion=(2,)), "options of mbconv.kernel must be numbers of at least 1"),
        (with_sizes("mbconv", kernel=(3.5, 5), expansion=(2,)), "kernel must be a whole number, got 3.5"),
        (with_stage(width=(16, 16)), r"stage 1: options of width must be distinct, got \[16, 16\]"),
        (with_stage(operators=()), "stage 1 has no operators"),
        (with_stage(operators=(MBCONV, MBCONV)), "stage 1: operators must differ; repeated: mbconv"),
        (with_stem(("kernel", 3), ("stride", 0)), "stem: stride must be at least 1"),
        (with_stem(("kernel", 3), ("stride", -2)), "stem: stride must be at least 1"),
        (with_stem(("kernel", 0), ("stride", 2)), "stem: kernel must be at least 1"),
        (with_stem(("kernel", 3)), "stem: stem needs stride"),
        (with_stem(("kernel", 3), ("stride", 2), ("patch", 2)), "unknown setting of stem in stem 'patch'"),
        (with_stem(("kernel", 3), ("stride", 2), ("kernel", 5)), "stem: kernel of stem is set twice"),
        (dataclasses.replace(LAYOUT, stem=Stem(family="mbconv", settings=())), "mbconv is no stem, but a operator"),
        (dataclasses.replace(LAYOUT, head=Head(settings=(("features", -1),))), "head: features must be at least 0"),
        (dataclasses.replace(LAYOUT, head=Head(settings=())), "head needs features"),
        (with_sizes("mbconv", kernel=(3,)), "mbconv needs expansion"),
        # Even kernels shrink the image by a pixel.
        (with_sizes("mbconv", kernel=(4,), expansion=(2,)), "kernel must be odd"),
        # Blocks of a stage follow one another at one resolution.
        (with_sizes("mbconv", kernel=(3,), expansion=(2,), stride=(1, 2)), "unknown setting of mbconv.*'stride'"),
        (with_sizes("mbconv", kernel=(3,), expansion=(2,), squeeze=(1, 2)), "squeeze of mbconv is no size to choose"),
        (with_sizes("downsample"), "downsample is no operator"),
        (with_sizes("head", features=(3,), classes=(2,)), "head is no operator"),
        # Attention heads have 16 channels each.
        (with_stage(width=(24,), operators=(ATTENTION,)), "stage 1: attention: 24 channels"),
        (with_sizes("attention", expansion=(1,), heads=(0, 2)), "attention.heads must be numbers of at least 1"),
        (
            dataclasses.replace(
                LAYOUT, stages=tuple(dataclasses.replace(HALVING, width=tuple(range(1, 251))) for _ in range(2))
            ),
            "with 125000 of stage2.block1, blocks have 1[0-9]{5} settings in all, more than 100000",
        ),
        (
            dataclasses.replace(LAYOUT, stages=(FIRST, *[dataclasses.replace(HALVING, stride=1)] * 32)),
            "has 33 stages; give 1 to 32",
        ),
        (with_stage(stride=3), "stride must be 1 or 2"),
        (with_stage(first="block"), "unknown first block of stage 1 'block'"),
        (with_stage(first="operator", operators=(ATTENTION,)), "none of attention can change width and side"),
        (dataclasses.replace(LAYOUT, stages=(FIRST, FIRST)), "stage 2 has stride 1, so nothing brings"),
        (with_stage(depth=(1,)), "leaves nothing to choose"),
        # Width and resolution are the stage's; the position kernel is the same in all attention blocks.
        *((with_sizes(family, **sizes), "unknown setting") for family, sizes in FIXED_FIELDS),
    ],
)
def test_bad_layouts_are_refused(layout: Layout, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkSpace(layout)
