"""Which weights a slice is, said by hand: the contract suite only shows that elastic and extracted blocks agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.blocks.layers import (
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticImageNorm,
    ElasticLayerNorm,
    ElasticLinear,
    LayerScale,
    SqueezeExcite,
    activate,
    copy_slices,
)
from search_spaces.blocks.words import ACTIVATIONS


def numbered(shape: tuple[int, ...]) -> Tensor:
    """Return a tensor whose elements all differ."""
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape).sin()


def fill(layer: nn.Module) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(numbered(tuple(parameter.shape)))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_dense_convolution_uses_its_first_channels_and_its_central_taps(stride: int) -> None:
    conv = ElasticConv2d(6, 8, 5, stride=stride, bias=True)
    fill(conv)
    assert conv.bias is not None
    x = numbered((2, 3, 6, 6))
    expected = F.conv2d(x, conv.weight[:4, :3, 1:4, 1:4], conv.bias[:4], stride, padding=1)
    assert torch.equal(conv(x, 4, 3), expected)
    # The outer taps of a 7 and a 5 differ; the centre of a 5 is that of its 3.
    assert torch.equal(conv(x, 8, 1), F.conv2d(x, conv.weight[:, :3, 2:3, 2:3], conv.bias, stride))


def test_a_depthwise_convolution_keeps_one_filter_per_channel() -> None:
    conv = ElasticConv2d(6, 6, 5, groups=6)
    fill(conv)
    x = numbered((2, 4, 5, 5))
    expected = F.conv2d(x, conv.weight[:4, :, 1:4, 1:4], None, padding=1, groups=4)
    assert torch.equal(conv(x, 4, 3), expected)


def test_a_layer_at_its_own_sizes_is_the_plain_layer() -> None:
    conv, plain = ElasticConv2d(3, 4, 3, bias=True), nn.Conv2d(3, 4, 3, padding=1)
    plain.load_state_dict(conv.state_dict())
    x = numbered((2, 3, 5, 5))
    assert torch.equal(conv(x), plain(x))
    linear, plain_linear = ElasticLinear(4, 6, sections=3), nn.Linear(4, 6)
    plain_linear.load_state_dict(linear.state_dict())
    assert torch.equal(linear(x.new_ones(2, 4)), plain_linear(x.new_ones(2, 4)))


def test_a_linear_layer_cuts_each_section_on_its_own() -> None:
    linear = ElasticLinear(6, 12, sections=3)
    fill(linear)
    x = numbered((2, 5, 4))
    rows = [0, 1, 4, 5, 8, 9]
    expected = F.linear(x, linear.weight[rows][:, :4], linear.bias[rows])
    assert torch.equal(linear(x, 6), expected)
    plain = ElasticLinear(6, 12)
    fill(plain)
    assert torch.equal(plain(x, 6), F.linear(x, plain.weight[:6, :4], plain.bias[:6]))


def test_layer_norm_normalises_what_it_is_given() -> None:
    norm = ElasticLayerNorm(6)
    fill(norm)
    x = numbered((3, 4)) * 5 + 2
    centred = x - x.mean(-1, keepdim=True)
    variance = x.var(-1, unbiased=False, keepdim=True)
    expected = centred / torch.sqrt(variance + 1e-6) * norm.weight[:4] + norm.bias[:4]
    torch.testing.assert_close(norm(x), expected)


def test_layer_scale_scales_the_last_dimension() -> None:
    scale = LayerScale(4)
    assert scale.gamma.tolist() == pytest.approx([0.1] * 4)
    fill(scale)
    x = numbered((2, 3, 2))
    assert torch.equal(scale(x), x * scale.gamma[:2])


def test_a_size_with_factors_of_its_own_uses_them_and_hands_them_on() -> None:
    scale = LayerScale(5)
    scale.switch([3, 5])
    scale.start_at(0.2)
    assert [factors.tolist() for factors in scale.parameters()] == [pytest.approx([0.2] * n) for n in (5, 3)]
    with torch.no_grad():
        scale.gamma.copy_(torch.arange(1.0, 6.0))
        scale.switched["3"].copy_(torch.tensor([10.0, 20.0, 30.0]))
        alone = {size: LayerScale(size) for size in (2, 3, 5)}
        for layer in alone.values():
            copy_slices(scale, layer)
    expected = {2: [1, 2], 3: [10, 20, 30], 5: [1, 2, 3, 4, 5]}
    for size, factors in expected.items():
        assert scale(torch.ones(2, size)).tolist() == [factors, factors]
        assert alone[size].gamma.tolist() == factors
        assert not alone[size].switched
    with torch.no_grad():
        scale.reorder(torch.tensor([4, 0, 2, 1, 3]))
    assert scale.gamma.tolist() == [5, 1, 3, 2, 4]
    assert scale.switched["3"].tolist() == [5, 10, 30]


def test_batch_norm_learns_the_statistics_of_the_channels_it_sees() -> None:
    norm, plain = ElasticBatchNorm2d(5), nn.BatchNorm2d(3)
    x = numbered((4, 3, 5, 5)) * 3 + 1
    assert torch.equal(norm(x), plain(x))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert plain.running_mean is not None
    assert plain.running_var is not None
    assert torch.equal(norm.running_mean[:3], plain.running_mean)
    assert torch.equal(norm.running_var[:3], plain.running_var)
    assert norm.running_mean[3:].tolist() == [0.0, 0.0]
    assert norm.running_var[3:].tolist() == [1.0, 1.0]
    assert torch.equal(norm.eval()(x), plain.eval()(x))
    assert torch.equal(norm.running_mean[:3], plain.running_mean), "evaluation must not learn"


def test_batch_norm_without_momentum_averages_all_batches() -> None:
    norm, plain = ElasticBatchNorm2d(5), nn.BatchNorm2d(3)
    norm.momentum = plain.momentum = None
    for factor in (1.0, 2.0, 4.0):
        x = numbered((4, 3, 5, 5)) * factor
        assert torch.equal(norm(x), plain(x))
    assert norm.running_var is not None
    assert plain.running_var is not None
    assert torch.equal(norm.running_var[:3], plain.running_var)


def test_copied_slices_do_not_share_memory() -> None:
    source, target = ElasticConv2d(4, 4, 3), ElasticConv2d(4, 4, 3)
    copy_slices(nn.Sequential(source), nn.Sequential(target))
    assert torch.equal(source.weight, target.weight)
    with torch.no_grad():
        target.weight.zero_()
    assert source.weight.abs().min() > 0


def test_parameters_that_nothing_can_cut_are_refused() -> None:
    source = nn.Sequential(ElasticLinear(4, 4), nn.Linear(4, 4))
    target = nn.Sequential(ElasticLinear(4, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"module '1' \(Linear\) has parameters but is not an elastic layer"):
        copy_slices(source, target)


def test_smaller_kernels_are_made_from_larger_ones_one_ring_at_a_time() -> None:
    conv = ElasticConv2d(4, 4, 7, groups=4)
    fill(conv)
    x = numbered((2, 4, 8, 8))
    centre = {kernel: conv(x, 4, kernel) for kernel in (3, 5)}
    conv.learn_kernels()
    # At first they are the centre.
    for kernel, expected in centre.items():
        torch.testing.assert_close(conv(x, 4, kernel), expected)
    five, three = (nn.init.uniform_(conv.transforms[name]) for name in ("5", "3"))
    inner = (conv.weight[:, :, 1:6, 1:6].reshape(4, 25) @ five.T).reshape(4, 1, 5, 5)
    torch.testing.assert_close(conv(x, 4, 5), F.conv2d(x, inner, None, padding=2, groups=4))
    innermost = (inner[:, :, 1:4, 1:4].reshape(4, 9) @ three.T).reshape(4, 1, 3, 3)
    torch.testing.assert_close(conv(x, 4, 3), F.conv2d(x, innermost, None, padding=1, groups=4))
    # The largest kernel is what it was, and a copy holds the kernel that is made.
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, None, padding=3, groups=4))
    small = ElasticConv2d(4, 4, 3, groups=4)
    copy_slices(nn.Sequential(conv), nn.Sequential(small))
    torch.testing.assert_close(small(x), conv(x, 4, 3))
    assert not list(small.transforms)


def test_a_kernel_that_is_made_teaches_what_it_was_made_from() -> None:
    conv = ElasticConv2d(2, 2, 7, groups=2)
    conv.learn_kernels()
    conv(numbered((1, 2, 9, 9)), 2, 5).square().sum().backward()
    assert conv.weight.grad is not None
    assert (conv.weight.grad[:, :, 1:6, 1:6] != 0).all()
    assert not conv.weight.grad[:, :, 0].any()
    assert (conv.transforms["5"].grad != 0).any()
    assert conv.transforms["3"].grad is None


def test_patches_are_not_padded() -> None:
    conv = ElasticConv2d(3, 4, 4, stride=4, padding=0)
    fill(conv)
    x = numbered((1, 3, 8, 8))
    assert torch.equal(conv(x, 2), F.conv2d(x, conv.weight[:2], None, stride=4))


def test_a_norm_over_the_image_is_over_all_channels_it_sees() -> None:
    norm = ElasticImageNorm(6)
    fill(norm)
    x = numbered((3, 4, 5, 5)) * 5 + 2
    dims = (1, 2, 3)
    variance = x.var(dims, unbiased=False, keepdim=True)
    scaled = (x - x.mean(dims, keepdim=True)) / torch.sqrt(variance + 1e-5)
    expected = scaled * norm.weight[:4, None, None] + norm.bias[:4, None, None]
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("gate", ["sigmoid", "hard-sigmoid"])
def test_squeeze_and_excite_gates_channels(gate: str) -> None:
    squeeze = SqueezeExcite(6, 4, activation="silu", gate=gate)
    fill(squeeze)
    x = numbered((2, 3, 4, 4))
    pooled = x.mean((2, 3))
    reduce, expand = squeeze.reduce.weight[:, :, 0, 0], squeeze.expand.weight[:, :, 0, 0]
    assert squeeze.reduce.bias is not None
    assert squeeze.expand.bias is not None
    inner = F.silu(pooled @ reduce[:2, :3].T + squeeze.reduce.bias[:2])
    scores = inner @ expand[:3, :2].T + squeeze.expand.bias[:3]
    gates = torch.sigmoid(scores) if gate == "sigmoid" else (scores / 6 + 0.5).clamp(0, 1)
    torch.testing.assert_close(squeeze(x, 2), x * gates[:, :, None, None])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_what_their_names_say(name: str) -> None:
    x = torch.linspace(-8, 8, 33)
    expected = {
        "relu": x.clamp(0),
        "relu6": x.clamp(0, 6),
        "hard-swish": x * (x + 3).clamp(0, 6) / 6,
        "silu": x / (1 + torch.exp(-x)),
    }
    torch.testing.assert_close(activate(name)(x), expected[name])
