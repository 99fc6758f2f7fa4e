"""Patchify stem as a torch module."""

from __future__ import annotations

from torch import Tensor

from search_spaces.blocks.layers import Block, ElasticBatchNorm2d, ElasticConv2d
from search_spaces.blocks.patchify.spec import PatchifySpec


class Patchify(Block[PatchifySpec]):
    """Elastic in its output channels."""

    def __init__(self, spec: PatchifySpec) -> None:
        super().__init__(spec)
        self.conv = ElasticConv2d(spec.in_channels, spec.out_channels, spec.patch, stride=spec.patch, padding=0)
        self.norm = ElasticBatchNorm2d(spec.out_channels)

    def reorder_outputs(self, order: Tensor) -> None:
        """Give channels in another order."""
        self.conv.reorder(outputs=order)
        self.norm.reorder(order)

    def forward(self, x: Tensor, spec: PatchifySpec | None = None) -> Tensor:
        """Return ``float[n, out_channels, resolution / patch, resolution / patch]``."""
        spec = spec or self.spec
        out: Tensor = self.norm(self.conv(x, spec.out_channels))
        return out
