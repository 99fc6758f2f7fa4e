"""Frozen batch norm folded at every call: the same network, the same gradients, nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.supernet import Network, recalibrate
from nas.tune_mode import TunedLayer, tune_mode
from search_spaces.catalogue import find_space
from tests.nas.torch_helpers import one_thread


def network_of(space_name: str, seed: int) -> tuple[Network, Tensor]:
    """Return a random network of a space, its batch norm calibrated, and images for it."""
    space = find_space(space_name, channels=1, classes=10)
    spec = space.lower(space.sample(1, np.random.default_rng(seed))[0])
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(16, *spec.input_shape, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(spec)
    recalibrate(network, [images], network)
    return network, images


def gradients(network: Network, images: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    network(images).square().sum().backward()
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


@pytest.mark.parametrize(("space", "seed"), [("tiny", 0), ("tiny", 1), ("tiny", 2), ("cifar", 0), ("cifar", 1)])
def test_the_network_computes_the_same_and_is_then_as_it_was(space: str, seed: int) -> None:
    with one_thread():
        network, images = network_of(space, seed)
        names = list(network.state_dict())
        plain, expected = network(images).detach(), gradients(network, images)
        with tune_mode(network, [images], "fp32"):
            network.train()  # as the training loop does
            torch.testing.assert_close(network(images).detach(), plain, rtol=1e-4, atol=1e-5)
            found = gradients(network, images)
            assert any(isinstance(each, TunedLayer) for each in network.modules())
        network.eval()
        assert list(network.state_dict()) == names
        assert not any(isinstance(each, TunedLayer) for each in network.modules())
        assert torch.equal(network(images).detach(), plain), "statistics changed meanwhile"
    assert len(found) == len(expected) > 10
    for grads in zip(
        sorted(each.norm() for each in found.values()), sorted(each.norm() for each in expected.values()), strict=True
    ):
        torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)


def test_what_is_learned_in_the_block_stays_learned() -> None:
    with one_thread():
        network, images = network_of("tiny", 0)
        with tune_mode(network, [images], "fp32"):
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.mul_(0.9)
            inside = network(images).detach()
        torch.testing.assert_close(network(images).detach(), inside, rtol=1e-4, atol=1e-5)


def test_8_bits_round_a_little_and_let_gradients_through() -> None:
    with one_thread():
        network, images = network_of("tiny", 0)
        plain = network(images).detach()
        with tune_mode(network, [images], "int8"):
            rounded = network(images).detach()
            assert all(bool((each != 0).any()) for each in gradients(network, images).values())
        apart = float((rounded - plain).abs().max() / plain.abs().max())
        assert 1e-4 < apart < 0.2


def test_a_failure_inside_leaves_the_network_as_it_was() -> None:
    network, images = network_of("tiny", 0)
    with pytest.raises(RuntimeError, match="stopped"), tune_mode(network, [images], "fp32"):
        raise RuntimeError("stopped")
    assert not any(isinstance(each, TunedLayer) for each in network.modules())
