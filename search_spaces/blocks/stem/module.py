"""Convolutional stem as a torch module."""

from __future__ import annotations

from torch import Tensor

from search_spaces.blocks.layers import Block, ElasticBatchNorm2d, ElasticConv2d, activate
from search_spaces.blocks.stem.spec import StemSpec


class Stem(Block[StemSpec]):
    """Elastic in its output channels."""

    def __init__(self, spec: StemSpec) -> None:
        super().__init__(spec)
        self.conv = ElasticConv2d(spec.in_channels, spec.out_channels, spec.kernel, stride=spec.stride)
        self.norm = ElasticBatchNorm2d(spec.out_channels)
        self._activate = activate(spec.activation)

    def reorder_outputs(self, order: Tensor) -> None:
        """Give channels in another order."""
        self.conv.reorder(outputs=order)
        self.norm.reorder(order)

    def forward(self, x: Tensor, spec: StemSpec | None = None) -> Tensor:
        """Return ``float[n, out_channels, out_resolution, out_resolution]``."""
        spec = spec or self.spec
        return self._activate(self.norm(self.conv(x, spec.out_channels)))
