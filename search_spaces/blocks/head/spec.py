"""Classifier head: pool first, widen after, as MobileNetV3's efficient last stage (arXiv:1905.02244, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.spec import check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """Global average pooling, linear layer, ReLU, linear classifier."""

    family: ClassVar[str] = "head"

    in_channels: int
    resolution: int
    features: int
    classes: int

    def __post_init__(self) -> None:
        check_sizes(self)

    @property
    def out_channels(self) -> int:
        """Number of classes."""
        return self.classes

    @property
    def out_resolution(self) -> int:
        """Logits have no extent."""
        return 1

    def macs(self) -> int:
        """Multiply-accumulates, batch 1."""
        return self.in_channels * self.features + self.features * self.classes

    def params(self) -> int:
        """Learned parameters."""
        return (self.in_channels + 1) * self.features + (self.features + 1) * self.classes
