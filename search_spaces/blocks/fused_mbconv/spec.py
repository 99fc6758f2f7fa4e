"""Fused MBConv: expansion and spatial mixing in one dense convolution (MobileDets, arXiv:2004.14525)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.blocks.mbconv.spec import InvertedResidual
from search_spaces.counting import Layer, conv


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedMBConvSpec(InvertedResidual):
    """Dense convolution that expands, squeeze-and-excite, linear 1x1 projection.

    Batch norm after both convolutions, the activation after the first. The input is added to the output where their
    shapes agree.
    """

    family: ClassVar[str] = "fused_mbconv"

    def layers(self) -> tuple[Layer, ...]:
        """Return its convolutions."""
        return (
            conv(self.in_channels, self.hidden_channels, self.resolution, self.kernel, stride=self.stride),
            *self.squeeze_layers(),
            conv(self.hidden_channels, self.out_channels, self.out_resolution, waiting=self.waiting_elements),
        )
