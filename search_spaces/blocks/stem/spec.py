"""Convolutional stem: image to feature map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.spec import check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class StemSpec:
    """Convolution, batch norm, ReLU."""

    family: ClassVar[str] = "stem"

    in_channels: int
    out_channels: int
    resolution: int
    kernel: int
    stride: int

    def __post_init__(self) -> None:
        check_sizes(self, odd=("kernel",))

    @property
    def out_resolution(self) -> int:
        """Side of the output, pixels."""
        return -(-self.resolution // self.stride)

    def macs(self) -> int:
        """Multiply-accumulates, batch 1."""
        return self.out_resolution**2 * self.kernel**2 * self.in_channels * self.out_channels

    def params(self) -> int:
        """Learned parameters."""
        return self.kernel**2 * self.in_channels * self.out_channels + 2 * self.out_channels
