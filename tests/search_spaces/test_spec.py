from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest

from search_spaces.blocks import FAMILIES, AttentionSpec, ConvNeXtSpec, HeadSpec, MBConvSpec, StemSpec
from search_spaces.errors import InputError
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock, block_fields, block_key, largest_spec

STEM = StemSpec(in_channels=3, out_channels=16, resolution=8, kernel=3, stride=2)
HEAD = HeadSpec(in_channels=16, resolution=4, features=5, classes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordySpec:
    """A block with a word among its fields."""

    family: ClassVar[str] = "wordy"

    in_channels: int
    activation: str
    out_channels: int = 1
    resolution: int = 1
    out_resolution: int = 1

    def macs(self) -> int:
        return 0

    def params(self) -> int:
        return 0


def test_a_key_names_family_and_every_field() -> None:
    # Keys of latency tables on disk: a change makes them useless.
    assert block_key(MBConvSpec(in_channels=16, out_channels=24, resolution=12, kernel=3, expansion=2)) == (
        '{"expansion":2,"family":"mbconv","in_channels":16,"kernel":3,"out_channels":24,"resolution":12,"stride":1}'
    )
    assert json.loads(block_key(STEM)) == block_fields(STEM)


def test_blocks_that_differ_in_family_alone_have_different_keys() -> None:
    sizes = {"channels": 16, "resolution": 4, "expansion": 2}
    assert block_key(AttentionSpec(**sizes)) != block_key(ConvNeXtSpec(**sizes, kernel=3))
    twin = WordySpec(in_channels=1, activation="relu")
    assert {field.name for field in fields(twin)} | {"family"} == set(block_fields(twin))


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
    relu, wide = WordySpec(in_channels=1, activation="relu"), WordySpec(in_channels=2, activation="relu")
    assert largest_spec([relu, wide]) == wide
    with pytest.raises(ValueError, match="wordy: activation must agree within a slot, got"):
        largest_spec([relu, WordySpec(in_channels=1, activation="gelu")])


def test_the_largest_of_several_families_or_of_nothing_is_refused() -> None:
    mixed: list[BlockSpec] = [STEM, HEAD]
    with pytest.raises(ValueError, match=r"one family expected, got \['head', 'stem'\]"):
        largest_spec(mixed)
    with pytest.raises(ValueError, match=r"one family expected, got \[\]"):
        largest_spec([])


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_below_one_are_refused(family: str) -> None:
    kind = FAMILIES[family]
    sizes: dict[str, Any] = {field.name: 3 if field.name == "kernel" else 16 for field in fields(kind)}
    assert kind(**sizes).family == family
    for name in sizes:
        for value in (0, -16):
            with pytest.raises(InputError, match=f"^{family}: {name} must be at least 1, got {value}$"):
                kind(**sizes | {name: value})


@pytest.mark.parametrize("family", ["stem", "mbconv", "convnext"])
def test_even_kernels_are_refused(family: str) -> None:
    # Padded by as much on both sides, they would make the image a pixel smaller.
    sizes: dict[str, Any] = {field.name: 16 for field in fields(FAMILIES[family])}
    with pytest.raises(InputError, match=f"^{family}: kernel must be odd, got 16$"):
        FAMILIES[family](**sizes)


def test_attention_has_whole_heads() -> None:
    with pytest.raises(InputError, match="24 channels are no multiple of 16 per head"):
        AttentionSpec(channels=24, resolution=4, expansion=1)
