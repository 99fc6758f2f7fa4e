"""Down-sampling between stages: non-overlapping patches are merged, as in ConvNeXt (arXiv:2201.03545, section 2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.counting import Layer, conv
from search_spaces.spec import Counted, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class DownsampleSpec(Counted):
    """2x2 convolution with stride 2, batch norm. The resolution must be even."""

    family: ClassVar[str] = "downsample"
    role: ClassVar[str] = "downsample"
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

    def layers(self) -> tuple[Layer, ...]:
        """Return the convolution."""
        # On an odd side the last row and column are left out.
        side = 2 * self.out_resolution
        return (conv(self.in_channels, self.out_channels, side, self.kernel, stride=2),)
