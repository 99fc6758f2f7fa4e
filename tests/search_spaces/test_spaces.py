"""What every named space promises; a space joins by being in the catalogue."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.supernet import Network, Supernet, check_forward, extract
from predictors.space_summary import blocks_by_resolution
from search_spaces.catalogue import SPACES, find_space
from search_spaces.errors import InputError
from search_spaces.language import ABSENT, NetworkSpace
from search_spaces.network_file import network_json, read_network
from search_spaces.ofa import ofa_mbv3
from search_spaces.space import Genomes
from tests.search_spaces import known_networks as known
from tests.search_spaces.reference import blocks_of

each_space = pytest.mark.parametrize("name", SPACES)


@functools.cache
def space_of(name: str) -> NetworkSpace:
    return find_space(name, channels=3, classes=10)


def drawn(name: str, n: int) -> Genomes:
    """Return random networks of a space, shallow and deep ones, and both ends."""
    space, rng = space_of(name), np.random.default_rng(0)
    genomes = np.concatenate([space.sample(n - n // 2, rng), space.sample_uniform(n // 2, rng)])
    ends = [space.resize(genomes[:1], largest=largest) for largest in (False, True)]
    return np.concatenate([*ends, genomes])


@each_space
def test_bulk_lookup_equals_slow_lowering(name: str) -> None:
    space, genomes = space_of(name), drawn(name, 300)
    numbers = space.block_numbers(genomes)
    for genome, row in zip(genomes, numbers, strict=True):
        used = tuple(space.blocks[number] for number in row if number != ABSENT)
        slow = blocks_of(space.layout, space.decode(genome))
        assert used == tuple(placed.block for placed in slow)
        assert space.lower(genome).blocks == slow
        for before, after in itertools.pairwise(used):
            assert (before.out_channels, before.out_resolution) == (after.in_channels, after.resolution)


@each_space
def test_every_tap_of_a_kernel_meets_a_pixel(name: str) -> None:
    # Otherwise networks that differ in that kernel alone would be the same function, counted twice.
    for block in space_of(name).blocks:
        kernel = getattr(block, "kernel", 1)
        assert kernel // 2 < block.resolution or block.role == "stem"


@each_space
def test_subnets_run_and_equal_their_extracted_copies(name: str) -> None:
    space = space_of(name)
    supernet = Supernet(space, seed=0)
    check_forward(supernet, [space.lower(genome) for genome in drawn(name, 2)])


@each_space
@pytest.mark.parametrize("n", [6, pytest.param(198, marks=pytest.mark.slow)])
def test_networks_are_counted_as_torch_counts_them(name: str, n: int) -> None:
    space = space_of(name)
    for genome in drawn(name, n):
        spec = space.lower(genome)
        # Without memory or arithmetic: shapes are all that is counted.
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            network = Network(spec).eval()
            network(torch.empty(1, *spec.input_shape))
        assert spec.macs() == counter.get_total_flops() / 2
        assert spec.params() == sum(parameter.numel() for parameter in network.parameters())


@each_space
def test_networks_survive_json(name: str) -> None:
    space = space_of(name)
    for genome in drawn(name, 20):
        network = space.lower(genome)
        text = network_json(network)
        again = read_network(text, source="here")
        assert again == network
        assert network_json(again) == text


@each_space
def test_equal_networks_are_equal_genomes(name: str) -> None:
    space, genomes = space_of(name), drawn(name, 2000)
    assert (space.canonical(genomes) == genomes).all()
    numbers = space.block_numbers(space.unique(genomes))
    assert len(np.unique(numbers, axis=0)) == len(numbers)


def test_cifar_has_an_operator_to_choose_in_every_block() -> None:
    space = space_of("cifar")
    assert space.count() >= 10**15
    assert space.layout.input.resolutions == (32,)
    families = {slot: set(kinds) for slot, kinds in space.slot_families().items() if ".block" in slot}
    assert all(len(kinds) >= 2 for slot, kinds in families.items() if not slot.endswith("block1"))
    assert set.union(*families.values()) == {"mbconv", "convnext", "attention", "single_head"}


@pytest.mark.parametrize("name", ["mobile", "mobile-int8"])
def test_mobile_spaces_are_large_and_quick_to_measure(name: str) -> None:
    space = space_of(name)
    assert space.count() >= 10**20
    assert space.layout.input.resolutions == (128, 160, 192, 224)
    assert len(space.blocks) <= 1000
    assert max(len(numbers) for numbers in blocks_by_resolution(space).values()) <= 250
    for slot, families in space.slot_families().items():
        for family, blocks in families.items():
            # Fixed per stage, or a table would have twice as many blocks.
            words = {(getattr(b, "activation", ""), getattr(b, "squeeze", "")) for b in blocks}
            assert len(words) == 1, f"{slot} {family}"
            if family in {"attention", "single_head"}:
                assert max(block.resolution for block in blocks) <= 14


def test_int8_networks_keep_to_what_int8_is_good_at() -> None:
    for block in space_of("mobile-int8").blocks:
        assert block.family in {"stem", "mbconv", "fused_mbconv", "head"}
        fields = dataclasses.asdict(block)
        assert fields["activation"] == "relu"
        assert fields.get("squeeze", "none") == "none"


def test_the_space_of_once_for_all_is_exactly_that() -> None:
    assert space_of("ofa-mbv3").count() == 7371**5 == 21_758_655_492_572_485_851
    sides = find_space("ofa-mbv3:width=1.0,resolution=160/192/224", channels=3, classes=1000)
    assert sides.count() == 3 * 7371**5
    assert sides.layout.input.resolutions == (160, 192, 224)
    assert sides.layout.sharing.kernel_transforms


@pytest.mark.parametrize("millions", known.OFA_NETWORKS)
def test_published_networks_are_in_the_space_of_once_for_all(millions: int) -> None:
    stages, resolution = known.OFA_NETWORKS[millions]
    space = ofa_mbv3(3, 1000, width=1.2, resolution=(resolution,))
    options = {f"stage{n}.depth": len(blocks) for n, blocks in enumerate(stages, start=2)}
    for n, blocks in enumerate(stages, start=2):
        for number, (kernel, expansion) in enumerate(blocks, start=1):
            options |= {f"stage{n}.block{number}.mbconv.kernel": kernel}
            options |= {f"stage{n}.block{number}.mbconv.expansion": expansion}
    genome = space.canonical(
        np.array([[g.options.index(options.get(g.name, g.options[0])) for g in space.genes]], dtype=np.int16)
    )
    network = space.lower(genome[0])
    expected = known.ofa_mobilenet_v3(stages, resolution)
    assert [placed.block for placed in network] == [placed.block for placed in expected]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ofa-mbv3:width=1.1", "published at width 1.0 and 1.2, not 1.1"),
        ("ofa-mbv3:width=wide", "width='wide' cannot be read"),
        ("ofa-mbv3:resolution=", "resolution='' cannot be read"),
        ("ofa-mbv3:resolution=192/192", "resolution must be distinct"),
        ("ofa-mbv3:with=1.2", "unknown option of space 'ofa-mbv3' 'with'; did you mean 'width'"),
        ("tiny:width=1.2", r"unknown option of space 'tiny' 'width' \(known: none\)"),
        ("tinny", "unknown space 'tinny'; did you mean 'tiny'"),
        ("absent.toml", "there is no file absent.toml"),
    ],
)
def test_bad_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_space(name, channels=3, classes=10)


def test_sorting_channels_leaves_the_largest_network_as_it_is() -> None:
    space = space_of("cifar")
    supernet = Supernet(space, seed=0).eval()
    rng = np.random.default_rng(0)
    largest = space.resize(space.sample(6, rng), largest=True)
    specs = [space.lower(genome) for genome in largest]
    image = torch.randn(2, *specs[0].input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = [supernet(image, spec) for spec in specs]
        weights = extract(supernet, specs[0]).state_dict()
        supernet.sort_channels()
        after = [supernet(image, spec) for spec in specs]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    moved = extract(supernet, specs[0]).state_dict()
    assert any(not torch.equal(weights[name], moved[name]) for name in weights)
