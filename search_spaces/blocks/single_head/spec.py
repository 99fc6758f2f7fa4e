"""Single-head partial attention: the block of SHViT (arXiv:2401.16456), the cheap kind of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import counting
from search_spaces.counting import Layer
from search_spaces.errors import InputError
from search_spaces.spec import SameShape, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleHeadSpec(SameShape):
    """Depthwise 3x3 convolution, one attention head on a part of the channels, ReLU MLP; all three residual.

    Convolutions have a batch norm behind them; only the attended channels are normed per image.

    Attributes:
        attended: channels that attention mixes, the first ones; 0 leaves attention out, as SHViT's first stage does.
        query_channels: of queries and of keys.
    """

    family: ClassVar[str] = "single_head"
    optional: ClassVar[frozenset[str]] = frozenset({"attended"})
    kernel: ClassVar[int] = 3

    channels: int
    resolution: int
    attended: int
    query_channels: int = 16
    expansion: int

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.attended > self.channels:
            raise InputError(f"single_head: {self.attended} attended channels of {self.channels}")

    @property
    def hidden_channels(self) -> int:
        """Width of the MLP."""
        return self.channels * self.expansion

    def layers(self) -> tuple[Layer, ...]:
        """Return its layers; the residual stream waits for every addition."""
        side, channels, attended = self.resolution, self.channels, self.attended
        tokens = side**2
        own = tokens * channels
        position = counting.conv(channels, channels, side, self.kernel, groups=channels)
        mlp = (
            counting.conv(channels, self.hidden_channels, side),
            counting.conv(self.hidden_channels, channels, side, waiting=own),
        )
        if not attended:
            return (position, *mlp)
        attention = (
            counting.norm(attended, tokens, waiting=own),
            counting.conv(attended, 2 * self.query_channels + attended, side, waiting=own),
            counting.attention_products(tokens, 1, self.query_channels, attended, waiting=own),
            counting.conv(channels, channels, side, waiting=own),
        )
        return (position, *attention, *mlp)
