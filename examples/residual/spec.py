"""The block of ResNet in numbers: the key of latency tables, and what is counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.counting import Layer, conv
from search_spaces.spec import SameShape, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualSpec(SameShape):
    """Two convolutions, batch norm after each, added to the input (ResNet, arXiv:1512.03385)."""

    family: ClassVar[str] = "residual"

    channels: int
    resolution: int
    kernel: int
    hidden: int

    def __post_init__(self) -> None:
        check_sizes(self, odd=("kernel",))

    def layers(self) -> tuple[Layer, ...]:
        """Return its layers; the input waits for the addition."""
        waiting = self.channels * self.resolution**2
        return (
            conv(self.channels, self.hidden, self.resolution, self.kernel),
            conv(self.hidden, self.channels, self.resolution, self.kernel, waiting=waiting),
        )
