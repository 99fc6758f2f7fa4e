"""Convolutional stem: image to feature map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.blocks.words import ACTIVATIONS
from search_spaces.counting import Layer, conv
from search_spaces.spec import Counted, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class StemSpec(Counted):
    """Convolution, batch norm, activation."""

    family: ClassVar[str] = "stem"
    role: ClassVar[str] = "stem"

    in_channels: int
    out_channels: int
    resolution: int
    kernel: int
    stride: int
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_sizes(self, odd=("kernel",), words={"activation": ACTIVATIONS})

    @property
    def out_resolution(self) -> int:
        """Side of the output, pixels."""
        return -(-self.resolution // self.stride)

    def layers(self) -> tuple[Layer, ...]:
        """Return the convolution."""
        return (conv(self.in_channels, self.out_channels, self.resolution, self.kernel, stride=self.stride),)
