"""ConvNeXt block (arXiv:2201.03545)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.spec import check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNeXtSpec:
    """Depthwise convolution, layer norm, two-layer GELU MLP, layer scale, residual."""

    family: ClassVar[str] = "convnext"

    channels: int
    resolution: int
    kernel: int
    expansion: int

    def __post_init__(self) -> None:
        check_sizes(self, odd=("kernel",))

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.channels

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.channels

    @property
    def out_resolution(self) -> int:
        """Side of the output, pixels."""
        return self.resolution

    @property
    def hidden_channels(self) -> int:
        """Width of the MLP."""
        return self.channels * self.expansion

    def macs(self) -> int:
        """Multiply-accumulates, batch 1."""
        return self.resolution**2 * self.channels * (self.kernel**2 + 2 * self.hidden_channels)

    def params(self) -> int:
        """Learned parameters."""
        depthwise = (self.kernel**2 + 1) * self.channels
        mlp = (self.channels + 1) * self.hidden_channels + (self.hidden_channels + 1) * self.channels
        return depthwise + mlp + 3 * self.channels  # layer norm's scale and shift, layer scale
