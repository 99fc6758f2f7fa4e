"""MBConv as a torch module."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from search_spaces.blocks.layers import Block, ElasticBatchNorm2d, ElasticConv2d
from search_spaces.blocks.mbconv.spec import MBConvSpec


class MBConv(Block[MBConvSpec]):
    """Elastic in channels, kernel and expansion; an expansion of 1 skips the first convolution."""

    def __init__(self, spec: MBConvSpec) -> None:
        super().__init__(spec)
        hidden = spec.hidden_channels
        if spec.expansion > 1:
            self.expand = ElasticConv2d(spec.in_channels, hidden, 1)
            self.expand_norm = ElasticBatchNorm2d(hidden)
        self.depthwise = ElasticConv2d(hidden, hidden, spec.kernel, stride=spec.stride, groups=hidden)
        self.depthwise_norm = ElasticBatchNorm2d(hidden)
        self.project = ElasticConv2d(hidden, spec.out_channels, 1)
        self.project_norm = ElasticBatchNorm2d(spec.out_channels)

    def forward(self, x: Tensor, spec: MBConvSpec | None = None) -> Tensor:
        """Return ``float[n, out_channels, out_resolution, out_resolution]``."""
        spec = spec or self.spec
        out: Tensor = x
        if spec.expansion > 1:
            out = F.relu(self.expand_norm(self.expand(out, spec.hidden_channels)))
        out = F.relu(self.depthwise_norm(self.depthwise(out, spec.hidden_channels, spec.kernel)))
        out = self.project_norm(self.project(out, spec.out_channels))
        return x + out if spec.residual else out
