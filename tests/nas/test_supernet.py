"""One set of weights for all networks: extraction, seeds, and batch norm recalibrated for one subnet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.supernet import Supernet, channels_last, extract, recalibrate
from search_spaces.language import NetworkSpace
from search_spaces.spec import NetworkSpec
from search_spaces.tiny import tiny
from tests.nas.torch_helpers import one_thread, same_state, scramble, state_of

SPACE = tiny(channels=3, classes=7)


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    """Weights in which everything counts; for reading only."""
    model = Supernet(SPACE, seed=0)
    scramble(model, seed=1)
    return model.eval()


def images(count: int, *, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


def spec_of(seed: int, space: NetworkSpace = SPACE) -> NetworkSpec:
    return space.lower(space.sample(1, np.random.default_rng(seed))[0])


def ends(space: NetworkSpace) -> list[NetworkSpec]:
    drawn = space.sample(1, np.random.default_rng(0))
    return [space.lower(space.resize(drawn, largest=largest)[0]) for largest in (True, False)]


def assert_extraction_is_faithful(supernet: Supernet, spec: NetworkSpec) -> None:
    x = images(4)
    with torch.no_grad():
        inside, alone = supernet(x, spec), extract(supernet, spec)(x)
    assert inside.shape == (4, 7)
    assert inside.std() > 1e-3, "logits that do not depend on the weights would prove nothing"
    torch.testing.assert_close(alone, inside, rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_extracted_network_computes_what_the_supernet_does(supernet: Supernet, seed: int) -> None:
    assert_extraction_is_faithful(supernet, spec_of(seed))


@pytest.mark.parametrize("spec", ends(SPACE), ids=["largest", "smallest"])
def test_the_largest_and_the_smallest_network_are_extracted_faithfully(supernet: Supernet, spec: NetworkSpec) -> None:
    assert_extraction_is_faithful(supernet, spec)


def test_widths_with_layer_scales_of_their_own_do_not_share_them() -> None:
    sharing = dataclasses.replace(SPACE.layout.sharing, switchable_layer_scale=True)
    space = NetworkSpace(dataclasses.replace(SPACE.layout, sharing=sharing))
    model = Supernet(space, seed=0)
    scramble(model, seed=1)
    model.eval()
    for seed in range(12):
        assert_extraction_is_faithful(model, spec_of(seed, space))
    _, smallest = ends(space)
    model(images(2), smallest).sum().backward()
    scales = {
        name.split(".scale.")[1]: parameter.grad is not None
        for placed in smallest
        if placed.block.family == "convnext"
        for name, parameter in model.named_parameters()
        if name.startswith(f"slots.{placed.slot.replace('.', '_')}.convnext.scale.")
    }
    narrow = [str(placed.block.out_channels) for placed in smallest if placed.block.family == "convnext"]
    assert narrow, "no block with a layer scale"
    assert {name for name, trained in scales.items() if trained} == {f"switched.{width}" for width in narrow}


def test_an_extracted_network_has_the_parameters_of_its_spec_and_is_in_evaluation_mode(supernet: Supernet) -> None:
    for seed in range(5):
        spec = spec_of(seed)
        network = extract(supernet, spec)
        assert sum(parameter.numel() for parameter in network.parameters()) == spec.params()
        assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("spec", [*ends(SPACE), spec_of(3)], ids=["largest", "smallest", "random"])
def test_extraction_copies(supernet: Supernet, spec: NetworkSpec) -> None:
    before = state_of(supernet)
    network = extract(supernet, spec)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(9)
    assert same_state(state_of(supernet), before)


def test_the_subnet_is_an_argument_and_leaves_no_trace(supernet: Supernet) -> None:
    x, (first, second) = images(2), (spec_of(1), spec_of(2))
    with torch.no_grad():
        alone = supernet(x, first)
        supernet(x, second)
        again = supernet(x, first)
    assert torch.equal(alone, again)


def test_a_supernet_trains_every_block_that_its_spec_names_and_no_other(supernet: Supernet) -> None:
    model = Supernet(SPACE, seed=0).train()
    spec = spec_of(4)
    model(images(2), spec).sum().backward()
    used = {
        id(parameter) for placed in spec for parameter in model.block(placed.slot, placed.block.family).parameters()
    }
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in used), name


def test_one_seed_gives_one_set_of_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    first = state_of(Supernet(SPACE, seed=5))
    assert torch.equal(torch.rand(3), expected)
    torch.rand(1000)
    assert same_state(state_of(Supernet(SPACE, seed=5)), first)
    assert not same_state(state_of(Supernet(SPACE, seed=6)), first)


def test_channels_last_changes_the_layout_and_not_the_values(supernet: Supernet) -> None:
    spec = spec_of(0)
    network = channels_last(extract(supernet, spec))
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)
    with torch.no_grad():
        x = images(2)
        torch.testing.assert_close(network(x), supernet(x, spec), rtol=0, atol=1e-5)


def test_recalibrated_statistics_are_the_mean_over_the_given_batches(supernet: Supernet) -> None:
    spec = spec_of(0)
    network = extract(supernet, spec)
    # Of unequal sizes: every batch has the same weight.
    batches = [images(6, seed=1), images(10, seed=2) + 1, images(3, seed=3) * 2]
    stem = network.get_submodule("blocks.stem.conv")
    with torch.no_grad():
        features = [stem(batch).transpose(0, 1).flatten(1) for batch in batches]
    recalibrate(network, batches, network)
    norm = network.get_submodule("blocks.stem.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean = torch.stack([each.mean(dim=1) for each in features]).mean(dim=0)
    variance = torch.stack([each.var(dim=1) for each in features]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-5, atol=1e-6)
    assert not any(module.training for module in network.modules())


def test_recalibration_forgets_what_was_run_before_and_keeps_the_weights(supernet: Supernet) -> None:
    spec, batches = spec_of(0), [images(8, seed=1), images(8, seed=2)]
    fresh, used = extract(supernet, spec), extract(supernet, spec)
    used.train()
    with torch.no_grad():
        for _ in range(3):
            used(images(8, seed=9) * 5 + 3)
    recalibrate(fresh, batches, fresh)
    recalibrate(used, batches, used)
    recalibrate(used, batches, used)
    assert same_state(state_of(fresh), state_of(used))
    for name, parameter in extract(supernet, spec).named_parameters():
        assert torch.equal(used.get_parameter(name), parameter)
    # Training after it goes on with the momentum from before it.
    assert all(module.momentum == 0.1 for module in used.modules() if isinstance(module, nn.BatchNorm2d))


def test_other_batches_give_other_statistics(supernet: Supernet) -> None:
    first, second = extract(supernet, spec_of(0)), extract(supernet, spec_of(0))
    recalibrate(first, [images(8, seed=1)], first)
    recalibrate(second, [images(8, seed=2)], second)
    assert not same_state(state_of(first), state_of(second))


def test_a_recalibrated_copy_of_the_supernet_is_the_recalibrated_extracted_network(supernet: Supernet) -> None:
    # The elastic batch norm runs on a prefix of its statistics: it must average them as a plain one does.
    spec, batches = ends(SPACE)[1], [images(8, seed=seed) for seed in range(3)]
    whole = Supernet(SPACE, seed=0)
    whole.load_state_dict(supernet.state_dict())
    network = extract(supernet, spec)
    recalibrate(whole, batches, lambda x: whole(x, spec))
    recalibrate(network, batches, network)
    with torch.no_grad():
        x = images(4)
        torch.testing.assert_close(whole(x, spec), network(x), rtol=0, atol=1e-5)


def test_blocks_that_run_again_give_the_same_gradients_and_keep_less() -> None:
    spec = ends(SPACE)[0]
    gradients, kept = [], []
    for recompute in (False, True):
        model = Supernet(SPACE, seed=0).train()
        scramble(model, seed=1)
        storages: dict[int, int] = {}

        def pack(tensor: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(images(16), spec, recompute=recompute).square().mean()
        kept.append(sum(storages.values()))
        loss.backward()
        gradients.append([each.grad for each in model.parameters()])
    assert sum(each is not None for each in gradients[0]) > 20
    for plain, again in zip(*gradients, strict=True):
        assert (plain is None) == (again is None)
        assert plain is None or torch.equal(plain, again)
    # What goes from block to block is kept as well, which those hooks do not see.
    between = sum(4 * 16 * placed.block.in_channels * placed.block.resolution**2 for placed in spec)
    assert kept[1] + between < 0.5 * kept[0]
