"""ConvNeXt block (arXiv:2201.03545)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import counting
from search_spaces.blocks.words import LAYER_NORM, NORMS
from search_spaces.counting import Layer
from search_spaces.spec import SameShape, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNeXtSpec(SameShape):
    """Depthwise convolution, norm, two-layer GELU MLP, layer scale, residual.

    The norm is a layer norm, as published, or a batch norm, which a deployed network has folded away.
    """

    family: ClassVar[str] = "convnext"

    channels: int
    resolution: int
    kernel: int
    expansion: int
    norm: str = LAYER_NORM

    def __post_init__(self) -> None:
        check_sizes(self, odd=("kernel",), words={"norm": NORMS})

    @property
    def hidden_channels(self) -> int:
        """Width of the MLP."""
        return self.channels * self.expansion

    def layers(self) -> tuple[Layer, ...]:
        """Return its layers; the input waits for the addition."""
        pixels, channels = self.resolution**2, self.channels
        own = pixels * channels
        layered = self.norm == LAYER_NORM
        mixed = counting.conv(
            channels, channels, self.resolution, self.kernel, groups=channels, norm=not layered, bias=layered
        )
        return (
            mixed,
            *((counting.norm(channels, pixels, waiting=own),) if layered else ()),
            counting.linear(channels, self.hidden_channels, pixels, waiting=own),
            counting.linear(self.hidden_channels, channels, pixels, waiting=own),
            counting.scale(channels, pixels, waiting=own),
        )
