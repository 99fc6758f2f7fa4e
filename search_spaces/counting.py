"""Layers of a block as far as counting goes: what a family says of itself, and what all counters sum.

Conventions, for one image: MACs of convolutions, linear layers and attention products. Norms, activation functions,
residual additions and the gate of squeeze-and-excite are done in place and cost nothing; a bias is no MAC.
*Activations* are elements that convolutions, linear layers and attention products write (as fvcore and timm count). A
deployed batch norm is folded into the layer before it, so that only a bias per channel is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from search_spaces.errors import unknown_name

WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of one weight by precision."""

LayerKind = Literal["dense", "grouped", "product", "norm", "other"]
"""Convolutions and linear layers of all channels; convolutions of groups of them; products of activations; norms with
statistics of their input; and what is less than these."""

_INT8_CHANNEL_BYTES = 8  # a scale and a 32-bit bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One step of a block.

    Attributes:
        kind: what it is for whoever runs it.
        macs: multiply-accumulates.
        weights: elements of kernels and matrices.
        vectors: other learned elements: biases, scales and shifts of norms.
        deployed_vectors: what folding batch norms leaves of those.
        channels: rows of its matrix, each with a scale of its own in int8; 0 without weights.
        outputs: elements that it writes.
        alive: elements in memory while it runs: its input, its output and what waits for later layers.
    """

    kind: LayerKind = "other"
    macs: int = 0
    weights: int = 0
    vectors: int = 0
    deployed_vectors: int = 0
    channels: int = 0
    outputs: int = 0
    alive: int

    def weight_bytes(self, precision: str) -> int:
        """Return the size of what is stored of it: 8-bit weights keep scales and biases in 32 bits."""
        if precision == "int8" and self.weights:
            return self.weights + _INT8_CHANNEL_BYTES * self.channels
        size = WEIGHT_BYTES[precision] if precision != "int8" else WEIGHT_BYTES["fp32"]
        return size * (self.weights + self.deployed_vectors)


def check_precision(precision: str) -> None:
    """Raise `InputError` for a precision that has no size."""
    if precision not in WEIGHT_BYTES:
        raise unknown_name("precision", precision, WEIGHT_BYTES)


def conv(
    in_channels: int,
    out_channels: int,
    side: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    norm: bool = True,
    bias: bool = False,
    waiting: int = 0,
) -> Layer:
    """Return a convolution, by default with a batch norm behind it.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        side: of the input, pixels; padded so that with stride 1 the output has it too.
        kernel: side of the kernel.
        stride: in both directions.
        groups: of channels; as many as channels make it depthwise.
        norm: whether a batch norm follows, which is folded away.
        bias: whether it has a bias of its own.
        waiting: elements that are kept for later layers meanwhile.
    """
    pixels = (-(-side // stride)) ** 2
    weights = kernel**2 * (in_channels // groups) * out_channels
    return Layer(
        kind="grouped" if groups > 1 else "dense",
        macs=pixels * weights,
        weights=weights,
        vectors=out_channels * (2 * norm + bias),
        deployed_vectors=out_channels * (norm or bias),
        channels=out_channels,
        outputs=pixels * out_channels,
        alive=side**2 * in_channels + pixels * out_channels + waiting,
    )


def linear(in_features: int, out_features: int, rows: int = 1, *, bias: bool = True, waiting: int = 0) -> Layer:
    """Return a linear layer applied to so many rows."""
    return Layer(
        kind="dense",
        macs=rows * in_features * out_features,
        weights=in_features * out_features,
        vectors=bias * out_features,
        deployed_vectors=bias * out_features,
        channels=out_features,
        outputs=rows * out_features,
        alive=rows * (in_features + out_features) + waiting,
    )


def norm(features: int, rows: int = 1, *, waiting: int = 0) -> Layer:
    """Return a norm with statistics of its input, which stays in the deployed network."""
    return Layer(kind="norm", vectors=2 * features, deployed_vectors=2 * features, alive=2 * rows * features + waiting)


def scale(features: int, rows: int = 1, *, waiting: int = 0) -> Layer:
    """Return a learned factor per feature, in place."""
    return Layer(vectors=features, deployed_vectors=features, alive=rows * features + waiting)


def attention_products(tokens: int, heads: int, query_channels: int, value_channels: int, *, waiting: int = 0) -> Layer:
    """Return both matrix products of attention over all pairs of tokens, channels counted per head."""
    scores = heads * tokens**2
    inputs = heads * tokens * (2 * query_channels + value_channels)
    mixed = heads * tokens * value_channels
    return Layer(
        kind="product",
        macs=scores * (query_channels + value_channels),
        outputs=scores + mixed,
        alive=inputs + scores + max(0, mixed - heads * tokens * 2 * query_channels) + waiting,
    )


def squeeze_excite(channels: int, squeezed: int, *, waiting: int = 0) -> tuple[Layer, Layer]:
    """Return the two layers of squeeze-and-excite on pooled channels; `waiting` includes the image that is gated."""
    return (
        conv(channels, squeezed, 1, norm=False, bias=True, waiting=waiting),
        conv(squeezed, channels, 1, norm=False, bias=True, waiting=waiting),
    )
