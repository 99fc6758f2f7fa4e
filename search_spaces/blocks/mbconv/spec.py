"""MBConv: the inverted residual of MobileNetV2 (arXiv:1801.04381), V3 (arXiv:1905.02244) and EfficientNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.blocks.words import ACTIVATIONS, NO_SQUEEZE, SQUEEZE_HIDDEN, SQUEEZE_INPUT, SQUEEZES
from search_spaces.counting import Layer, conv, squeeze_excite
from search_spaces.errors import InputError
from search_spaces.spec import Counted, check_sizes, round_channels


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual(Counted):
    """What MBConv and Fused MBConv share: many channels inside, few at the ends; residual if their shapes agree.

    Attributes:
        expansion: hidden channels over those of the input; a fraction is allowed where the product is whole.
        squeeze: the form of squeeze-and-excite, see `SQUEEZES`.
    """

    in_channels: int
    out_channels: int
    resolution: int
    stride: int = 1
    kernel: int
    expansion: int | float
    activation: str = "relu"
    squeeze: str = NO_SQUEEZE

    def __post_init__(self) -> None:
        check_sizes(self, odd=("kernel",), words={"activation": ACTIVATIONS, "squeeze": SQUEEZES})
        if abs(self.in_channels * self.expansion - self.hidden_channels) > 1e-6:
            raise InputError(
                f"{self.family}: {self.in_channels} channels times {self.expansion} are no whole number of channels"
            )

    @property
    def hidden_channels(self) -> int:
        """Channels between expansion and projection."""
        return round(self.in_channels * self.expansion)

    @property
    def squeezed_channels(self) -> int:
        """Channels that squeeze-and-excite goes down to; 0 without it."""
        if self.squeeze == SQUEEZE_HIDDEN:
            return round_channels(self.hidden_channels // 4)
        return max(1, self.in_channels // 4) if self.squeeze == SQUEEZE_INPUT else 0

    @property
    def out_resolution(self) -> int:
        """Side of the output, pixels."""
        return -(-self.resolution // self.stride)

    @property
    def residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def waiting_elements(self) -> int:
        """Elements of the input that wait for the addition."""
        return self.resolution**2 * self.in_channels if self.residual else 0

    def squeeze_layers(self) -> tuple[Layer, ...]:
        """Return the layers of squeeze-and-excite."""
        if not self.squeezed_channels:
            return ()
        gated = self.out_resolution**2 * self.hidden_channels
        return squeeze_excite(self.hidden_channels, self.squeezed_channels, waiting=gated + self.waiting_elements)


@dataclass(frozen=True, slots=True, kw_only=True)
class MBConvSpec(InvertedResidual):
    """1x1 expansion, depthwise convolution, squeeze-and-excite, linear 1x1 projection.

    Batch norm after each convolution, the activation after the first two. The input is added to the output where their
    shapes agree. With expansion 1 the first convolution is left out.
    """

    family: ClassVar[str] = "mbconv"

    def layers(self) -> tuple[Layer, ...]:
        """Return its convolutions."""
        waiting = self.waiting_elements
        hidden = self.hidden_channels
        expand = (conv(self.in_channels, hidden, self.resolution),) if self.expands else ()
        depthwise = conv(
            hidden,
            hidden,
            self.resolution,
            self.kernel,
            stride=self.stride,
            groups=hidden,
            # Without expansion the input of the block is the input of this layer.
            waiting=waiting if self.expands else 0,
        )
        project = conv(hidden, self.out_channels, self.out_resolution, waiting=waiting)
        return (*expand, depthwise, *self.squeeze_layers(), project)

    @property
    def expands(self) -> bool:
        """Whether it has the first convolution."""
        return self.expansion != 1
