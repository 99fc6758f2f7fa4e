"""Elastic layers: torch layers that can run on a prefix slice of their own weights.

Called at their own sizes they run the parent class on whole weights: no slicing, nothing elastic in an export. Called
smaller, they use the first channels and the kernel's centre, through learned matrices where a space asks for them
(Once-for-All, arXiv:1908.09791). `copy_slices` writes the same slices into a smaller layer, so a subnet and its
extracted copy share one definition of what a slice is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.spec import BlockSpec

Spec = TypeVar("Spec", bound=BlockSpec)


class Block(nn.Module, Generic[Spec]):
    """Base of every block module: built at `spec`, callable at any spec that fits inside it."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, spec: Spec | None = None) -> Tensor:
        """Run at `spec` (default: the sizes the block was built at); x is ``float[n, channels, height, width]``."""
        raise NotImplementedError

    def sort_channels(self) -> None:
        """Put the inner channels that matter most first, so that prefixes keep them; the function stays the same.

        A channel matters by the L1 norm of the weights that read it (Once-for-All, section 3.2).
        """

    @property
    def fixes_order(self) -> bool:
        """Whether the order of the channels between blocks means something to this one."""
        return False

    def input_importance(self) -> Tensor:
        """Return how much each channel that the block is given is used, ``float[in_channels]``."""
        raise NotImplementedError

    def reorder_inputs(self, order: Tensor) -> None:
        """Expect channels in another order: at position ``i`` what was at ``order[i]``."""
        raise NotImplementedError

    def reorder_outputs(self, order: Tensor) -> None:
        """Give channels in another order."""
        raise NotImplementedError


class ElasticConv2d(nn.Conv2d):
    """Convolution, dense or depthwise, elastic in input and output channels and in its odd kernel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: int | None = None,
    ) -> None:
        padding = (kernel - 1) // 2 if padding is None else padding
        super().__init__(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias)
        self.transforms = nn.ParameterDict()

    def learn_kernels(self) -> None:
        """Give every smaller kernel a matrix that makes it from the next larger one; at first, its centre."""
        for kernel in range(self.kernel_size[0] - 2, 1, -2):
            self.transforms[str(kernel)] = nn.Parameter(torch.eye(kernel**2))

    def forward(self, x: Tensor, out_channels: int | None = None, kernel: int | None = None) -> Tensor:
        """Run with the first `out_channels` filters and the central `kernel` taps."""
        out_channels = out_channels or self.out_channels
        kernel = kernel or self.kernel_size[0]
        weight, bias = self.sliced(x.shape[1], out_channels, kernel)
        groups = 1 if self.groups == 1 else out_channels
        padding = int(self.padding[0]) - (self.kernel_size[0] - kernel) // 2
        return F.conv2d(x, weight, bias, self.stride, padding, groups=groups)

    def sliced(self, in_channels: int, out_channels: int, kernel: int) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias at these sizes: the layer's own tensors when nothing is cut."""
        if (in_channels, out_channels, kernel) == (self.in_channels, self.out_channels, self.kernel_size[0]):
            return self.weight, self.bias
        per_group = in_channels if self.groups == 1 else 1
        weight = self.weight[:out_channels, :per_group]
        # One ring at a time, each kernel being made from the next larger one.
        for size in range(self.kernel_size[0] - 2, kernel - 1, -2):
            weight = weight[:, :, 1:-1, 1:-1]
            if str(size) in self.transforms:
                weight = (weight.flatten(2) @ self.transforms[str(size)].T).view_as(weight)
        return weight, None if self.bias is None else self.bias[:out_channels]

    def load_slice(self, source: ElasticConv2d) -> None:
        """Copy this layer's share of a larger layer."""
        weight, bias = source.sliced(self.in_channels, self.out_channels, self.kernel_size[0])
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def importance(self) -> Tensor:
        """Return how much each input channel is used, ``float[in_channels]``."""
        return self.weight.detach().abs().sum((0, 2, 3))

    def reorder(self, *, outputs: Tensor | None = None, inputs: Tensor | None = None) -> None:
        """Move channels: position ``i`` becomes what was at ``order[i]``."""
        if outputs is not None:
            self.weight.copy_(self.weight[outputs])
            if self.bias is not None:
                self.bias.copy_(self.bias[outputs])
        if inputs is not None:
            self.weight.copy_(self.weight[:, inputs])


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the first channels.

    Its running statistics are those of whichever subnets passed last: they mean nothing for a given subnet until they
    are recalibrated for it.
    """

    _per_channel = ("weight", "bias", "running_mean", "running_var")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise as many channels as `x` has."""
        channels = x.shape[1]
        if channels == self.num_features:
            return super().forward(x)
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None
        assert var is not None
        assert count is not None
        momentum = self.momentum
        if self.training:
            count.add_(1)
            if momentum is None:
                momentum = 1.0 / float(count)
        return F.batch_norm(
            x,
            mean[:channels],
            var[:channels],
            self.weight[:channels],
            self.bias[:channels],
            self.training,
            momentum or 0.0,
            self.eps,
        )

    def load_slice(self, source: ElasticBatchNorm2d) -> None:
        """Copy this layer's share of a larger layer, running statistics included."""
        for name in self._per_channel:
            getattr(self, name).copy_(getattr(source, name)[: self.num_features])

    def reorder(self, order: Tensor) -> None:
        """Move channels: position ``i`` becomes what was at ``order[i]``."""
        for name in self._per_channel:
            getattr(self, name).copy_(getattr(self, name)[order])


class ElasticLayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension, elastic in its size."""

    def __init__(self, features: int) -> None:
        super().__init__(features, eps=1e-6)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Normalise as many features as `x` has."""
        features = x.shape[-1]
        if features == self.features:
            return super().forward(x)
        return F.layer_norm(x, (features,), self.weight[:features], self.bias[:features], self.eps)

    def load_slice(self, source: ElasticLayerNorm) -> None:
        """Copy this layer's share of a larger layer."""
        self.weight.copy_(source.weight[: self.features])
        self.bias.copy_(source.bias[: self.features])

    def reorder(self, order: Tensor) -> None:
        """Move features: position ``i`` becomes what was at ``order[i]``."""
        self.weight.copy_(self.weight[order])
        self.bias.copy_(self.bias[order])


class ElasticImageNorm(nn.GroupNorm):
    """Norm over all channels and pixels of an image, elastic in its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise as many channels as `x` has."""
        channels = x.shape[1]
        if channels == self.num_channels:
            return super().forward(x)
        return F.group_norm(x, 1, self.weight[:channels], self.bias[:channels], self.eps)

    def load_slice(self, source: ElasticImageNorm) -> None:
        """Copy this layer's share of a larger layer."""
        self.weight.copy_(source.weight[: self.num_channels])
        self.bias.copy_(source.bias[: self.num_channels])


class ElasticLinear(nn.Linear):
    """Linear layer over the last dimension, elastic in both sizes.

    Its outputs may be several equal `sections` side by side (queries, keys, values); each is cut on its own.
    """

    def __init__(self, in_features: int, out_features: int, *, sections: int = 1) -> None:
        super().__init__(in_features, out_features)
        self.sections = sections

    def forward(self, x: Tensor, out_features: int | None = None) -> Tensor:
        """Run with the first outputs of each section, `out_features` in all."""
        return F.linear(x, *self.sliced(x.shape[-1], out_features or self.out_features))

    def sliced(self, in_features: int, out_features: int) -> tuple[Tensor, Tensor]:
        """Return weight and bias at these sizes: the layer's own tensors when nothing is cut."""
        if (in_features, out_features) == (self.in_features, self.out_features):
            return self.weight, self.bias
        rows = out_features // self.sections
        weight = self.weight.view(self.sections, -1, self.in_features)[:, :rows, :in_features]
        bias = self.bias.view(self.sections, -1)[:, :rows]
        return weight.reshape(out_features, in_features), bias.reshape(out_features)

    def load_slice(self, source: ElasticLinear) -> None:
        """Copy this layer's share of a larger layer."""
        weight, bias = source.sliced(self.in_features, self.out_features)
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def importance(self) -> Tensor:
        """Return how much each input feature is used, ``float[in_features]``."""
        return self.weight.detach().abs().sum(0)

    def reorder(self, *, outputs: Tensor | None = None, inputs: Tensor | None = None) -> None:
        """Move features: position ``i`` (of each section) becomes what was at ``order[i]``."""
        if outputs is not None:
            self.weight.copy_(self.weight.view(self.sections, -1, self.in_features)[:, outputs].flatten(0, 1))
            self.bias.copy_(self.bias.view(self.sections, -1)[:, outputs].flatten())
        if inputs is not None:
            self.weight.copy_(self.weight[:, inputs])


