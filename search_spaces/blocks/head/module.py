"""Classifier head as a torch module."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from search_spaces.blocks.head.spec import HeadSpec
from search_spaces.blocks.layers import Block, ElasticBatchNorm2d, ElasticConv2d, ElasticLinear, activate


class Head(Block[HeadSpec]):
    """Elastic in its input channels."""

    def __init__(self, spec: HeadSpec) -> None:
        super().__init__(spec)
        if spec.expanded:
            self.expand = ElasticConv2d(spec.in_channels, spec.expanded)
            self.expand_norm = ElasticBatchNorm2d(spec.expanded)
        if spec.features:
            self.widen = ElasticLinear(spec.pooled_channels, spec.features)
        self.classify = ElasticLinear(spec.features or spec.pooled_channels, spec.classes)
        self._activate = activate(spec.activation)

    def input_importance(self) -> Tensor:
        """Return how much each channel that the block is given is used."""
        return self._first.importance()

    def reorder_inputs(self, order: Tensor) -> None:
        """Expect channels in another order."""
        self._first.reorder(inputs=order)

    @property
    def _first(self) -> ElasticConv2d | ElasticLinear:
        if self.spec.expanded:
            return self.expand
        return self.widen if self.spec.features else self.classify

    def forward(self, x: Tensor, spec: HeadSpec | None = None) -> Tensor:
        """Return logits ``float[n, classes]``."""
        spec = spec or self.spec
        if spec.expanded:
            x = self._activate(self.expand_norm(self.expand(x, spec.expanded)))
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        if spec.features:
            pooled = self._activate(self.widen(pooled, spec.features))
        logits: Tensor = self.classify(pooled, spec.classes)
        return logits
