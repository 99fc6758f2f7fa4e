"""The block of ResNet in torch: elastic if built at its largest spec, plain layers if built at one."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from residual.spec import ResidualSpec
from search_spaces.blocks.layers import Block, ElasticBatchNorm2d, ElasticConv2d


class Residual(Block[ResidualSpec]):
    """Convolution, norm, ReLU, convolution, norm; then the input is added, and ReLU."""

    def __init__(self, spec: ResidualSpec) -> None:
        super().__init__(spec)
        self.first = ElasticConv2d(spec.channels, spec.hidden, spec.kernel)
        self.first_norm = ElasticBatchNorm2d(spec.hidden)
        self.second = ElasticConv2d(spec.hidden, spec.channels, spec.kernel)
        self.second_norm = ElasticBatchNorm2d(spec.channels)

    def forward(self, x: Tensor, spec: ResidualSpec | None = None) -> Tensor:
        """Return ``float[n, channels, resolution, resolution]``."""
        spec = spec or self.spec
        inner = F.relu(self.first_norm(self.first(x, spec.hidden, spec.kernel)))
        return F.relu(x + self.second_norm(self.second(inner, spec.channels, spec.kernel)))
