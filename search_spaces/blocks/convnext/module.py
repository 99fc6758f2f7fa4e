"""ConvNeXt block as a torch module."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.blocks.convnext.spec import ConvNeXtSpec
from search_spaces.blocks.layers import (
    Block,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLayerNorm,
    ElasticLinear,
    LayerScale,
    descending,
)
from search_spaces.blocks.words import LAYER_NORM


class ConvNeXt(Block[ConvNeXtSpec]):
    """Elastic in channels, kernel and MLP width."""

    def __init__(self, spec: ConvNeXtSpec) -> None:
        super().__init__(spec)
        channels = spec.channels
        self._last = spec.norm == LAYER_NORM
        self.depthwise = ElasticConv2d(channels, channels, spec.kernel, groups=channels, bias=self._last)
        self.norm = ElasticLayerNorm(channels) if self._last else ElasticBatchNorm2d(channels)
        self.expand = ElasticLinear(channels, spec.hidden_channels)
        self.project = ElasticLinear(spec.hidden_channels, channels)
        self.scale = LayerScale(channels)

    def forward(self, x: Tensor, spec: ConvNeXtSpec | None = None) -> Tensor:
        """Return a tensor of the shape of `x`, ``float[n, channels, resolution, resolution]``."""
        spec = spec or self.spec
        mixed = self.depthwise(x, spec.channels, spec.kernel)
        # A layer norm is over the last dimension; a batch norm right behind the convolution is folded into it.
        mixed = self.norm(mixed.permute(0, 2, 3, 1)) if self._last else self.norm(mixed).permute(0, 2, 3, 1)
        hidden = F.gelu(self.expand(mixed, spec.hidden_channels))
        out: Tensor = self.scale(self.project(hidden, spec.channels))
        return x + out.permute(0, 3, 1, 2)

    def input_importance(self) -> Tensor:
        """Return how much each channel that the block is given is used."""
        return self.expand.importance()

    def reorder_inputs(self, order: Tensor) -> None:
        """Expect channels in another order."""
        self.depthwise.reorder(outputs=order)
        self.norm.reorder(order)
        self.expand.reorder(inputs=order)

    def reorder_outputs(self, order: Tensor) -> None:
        """Give channels in another order."""
        self.project.reorder(outputs=order)
        self.scale.reorder(order)

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Sort the MLP's features."""
        order = descending(self.project.importance())
        self.expand.reorder(outputs=order)
        self.project.reorder(inputs=order)
