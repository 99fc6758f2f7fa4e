"""What is counted of networks, against published figures and against the networks themselves."""

from __future__ import annotations

import pytest

from search_spaces.errors import InputError
from search_spaces.spec import NetworkSpec
from tests.search_spaces import known_networks as known

# timm's results table (benchmark-infer-amp-nchw-pt291-cu130-5090.csv): millions of parameters, GMACs and millions of
# activations at 224 pixels, each rounded to 0.01.
PUBLISHED = {
    "mobilenetv2_100": (known.mobilenet_v2(), 3.50, 0.31, 6.68),
    "mobilenetv3_large_100": (known.mobilenet_v3_large(), 5.48, 0.23, 4.41),
    "efficientnet_b0": (known.efficientnet_b0(), 5.29, 0.40, 6.75),
    "convnext_atto": (known.convnext((40, 80, 160, 320), (2, 2, 6, 2)), 3.70, 0.55, 3.81),
    "convnext_tiny": (known.convnext((96, 192, 384, 768), (3, 3, 9, 3)), 28.59, 4.47, 13.44),
    "shvit_s1": (known.shvit_s1(), 6.31, 0.24, 1.39),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_counted_as_published(name: str) -> None:
    network, params, macs, activations = PUBLISHED[name]
    assert network.params() / 1e6 == pytest.approx(params, rel=0.01)
    assert network.activations() / 1e6 == pytest.approx(activations, abs=0.0051)
    # Convention: timm counts with fvcore, which adds 2 for every element that a batch norm makes, and more for a layer
    # norm. For us a batch norm is folded away, and no norm is a multiply-accumulate.
    assert network.macs() / 1e9 <= macs + 0.005
    if "convnext" in name:
        assert network.macs() / 1e9 == pytest.approx(macs, rel=0.05)
    else:
        assert (network.macs() + 2 * network.activations()) / 1e9 == pytest.approx(macs, abs=0.0051)


@pytest.mark.parametrize("millions", known.OFA_NETWORKS)
def test_published_networks_of_once_for_all_have_the_macs_in_their_names(millions: int) -> None:
    stages, resolution = known.OFA_NETWORKS[millions]
    assert known.ofa_mobilenet_v3(stages, resolution).macs() / 1e6 == pytest.approx(millions, rel=0.01)


def test_weights_take_the_bytes_of_their_precision() -> None:
    network = known.mobilenet_v2()
    # Batch norms are folded: kernels and matrices, and a bias per output channel.
    channels = sum(layer.channels for placed in network for layer in placed.block.layers())
    matrices = sum(layer.weights for placed in network for layer in placed.block.layers())
    assert network.weight_bytes("fp32") == 4 * (matrices + channels)
    assert network.weight_bytes("fp16") == 2 * (matrices + channels)
    assert network.weight_bytes("int8") == matrices + 8 * channels
    with pytest.raises(InputError, match=r"unknown precision 'int4'; did you mean 'int8'\?"):
        network.weight_bytes("int4")


def test_the_peak_is_where_most_is_alive() -> None:
    # MobileNetV2: the depthwise convolution of the second block, which halves the side of 96 channels.
    assert known.mobilenet_v2().peak_elements() == (112**2 + 56**2) * 96


def test_what_waits_for_an_addition_is_alive() -> None:
    network: NetworkSpec = known.shvit_s1()
    block = network.blocks[-2].block
    own = block.resolution**2 * block.in_channels
    # The MLP's second layer: twice the channels in, the channels out, and as much waiting.
    assert block.peak_elements() == 4 * own
