"""Down-sampling between stages: non-overlapping patches are merged, as in ConvNeXt (arXiv:2201.03545, section 2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.spec import check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class DownsampleSpec:
    """2x2 convolution with stride 2, batch norm. The resolution must be even."""

    family: ClassVar[str] = "downsample"
    kernel: ClassVar[int] = 2

    in_channels: int
    out_channels: int
    resolution: int

    def __post_init__(self) -> None:
        check_sizes(self)

    @property
    def out_resolution(self) -> int:
        """Side of the output, pixels."""
        return self.resolution // 2

    def macs(self) -> int:
        """Multiply-accumulates, batch 1."""
        return self.out_resolution**2 * self.kernel**2 * self.in_channels * self.out_channels

    def params(self) -> int:
        """Learned parameters."""
        return self.kernel**2 * self.in_channels * self.out_channels + 2 * self.out_channels
