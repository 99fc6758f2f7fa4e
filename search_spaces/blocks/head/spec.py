"""Classifier heads: pool first, widen after, as MobileNetV3's efficient last stage (arXiv:1905.02244, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.blocks.words import ACTIVATIONS
from search_spaces.counting import Layer, conv, linear
from search_spaces.spec import Counted, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec(Counted):
    """1x1 convolution and batch norm, global average pooling, linear layer, linear classifier.

    The activation follows the convolution and the first linear layer.

    Attributes:
        expanded: channels of the convolution; 0 leaves it out.
        features: of the first linear layer; 0 leaves it out.
    """

    family: ClassVar[str] = "head"
    role: ClassVar[str] = "head"
    optional: ClassVar[frozenset[str]] = frozenset({"expanded", "features"})

    in_channels: int
    resolution: int
    expanded: int = 0
    features: int
    classes: int
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_sizes(self, words={"activation": ACTIVATIONS})

    @property
    def out_channels(self) -> int:
        """Number of classes."""
        return self.classes

    @property
    def out_resolution(self) -> int:
        """Logits have no extent."""
        return 1

    @property
    def pooled_channels(self) -> int:
        """Channels that are pooled."""
        return self.expanded or self.in_channels

    def layers(self) -> tuple[Layer, ...]:
        """Return convolution and linear layers."""
        expand = (conv(self.in_channels, self.expanded, self.resolution),) if self.expanded else ()
        pool = Layer(alive=(self.resolution**2 + 1) * self.pooled_channels)
        widen = (linear(self.pooled_channels, self.features),) if self.features else ()
        return (*expand, pool, *widen, linear(self.features or self.pooled_channels, self.classes))
