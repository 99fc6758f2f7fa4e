from __future__ import annotations

import dataclasses
import json
from dataclasses import fields
from typing import Any

import pytest

from search_spaces.blocks import (
    FAMILIES,
    AttentionSpec,
    ConvNeXtSpec,
    FusedMBConvSpec,
    HeadSpec,
    MBConvSpec,
    PatchifySpec,
    SingleHeadSpec,
    StemSpec,
)
from search_spaces.errors import InputError
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock, block_fields, block_key, largest_spec

STEM = StemSpec(in_channels=3, out_channels=16, resolution=8, kernel=3, stride=2)
SIZES: dict[str, Any] = {"channels": 16, "resolution": 4, "kernel": 3}
HEAD = HeadSpec(in_channels=16, resolution=4, features=5, classes=2)


def test_a_key_names_family_and_every_field() -> None:
    # Keys of latency tables on disk: a change makes them useless.
    assert block_key(MBConvSpec(in_channels=16, out_channels=24, resolution=12, kernel=3, expansion=2)) == (
        '{"activation":"relu","expansion":2,"family":"mbconv","in_channels":16,"kernel":3,"out_channels":24,'
        '"resolution":12,"squeeze":"none","stride":1}'
    )
    assert json.loads(block_key(STEM)) == block_fields(STEM)


def test_blocks_that_differ_in_family_alone_have_different_keys() -> None:
    one, other = (
        kind(in_channels=16, out_channels=16, resolution=4, kernel=3, expansion=2)
        for kind in (MBConvSpec, FusedMBConvSpec)
    )
    assert block_key(one) != block_key(other)
    assert block_key(one).replace("mbconv", "fused_mbconv") == block_key(other)


def test_a_network_sums_its_blocks_and_starts_with_an_image() -> None:
    network = NetworkSpec((PlacedBlock("stem", STEM), PlacedBlock("head", HEAD)))
    assert [placed.slot for placed in network] == ["stem", "head"]
    assert network.input_shape == (3, 8, 8)
    assert network.macs() == 16 * 16 * 3 * 9 + (16 * 5 + 5 * 2)
    assert network.params() == (16 * 3 * 9 + 2 * 16) + (17 * 5 + 6 * 2)


def test_the_largest_spec_has_every_number_at_its_largest() -> None:
    specs = [
        MBConvSpec(in_channels=16, out_channels=32, resolution=8, kernel=5, expansion=1),
        MBConvSpec(in_channels=32, out_channels=16, resolution=8, kernel=3, expansion=4),
    ]
    largest = MBConvSpec(in_channels=32, out_channels=32, resolution=8, kernel=5, expansion=4)
    assert largest_spec(specs) == largest
    assert largest_spec(reversed(specs)) == largest
    assert largest_spec([largest]) == largest


def test_words_are_no_sizes() -> None:
    narrow, wide = ConvNeXtSpec(**SIZES, expansion=1), ConvNeXtSpec(**SIZES, expansion=2)
    assert largest_spec([narrow, wide]) == wide
    with pytest.raises(ValueError, match="convnext: norm must agree within a slot, got"):
        largest_spec([narrow, ConvNeXtSpec(**SIZES, expansion=2, norm="batch")])


def test_unknown_words_are_refused() -> None:
    with pytest.raises(InputError, match=r"^unknown norm of convnext 'bath'; did you mean 'batch'\?"):
        ConvNeXtSpec(**SIZES, expansion=1, norm="bath")
    with pytest.raises(InputError, match="unknown activation of stem 'gelu'"):
        dataclasses.replace(STEM, activation="gelu")


def test_the_largest_of_several_families_or_of_nothing_is_refused() -> None:
    mixed: list[BlockSpec] = [STEM, HEAD]
    with pytest.raises(ValueError, match=r"one family expected, got \['head', 'stem'\]"):
        largest_spec(mixed)
    with pytest.raises(ValueError, match=r"one family expected, got \[\]"):
        largest_spec([])


MAY_BE_NOTHING = {("attention", "heads"), ("head", "expanded"), ("head", "features"), ("single_head", "attended")}


def numbers(family: str) -> dict[str, Any]:
    """Return a size for every field that is one."""
    return {field.name: 16 for field in fields(FAMILIES[family]) if field.type != "str"}


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_below_one_are_refused(family: str) -> None:
    kind = FAMILIES[family]
    sizes = numbers(family) | ({"kernel": 3} if "kernel" in numbers(family) else {})
    assert kind(**sizes).family == family
    for name in sizes:
        least = 0 if (family, name) in MAY_BE_NOTHING else 1
        for value in (least - 1, -16):
            with pytest.raises(InputError, match=f"^{family}: {name} must be at least {least}, got {value}$"):
                kind(**sizes | {name: value})
        if not least:
            kind(**sizes | {name: 0})


@pytest.mark.parametrize("family", ["stem", "mbconv", "fused_mbconv", "convnext"])
def test_even_kernels_are_refused(family: str) -> None:
    # Padded by as much on both sides, they would make the image a pixel smaller.
    sizes = numbers(family)
    with pytest.raises(InputError, match=f"^{family}: kernel must be odd, got 16$"):
        FAMILIES[family](**sizes)


def test_attention_has_whole_heads() -> None:
    with pytest.raises(InputError, match="24 channels are no multiple of 16 per head"):
        AttentionSpec(channels=24, resolution=4, expansion=1)


def test_patches_tile_the_image() -> None:
    with pytest.raises(InputError, match="patches of 4 pixels do not tile an image of 30"):
        PatchifySpec(in_channels=3, out_channels=16, resolution=30, patch=4)


def test_no_more_channels_are_attended_than_there_are() -> None:
    with pytest.raises(InputError, match="single_head: 32 attended channels of 16"):
        SingleHeadSpec(channels=16, resolution=4, attended=32, expansion=2)


def test_a_fractional_expansion_makes_whole_channels() -> None:
    assert MBConvSpec(in_channels=80, out_channels=80, resolution=4, kernel=3, expansion=2.3).hidden_channels == 184
    with pytest.raises(InputError, match=r"16 channels times 2\.3 are no whole number of channels"):
        MBConvSpec(in_channels=16, out_channels=80, resolution=4, kernel=3, expansion=2.3)
