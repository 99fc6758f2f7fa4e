"""What every named space promises; a space joins by being in the catalogue."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.onnx_export import export_network
from nas.runtime import open_session
from nas.sandwich import LARGEST, Sandwich
from nas.supernet import Network, Supernet, check_forward, extract, scaled
from predictors.additive import AdditiveCost, largest_over_blocks
from predictors.space_summary import blocks_by_resolution
from search_spaces.blocks import build_module
from search_spaces.blocks.layers import copy_slices
from search_spaces.catalogue import SPACES, find_space
from search_spaces.errors import InputError
from search_spaces.language import ABSENT, NetworkSpace
from search_spaces.network_file import network_json, read_network
from search_spaces.ofa import ofa_mbv3
from search_spaces.space import Genomes
from search_spaces.spec import BlockSpec, largest_spec
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


HASHES = {
    "tiny": "492fcbaf3486abb3",
    "cifar": "256df0e3b0a565d8",
    "mobile": "2561db58bf345177",
    "mobile-int8": "69755d2b439bb0b1",
    "ofa-mbv3": "b7ec4ff9d7c7b36d",
}
"""With three channels and ten classes. With another hash no run, table or ledger of the space can be read."""


@each_space
def test_a_named_space_keeps_its_hash(name: str) -> None:
    assert find_space(name, channels=3, classes=10).hash == HASHES[name]


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
def test_larger_sizes_never_cost_less(name: str) -> None:
    space, genomes = space_of(name), drawn(name, 100)
    macs = AdditiveCost.of(space, lambda block: block.macs())
    params = AdditiveCost.of(space, lambda block: block.params())
    peaks = [block.peak_elements() for block in space.blocks]
    active = space.active(genomes)
    for position, gene in enumerate(space.genes):
        if not gene.ordinal:
            continue
        order = np.argsort([float(option) for option in gene.options])
        rows = genomes[active[:, position]]
        for smaller, larger in itertools.pairwise(order):
            few, many = rows.copy(), rows.copy()
            few[:, position], many[:, position] = smaller, larger
            few, many = space.canonical(few), space.canonical(many)
            # More heads and attended channels, wider, deeper, at larger images: what must not fall, does not.
            assert (macs.predict(few) < macs.predict(many)).all(), gene.name
            assert (params.predict(few) <= params.predict(many)).all(), gene.name
            assert (largest_over_blocks(space, peaks, few) <= largest_over_blocks(space, peaks, many)).all(), gene.name


@each_space
@pytest.mark.slow
def test_exported_networks_compute_what_torch_computes(name: str) -> None:
    space = space_of(name)
    supernet = Supernet(space, seed=0).eval()
    for spec in [space.lower(genome) for genome in drawn(name, 2)[[0, 2, 3]]]:
        network = extract(supernet, spec)
        x = torch.randn(1, *spec.input_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = network(x).numpy()
        session = open_session(export_network(network).SerializeToString())
        (computed,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert np.abs(computed - expected).max() <= 1e-4


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


def disordered(supernet: Supernet) -> None:
    """Give a supernet weights in which no two channels are alike and signals of all depths reach the logits."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in supernet.state_dict().items():
        if tensor.dim() == 1 and name.endswith(("weight", "running_var", "gamma")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.uniform_(-0.1, 0.1, generator=generator)
        elif tensor.dim() > 1 and ".transforms." not in name:
            tensor.normal_(std=(2.0 / tensor[0].numel()) ** 0.5, generator=generator)


# Channels whose order means something: those before and after a first block that may be residual across stages, and
# those of which an attention head mixes the first ones. Inner channels of all blocks are sorted everywhere.
UNMOVED: dict[str, set[str]] = {
    "tiny": set(),
    "cifar": set(),
    "mobile": {"stem", "stage1_block1", "head"},
    "mobile-int8": {"stem", "stage1_block1"},
    "ofa-mbv3": {"stem", "stage1_block1"},
}


@each_space
def test_sorting_channels_leaves_the_largest_networks_as_they_are(name: str) -> None:
    space = space_of(name)
    # In double precision: what is nearly equal in single may be told apart by the softmax of large scores.
    supernet = Supernet(space, seed=0).double().eval()
    disordered(supernet)
    sandwich = Sandwich(space, seed=0)
    genomes = np.concatenate([sandwich.subnets(step)[[LARGEST]] for step in range(sandwich.cycle)])
    # At the smallest side, which changes no weights.
    if "resolution" in space.names:
        genomes[:, space.index("resolution")] = 0
    specs = [space.lower(genome) for genome in genomes]
    image = torch.randn(2, *specs[0].input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
    with torch.no_grad():
        outputs = [supernet(image, spec) for spec in specs]
        supernet.sort_channels()
        for spec, expected in zip(specs, outputs, strict=True):
            scale = float(expected.abs().max())
            assert float((expected[0] - expected[1]).abs().max()) > 1e-2 * scale, "the images do not matter"
            torch.testing.assert_close(supernet(image, spec), expected, rtol=0, atol=1e-4 * scale)
    after = supernet.state_dict()
    slots = {key.split(".")[1] for key in before}
    assert slots - {key.split(".")[1] for key in before if not torch.equal(after[key], before[key])} == UNMOVED[name]


def test_the_channels_between_blocks_are_sorted_by_all_that_read_them() -> None:
    space = space_of("tiny")
    supernet = Supernet(space, seed=0)
    disordered(supernet)
    supernet.sort_channels()
    for stage, depth in ((1, 2), (2, 3), (3, 3)):
        slots: Any = supernet.slots
        readers = [slots[f"stage{stage}_block{block}"] for block in range(1, depth + 1)]
        readers.append(slots["head" if stage == 3 else f"stage{stage + 1}_downsample"])
        importance = torch.stack([block.input_importance() for slot in readers for block in slot.values()]).sum(0)
        assert (importance.diff() <= 1e-5 * importance.max()).all()


@each_space
def test_images_of_another_side_are_scaled_to_what_the_network_takes(name: str) -> None:
    space = space_of(name)
    spec = space.lower(drawn(name, 1)[0])
    side = spec.input_shape[1]
    images = torch.rand(2, 3, 2 * side, 2 * side, generator=torch.Generator().manual_seed(0))
    smaller = scaled(images, side)
    assert smaller.shape == (2, *spec.input_shape)
    # With antialiasing every pixel of the image counts.
    assert float(smaller.mean()) == pytest.approx(float(images.mean()), abs=2e-3)
    assert float(smaller.std()) < 0.6 * float(images.std())
    supernet = Supernet(space, seed=0).eval()
    with torch.no_grad():
        assert torch.equal(supernet(images, spec), supernet(smaller, spec))
        network = extract(supernet, spec)
        assert torch.equal(network(images), network(smaller))


@each_space
def test_every_block_of_a_space_is_elastic(name: str) -> None:
    pairs: dict[tuple[BlockSpec, BlockSpec], None] = {}
    for families in space_of(name).slot_families().values():
        for blocks in families.values():
            # At one small side: sizes of weights, of which this is about, do not depend on it.
            small = [dataclasses.replace(block, resolution=8) for block in blocks]
            pairs |= {(spec, largest_spec(small)): None for spec in small}
    modules: dict[BlockSpec, torch.nn.Module] = {}
    for spec, largest in pairs:
        elastic = modules.setdefault(largest, build_module(largest).eval())
        standalone = build_module(spec).eval()
        copy_slices(elastic, standalone)
        x = torch.randn(1, spec.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(elastic(x, spec), standalone(x), rtol=0, atol=1e-5)
