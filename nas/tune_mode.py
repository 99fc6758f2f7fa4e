"""Batch norm that stays as it is while a network is trained further, and the rounding of 8 bits to train against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from nas.devices import Precision

Range = tuple[float, float]
"""Smallest and largest value that a layer was given, zero among them."""

_LARGEST_WEIGHT, _LARGEST_ACTIVATION = 127, 255


class TunedLayer(nn.Module):
    """A convolution or a linear layer, with the batch norm that follows it folded into its weights at every call.

    With frozen statistics, ``norm(conv(x))`` is one convolution of weights ``W c`` and bias ``beta + c (b - mu)``,
    where ``c = gamma / sqrt(sigma^2 + eps)`` (Tune mode, arXiv:2305.11624): the same values and gradients, but nothing
    between the two is computed or kept. With a range, input and weights are rounded as 8 bits round them, which
    gradients pass as if they were not (arXiv:1712.05877).

    Args:
        layer: what to run; it keeps its parameters.
        norm: what follows it, or None.
        given: the range of its input, or None for floats.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None, given: Range | None) -> None:
        super().__init__()
        self.layer, self.norm, self._given = layer, norm, given

    def forward(self, x: Tensor, *sizes: int | None) -> Tensor:
        """Return the layer's output; sizes of an elastic layer are those that it was built at."""
        weight, bias = self.layer.weight, self.layer.bias
        if self.norm is not None:
            weight, bias = _folded(weight, bias, self.norm)
        if self._given is not None:
            x, weight = _rounded_input(x, self._given), _rounded_weights(weight)
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        layer = self.layer
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


class FrozenNorm(nn.Module):
    """A batch norm that follows no convolution, with statistics that stay."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the running statistics."""
        norm = self.norm
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


@contextmanager
def tune_mode(network: nn.Module, batches: Sequence[Tensor], precision: Precision) -> Iterator[None]:
    """Freeze a network's batch norm while the block runs; its parameters stay where they are.

    Args:
        network: in evaluation mode; what is trained in the block is trained in it.
        batches: images, which tell what follows what, and ranges.
        precision: that of 8 bits has layers compute with rounded values.
    """
    pairs, ranges = _observed(network, batches)
    swapped: dict[str, nn.Module] = {}
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            norm = pairs.get(name)
            followed = network.get_submodule(norm) if norm else None
            assert followed is None or isinstance(followed, nn.BatchNorm2d)
            swapped[name] = TunedLayer(module, followed, ranges[name] if precision == "int8" else None)
            if norm:
                swapped[norm] = nn.Identity()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and name not in swapped:
            swapped[name] = FrozenNorm(module)
    own = {name: network.get_submodule(name) for name in swapped}
    _put(network, swapped)
    try:
        yield
    finally:
        _put(network, own)


def _put(network: nn.Module, modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, module)


@torch.no_grad()
def _observed(network: nn.Module, batches: Sequence[Tensor]) -> tuple[dict[str, str], dict[str, Range]]:
    """Return which batch norm follows which convolution, and the range of every layer's input, by names."""
    pairs: dict[str, str] = {}
    ranges: dict[str, Range] = {}
    made: list[tuple[Tensor, str]] = []  # held, so that no two outputs are the same object
    hooks: list[RemovableHandle] = []

    def watch(name: str, module: nn.Module) -> None:
        def before(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            x = given[0]
            if isinstance(module, nn.BatchNorm2d):
                writers = [writer for output, writer in made if output is x]
                pairs.update(dict.fromkeys(writers, name))
            else:
                low, high = ranges.get(name, (0.0, 0.0))
                ranges[name] = min(low, float(x.min())), max(high, float(x.max()))

        def after(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                made.append((output, name))

        hooks.extend((module.register_forward_pre_hook(before), module.register_forward_hook(after)))

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            watch(name, module)
    try:
        for images in batches:
            network(images)
            made.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return pairs, ranges


def _folded(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    return weight * factor.reshape(-1, 1, 1, 1), norm.bias + factor * shift


def _rounded_input(x: Tensor, given: Range) -> Tensor:
    low, high = given
    scale = max(high - low, 1e-8) / _LARGEST_ACTIVATION
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, _LARGEST_ACTIVATION)


def _rounded_weights(weight: Tensor) -> Tensor:
    """Round weights as 8 bits do, each output channel by a scale of its own."""
    largest = weight.detach().flatten(1).abs().amax(dim=1).clamp(min=1e-8)
    zero = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(
        weight, largest / _LARGEST_WEIGHT, zero, 0, -_LARGEST_WEIGHT, _LARGEST_WEIGHT
    )
