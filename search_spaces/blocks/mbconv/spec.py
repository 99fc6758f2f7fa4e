"""MBConv: the inverted residual of MobileNetV2 (arXiv:1801.04381)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.spec import check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class MBConvSpec:
    """1x1 expansion, depthwise convolution, linear 1x1 projection; batch norm after each, ReLU after the first two.

    The input is added to the output where their shapes agree. With expansion 1 the first convolution is left out.
    """

    family: ClassVar[str] = "mbconv"

    in_channels: int
    out_channels: int
    resolution: int
    stride: int = 1
    kernel: int
    expansion: int

    def __post_init__(self) -> None:
        check_sizes(self, odd=("kernel",))

    @property
    def hidden_channels(self) -> int:
        """Channels between expansion and projection."""
        return self.in_channels * self.expansion

    @property
    def out_resolution(self) -> int:
        """Side of the output, pixels."""
        return -(-self.resolution // self.stride)

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels

    def macs(self) -> int:
        """Multiply-accumulates, batch 1."""
        expand = self.resolution**2 * self.in_channels * self.hidden_channels if self.expansion > 1 else 0
        rest = self.out_resolution**2 * self.hidden_channels * (self.kernel**2 + self.out_channels)
        return expand + rest

    def params(self) -> int:
        """Learned parameters."""
        expand = (self.in_channels + 2) * self.hidden_channels if self.expansion > 1 else 0
        depthwise = (self.kernel**2 + 2) * self.hidden_channels
        project = (self.hidden_channels + 2) * self.out_channels
        return expand + depthwise + project
