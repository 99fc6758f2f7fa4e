"""Down-sampling as a torch module."""

from __future__ import annotations

from torch import Tensor

from search_spaces.blocks.downsample.spec import DownsampleSpec
from search_spaces.blocks.layers import Block, ElasticBatchNorm2d, ElasticConv2d


class Downsample(Block[DownsampleSpec]):
    """Elastic in input and output channels."""

    def __init__(self, spec: DownsampleSpec) -> None:
        super().__init__(spec)
        self.conv = ElasticConv2d(spec.in_channels, spec.out_channels, spec.kernel, stride=2)
        self.norm = ElasticBatchNorm2d(spec.out_channels)

    def input_importance(self) -> Tensor:
        """Return how much each channel that the block is given is used."""
        return self.conv.importance()

    def reorder_inputs(self, order: Tensor) -> None:
        """Expect channels in another order."""
        self.conv.reorder(inputs=order)

    def reorder_outputs(self, order: Tensor) -> None:
        """Give channels in another order."""
        self.conv.reorder(outputs=order)
        self.norm.reorder(order)

    def forward(self, x: Tensor, spec: DownsampleSpec | None = None) -> Tensor:
        """Return ``float[n, out_channels, resolution / 2, resolution / 2]``."""
        spec = spec or self.spec
        out: Tensor = self.norm(self.conv(x, spec.out_channels))
        return out
