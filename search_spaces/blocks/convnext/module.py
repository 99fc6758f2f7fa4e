"""ConvNeXt block as a torch module."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from search_spaces.blocks.convnext.spec import ConvNeXtSpec
from search_spaces.blocks.layers import Block, ElasticConv2d, ElasticLayerNorm, ElasticLinear, LayerScale


class ConvNeXt(Block[ConvNeXtSpec]):
    """Elastic in channels, kernel and MLP width."""

    def __init__(self, spec: ConvNeXtSpec) -> None:
        super().__init__(spec)
        channels = spec.channels
        self.depthwise = ElasticConv2d(channels, channels, spec.kernel, groups=channels, bias=True)
        self.norm = ElasticLayerNorm(channels)
        self.expand = ElasticLinear(channels, spec.hidden_channels)
        self.project = ElasticLinear(spec.hidden_channels, channels)
        self.scale = LayerScale(channels)

    def forward(self, x: Tensor, spec: ConvNeXtSpec | None = None) -> Tensor:
        """Return a tensor of the shape of `x`, ``float[n, channels, resolution, resolution]``."""
        spec = spec or self.spec
        mixed = self.depthwise(x, spec.channels, spec.kernel).permute(0, 2, 3, 1)
        hidden = F.gelu(self.expand(self.norm(mixed), spec.hidden_channels))
        out: Tensor = self.scale(self.project(hidden, spec.channels))
        return x + out.permute(0, 3, 1, 2)
