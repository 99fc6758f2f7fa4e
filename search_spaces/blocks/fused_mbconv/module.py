"""Fused MBConv as a torch module."""

from __future__ import annotations

from torch import Tensor

from search_spaces.blocks.fused_mbconv.spec import FusedMBConvSpec
from search_spaces.blocks.layers import ElasticBatchNorm2d, ElasticConv2d
from search_spaces.blocks.mbconv.module import InvertedResidualBlock


class FusedMBConv(InvertedResidualBlock[FusedMBConvSpec]):
    """Elastic in channels, kernel and expansion."""

    def __init__(self, spec: FusedMBConvSpec) -> None:
        super().__init__(spec)
        self.expand = ElasticConv2d(spec.in_channels, spec.hidden_channels, spec.kernel, stride=spec.stride)
        self.expand_norm = ElasticBatchNorm2d(spec.hidden_channels)
        self.finish(spec)

    def hidden(self, x: Tensor, spec: FusedMBConvSpec) -> Tensor:
        """Return ``float[n, hidden_channels, out_resolution, out_resolution]``."""
        return self.activation(self.expand_norm(self.expand(x, spec.hidden_channels, spec.kernel)))

    def input_importance(self) -> Tensor:
        """Return how much each channel that the block is given is used."""
        return self.expand.importance()

    def reorder_inputs(self, order: Tensor) -> None:
        """Expect channels in another order."""
        self.expand.reorder(inputs=order)

    def reorder_hidden(self, order: Tensor) -> bool:
        """Move the hidden channels."""
        self.expand.reorder(outputs=order)
        self.expand_norm.reorder(order)
        return True
