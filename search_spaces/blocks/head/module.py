"""Classifier head as a torch module."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from search_spaces.blocks.head.spec import HeadSpec
from search_spaces.blocks.layers import Block, ElasticLinear


class Head(Block[HeadSpec]):
    """Elastic in its input channels."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__(spec)
        self.widen = ElasticLinear(spec.in_channels, spec.features)
        self.classify = ElasticLinear(spec.features, spec.classes)

    def forward(self, x: Tensor, spec: HeadSpec | None = None) -> Tensor:
        """Return logits ``float[n, classes]``."""
        spec = spec or self.spec
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.classify(F.relu(self.widen(pooled, spec.features)), spec.classes)
        return logits
