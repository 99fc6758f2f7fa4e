"""Transformer block with a convolutional position encoding (ViT, arXiv:2010.11929; CPVT, arXiv:2102.10882)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import counting
from search_spaces.counting import Layer
from search_spaces.errors import InputError
from search_spaces.spec import SameShape, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec(SameShape):
    """Depthwise 3x3 position encoding, pre-norm multi-head self-attention over all pixels, pre-norm GELU MLP.

    All three are residual.

    Attributes:
        head_channels: channels of each head's queries, keys and values.
        heads: how many; 0 for as many as make up the channels, which must then be a multiple of `head_channels`.
    """

    family: ClassVar[str] = "attention"
    position_kernel: ClassVar[int] = 3

    channels: int
    resolution: int
    head_channels: int = 16
    heads: int = 0
    expansion: int

    def __post_init__(self) -> None:
        check_sizes(self, derived=("heads",))
        if not self.heads and self.channels % self.head_channels:
            raise InputError(f"attention: {self.channels} channels are no multiple of {self.head_channels} per head")

    @property
    def n_heads(self) -> int:
        """Number of attention heads."""
        return self.heads or self.channels // self.head_channels

    @property
    def attended_channels(self) -> int:
        """Channels of all heads together."""
        return self.n_heads * self.head_channels

    @property
    def hidden_channels(self) -> int:
        """Width of the MLP."""
        return self.channels * self.expansion

    def layers(self) -> tuple[Layer, ...]:
        """Return its layers; the residual stream waits for every addition."""
        tokens, channels, attended = self.resolution**2, self.channels, self.attended_channels
        own = tokens * channels
        return (
            counting.conv(
                channels, channels, self.resolution, self.position_kernel, groups=channels, norm=False, bias=True
            ),
            counting.norm(channels, tokens),
            counting.linear(channels, 3 * attended, tokens, waiting=own),
            counting.attention_products(tokens, self.n_heads, self.head_channels, self.head_channels, waiting=own),
            counting.linear(attended, channels, tokens, waiting=own),
            counting.norm(channels, tokens),
            counting.linear(channels, self.hidden_channels, tokens, waiting=own),
            counting.linear(self.hidden_channels, channels, tokens, waiting=own),
        )