class LayerScale(nn.Module):
    """A learned factor per feature of the last dimension (CaiT, arXiv:2103.17239), elastic in its size."""

    # ConvNeXt starts at 1e-6 for 300-epoch training; that leaves blocks near identity in short runs.
    default = 0.1

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((features,), self.default))
        self.switched = nn.ParameterDict()

    def start_at(self, value: float) -> None:
        """Set all factors to a value, before training."""
        for factors in self.parameters():
            nn.init.constant_(factors, value)

    def switch(self, sizes: Iterable[int]) -> None:
        """Give some smaller sizes factors of their own: switchable layer scaling (NASViT, ICLR 2022)."""
        for size in sizes:
            if size < len(self.gamma):
                self.switched[str(size)] = nn.Parameter(self.gamma[:size].detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last dimension."""
        return x * self._factors(x.shape[-1])

    def load_slice(self, source: LayerScale) -> None:
        """Copy this layer's share of a larger layer."""
        self.gamma.copy_(source._factors(len(self.gamma)))

    def reorder(self, order: Tensor) -> None:
        """Move features: position ``i`` becomes what was at ``order[i]``.

        A size of its own factors takes those of the whole for features that it did not have.
        """
        for factors in self.switched.values():
            known = torch.cat([factors, self.gamma[len(factors) :]])
            factors.copy_(known[order][: len(factors)])
        self.gamma.copy_(self.gamma[order])

    def _factors(self, features: int) -> Tensor:
        if str(features) in self.switched:
            own: Tensor = self.switched[str(features)]
            return own
        return self.gamma if features == len(self.gamma) else self.gamma[:features]


class SqueezeExcite(nn.Module):
    """Gates channels by what the whole image says (arXiv:1709.01507), elastic in both sizes.

    Args:
        channels: that are gated.
        squeezed: in between.
        activation: in between.
        gate: ``"sigmoid"`` or ``"hard-sigmoid"``.
    """

    def __init__(self, channels: int, squeezed: int, *, activation: str, gate: str) -> None:
        super().__init__()
        self.reduce = ElasticConv2d(channels, squeezed, bias=True)
        self.expand = ElasticConv2d(squeezed, channels, bias=True)
        self._activate = activate(activation)
        gates: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "hard-sigmoid": F.hardsigmoid}
        self._gate = gates[gate]

    def forward(self, x: Tensor, squeezed: int | None = None) -> Tensor:
        """Return the image ``float[n, channels, height, width]``, gated."""
        pooled = F.adaptive_avg_pool2d(x, 1)
        inner = self._activate(self.reduce(pooled, squeezed or self.reduce.out_channels))
        return x * self._gate(self.expand(inner, x.shape[1]))

    def reorder(self, order: Tensor) -> None:
        """Move the gated channels, and put the inner ones that matter most first."""
        self.reduce.reorder(inputs=order)
        self.expand.reorder(outputs=order)
        inner = descending(self.expand.importance())
        self.reduce.reorder(outputs=inner)
        self.expand.reorder(inputs=inner)


def activate(name: str) -> Callable[[Tensor], Tensor]:
    """Return an activation function of `search_spaces.blocks.words.ACTIVATIONS`."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": F.relu,
        "relu6": F.relu6,
        "hard-swish": F.hardswish,
        "silu": F.silu,
    }
    return functions[name]


def descending(importance: Tensor) -> Tensor:
    """Return positions, the most important first; equal ones keep their order."""
    return torch.sort(importance, descending=True, stable=True).indices


ELASTIC_LAYERS = (
    ElasticConv2d,
    ElasticBatchNorm2d,
    ElasticLayerNorm,
    ElasticImageNorm,
    ElasticLinear,
    LayerScale,
)


@torch.no_grad()
def copy_slices(source: nn.Module, target: nn.Module) -> None:
    """Copy into `target` the slices of `source` that it stands for; modules are matched by name.

    Raises:
        ValueError: a parameter of `target` belongs to no elastic layer, so nothing says how to cut it.
    """
    for name, layer in target.named_modules():
        larger: Any = source.get_submodule(name)
        if isinstance(layer, ELASTIC_LAYERS):
            layer.load_slice(larger)
        elif next(layer.parameters(recurse=False), None) is not None:
            raise ValueError(f"module {name!r} ({type(layer).__name__}) has parameters but is not an elastic layer")
