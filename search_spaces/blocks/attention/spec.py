"""Transformer block with a convolutional position encoding (ViT, arXiv:2010.11929; CPVT, arXiv:2102.10882)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.errors import InputError
from search_spaces.spec import check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """Depthwise 3x3 position encoding, pre-norm multi-head self-attention over all pixels, pre-norm GELU MLP.

    All three are residual. `channels` must be a multiple of `head_channels`; there is one head per that many channels.
    """

    family: ClassVar[str] = "attention"
    position_kernel: ClassVar[int] = 3

    channels: int
    resolution: int
    head_channels: int = 16
    expansion: int

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.channels % self.head_channels:
            raise InputError(f"attention: {self.channels} channels are no multiple of {self.head_channels} per head")

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
    def heads(self) -> int:
        """Number of attention heads."""
        return self.channels // self.head_channels

    @property
    def hidden_channels(self) -> int:
        """Width of the MLP."""
        return self.channels * self.expansion

    def macs(self) -> int:
        """Multiply-accumulates, batch 1, the two attention products included."""
        tokens = self.resolution**2
        position = tokens * self.position_kernel**2 * self.channels
        attention = tokens * 4 * self.channels**2 + 2 * tokens**2 * self.channels
        mlp = 2 * tokens * self.channels * self.hidden_channels
        return position + attention + mlp

    def params(self) -> int:
        """Learned parameters."""
        position = (self.position_kernel**2 + 1) * self.channels
        attention = 4 * (self.channels + 1) * self.channels
        mlp = (self.channels + 1) * self.hidden_channels + (self.hidden_channels + 1) * self.channels
        return position + attention + mlp + 4 * self.channels  # scale and shift of two layer norms
