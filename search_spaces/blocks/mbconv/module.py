"""MBConv as a torch module."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from search_spaces.blocks.layers import (
    Block,
    ElasticBatchNorm2d,
    ElasticConv2d,
    SqueezeExcite,
    activate,
    descending,
)
from search_spaces.blocks.mbconv.spec import InvertedResidual, MBConvSpec
from search_spaces.blocks.words import SQUEEZE_INPUT

Spec = TypeVar("Spec", bound=InvertedResidual)


class InvertedResidualBlock(Block[Spec]):
    """What MBConv and Fused MBConv share: a subclass makes the hidden channels, then calls `finish` for the rest."""

    def finish(self, spec: Spec) -> None:
        """Make what follows the hidden channels."""
        self.squeeze: SqueezeExcite | None = None
        if spec.squeezed_channels:
            published = spec.squeeze == SQUEEZE_INPUT
            self.squeeze = SqueezeExcite(
                spec.hidden_channels,
                spec.squeezed_channels,
                activation=spec.activation if published else "relu",
                gate="sigmoid" if published else "hard-sigmoid",
            )
        self.project = ElasticConv2d(spec.hidden_channels, spec.out_channels)
        self.project_norm = ElasticBatchNorm2d(spec.out_channels)
        self.activation = activate(spec.activation)

    def hidden(self, x: Tensor, spec: Spec) -> Tensor:
        """Return ``float[n, hidden_channels, out_resolution, out_resolution]``."""
        raise NotImplementedError

    def reorder_hidden(self, order: Tensor) -> bool:
        """Move the hidden channels, if they can be moved; returns whether."""
        raise NotImplementedError

    def forward(self, x: Tensor, spec: Spec | None = None) -> Tensor:
        """Return ``float[n, out_channels, out_resolution, out_resolution]``."""
        spec = spec or self.spec
        inner = self.hidden(x, spec)
        if self.squeeze is not None:
            inner = self.squeeze(inner, spec.squeezed_channels)
        out: Tensor = self.project_norm(self.project(inner, spec.out_channels))
        return x + out if spec.residual else out

    def reorder_outputs(self, order: Tensor) -> None:
        """Give channels in another order."""
        self.project.reorder(outputs=order)
        self.project_norm.reorder(order)

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Sort the hidden channels."""
        order = descending(self.project.importance())
        if self.reorder_hidden(order):
            self.project.reorder(inputs=order)
            if self.squeeze is not None:
                self.squeeze.reorder(order)


class MBConv(InvertedResidualBlock[MBConvSpec]):
    """Elastic in channels, kernel and expansion; an expansion of 1 skips the first convolution."""

    def __init__(self, spec: MBConvSpec) -> None:
        super().__init__(spec)
        hidden = spec.hidden_channels
        if spec.expands:
            self.expand = ElasticConv2d(spec.in_channels, hidden)
            self.expand_norm = ElasticBatchNorm2d(hidden)
        self.depthwise = ElasticConv2d(hidden, hidden, spec.kernel, stride=spec.stride, groups=hidden)
        self.depthwise_norm = ElasticBatchNorm2d(hidden)
        self.finish(spec)

    def hidden(self, x: Tensor, spec: MBConvSpec) -> Tensor:
        """Return ``float[n, hidden_channels, out_resolution, out_resolution]``."""
        if spec.expands:
            x = self.activation(self.expand_norm(self.expand(x, spec.hidden_channels)))
        return self.activation(self.depthwise_norm(self.depthwise(x, spec.hidden_channels, spec.kernel)))

    def input_importance(self) -> Tensor:
        """Return how much each channel that the block is given is used."""
        layer = self.expand if self.spec.expands else self.project
        return layer.importance()

    def reorder_inputs(self, order: Tensor) -> None:
        """Expect channels in another order; without expansion the hidden channels are those of the input."""
        if self.spec.expands:
            self.expand.reorder(inputs=order)
            return
        self.depthwise.reorder(outputs=order)
        self.depthwise_norm.reorder(order)
        self.project.reorder(inputs=order)
        if self.squeeze is not None:
            self.squeeze.reorder(order)

    def reorder_hidden(self, order: Tensor) -> bool:
        """Move the hidden channels; without expansion they are the input's, and stay."""
        if not self.spec.expands:
            return False
        self.expand.reorder(outputs=order)
        self.expand_norm.reorder(order)
        self.depthwise.reorder(outputs=order)
        self.depthwise_norm.reorder(order)
        return True
