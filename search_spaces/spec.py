"""Concrete blocks and networks as values: the LUT's key, the counter's input, the extractor's blueprint.

A block family describes itself; counters, latency tables and exporters only iterate and sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from search_spaces.counting import Layer, check_precision
from search_spaces.documents import canonical_json
from search_spaces.errors import InputError, unknown_name

_SHAPE_FIELDS = {"family", "in_channels", "out_channels", "channels", "resolution"}


class BlockSpec(Protocol):
    """One concrete block: a frozen dataclass of numbers and words, without torch.

    Images are square: `resolution` is the side of the input in pixels, `out_resolution` that of the output. A block
    that ends in logits or features without extent has `out_resolution` 1.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    family: ClassVar[str]
    role: ClassVar[str]
    optional: ClassVar[frozenset[str]]

    @property
    def in_channels(self) -> int:
        """Channels of the input."""

    @property
    def out_channels(self) -> int:
        """Channels of the output."""

    @property
    def resolution(self) -> int:
        """Side of the input, pixels."""

    @property
    def out_resolution(self) -> int:
        """Side of the output, pixels."""

    def layers(self) -> tuple[Layer, ...]:
        """The steps of the block in order, from which everything is counted."""

    def macs(self) -> int:
        """Multiply-accumulates of convolutions, linear layers and attention products, batch 1."""

    def params(self) -> int:
        """Learned parameters: weights, biases, norm scales and shifts; no running statistics."""

    def activations(self) -> int:
        """Elements written by convolutions, linear layers and attention products, batch 1."""

    def peak_elements(self) -> int:
        """Most elements of activations that are in memory at once, batch 1."""

    def weight_bytes(self, precision: str) -> int:
        """Size of the deployed weights: batch norms folded, matrices at the precision, see `search_spaces.counting`."""


class Counted:
    """Base of specs: everything that is counted, from `layers`.

    Attributes:
        role: where in a network the family may stand: ``"stem"``, ``"downsample"``, ``"operator"`` or ``"head"``.
        optional: sizes that may be 0, for a part that is left out.
    """

    __slots__ = ()

    family: ClassVar[str]
    role: ClassVar[str] = "operator"
    optional: ClassVar[frozenset[str]] = frozenset()

    def layers(self) -> tuple[Layer, ...]:
        """Return the steps of the block in order."""
        raise NotImplementedError

    def macs(self) -> int:
        """Return multiply-accumulates, batch 1."""
        return sum(layer.macs for layer in self.layers())

    def params(self) -> int:
        """Return learned parameters."""
        return sum(layer.weights + layer.vectors for layer in self.layers())

    def activations(self) -> int:
        """Return elements written by convolutions, linear layers and attention products, batch 1."""
        return sum(layer.outputs for layer in self.layers())

    def peak_elements(self) -> int:
        """Return the most elements of activations that are in memory at once, batch 1."""
        return max(layer.alive for layer in self.layers())

    def weight_bytes(self, precision: str) -> int:
        """Return the size of the deployed weights; raises `InputError` for a precision that has no size."""
        check_precision(precision)
        return sum(layer.weight_bytes(precision) for layer in self.layers())


class SameShape(Counted):
    """Base of specs whose output has the shape of the input; such a spec has `channels` and `resolution`."""

    __slots__ = ()

    channels: int
    resolution: int

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


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """A block and the slot of the space it stands in, such as ``stage2.block1``."""

    slot: str
    block: BlockSpec


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One concrete network: its blocks from input to logits."""

    blocks: tuple[PlacedBlock, ...]

    def __iter__(self) -> Iterator[PlacedBlock]:
        return iter(self.blocks)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input image."""
        first = self.blocks[0].block
        return (first.in_channels, first.resolution, first.resolution)

    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(placed.block.macs() for placed in self.blocks)

    def params(self) -> int:
        """Learned parameters."""
        return sum(placed.block.params() for placed in self.blocks)

    def activations(self) -> int:
        """Elements written by convolutions, linear layers and attention products, of one image."""
        return sum(placed.block.activations() for placed in self.blocks)

    def peak_elements(self) -> int:
        """Most elements of activations that are in memory at once, of one image."""
        return max(placed.block.peak_elements() for placed in self.blocks)

    def weight_bytes(self, precision: str) -> int:
        """Size of the deployed weights; raises `InputError` for a precision that has no size."""
        return sum(placed.block.weight_bytes(precision) for placed in self.blocks)


def block_fields(block: BlockSpec) -> dict[str, object]:
    """Return a block's family and fields, ready for JSON."""
    return {"family": block.family} | {f.name: getattr(block, f.name) for f in dataclasses.fields(block)}


def chosen_sizes(block: BlockSpec) -> dict[str, object]:
    """Return what was chosen of a block beside its family and the shapes that go in and come out."""
    return {name: value for name, value in block_fields(block).items() if name not in _SHAPE_FIELDS}


def block_key(block: BlockSpec) -> str:
    """Return the canonical JSON of a block: its identity in tables and caches."""
    return canonical_json(block_fields(block))


def check_sizes(
    block: BlockSpec,
    *,
    odd: tuple[str, ...] = (),
    derived: tuple[str, ...] = (),
    words: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Raise `InputError` for a block that cannot be.

    Args:
        block: with numbers that must be at least 1.
        odd: names of those that must be odd.
        derived: names of those that are 0 where they follow from others.
        words: allowed words by name.
    """
    for field in dataclasses.fields(block):
        value = getattr(block, field.name)
        least = 0 if field.name in {*block.optional, *derived} else 1
        if words is not None and field.name in words:
            if value not in words[field.name]:
                raise unknown_name(f"{field.name} of {block.family}", value, words[field.name])
        elif not _is_size(value, fraction="float" in str(field.type)):
            raise InputError(f"{block.family}: {field.name} must be a whole number, got {value!r}")
        elif not least <= value < _LARGEST:
            bound = f"at least {least}" if value < least else f"below {_LARGEST}"
            raise InputError(f"{block.family}: {field.name} must be {bound}, got {value}")
        if field.name in odd and value % 2 == 0:
            raise InputError(f"{block.family}: {field.name} must be odd, got {value}")


_LARGEST = 2**20
"""No size of a block is as large."""


def _is_size(value: object, *, fraction: bool) -> bool:
    """Return whether a value is a whole number, or a fraction where one is allowed; 2.0 is no way to write 2."""
    return type(value) is int or (fraction and type(value) is float and not value.is_integer())


Spec = TypeVar("Spec", bound=BlockSpec)


def largest_spec(specs: Iterable[Spec]) -> Spec:
    """Return the spec that contains all of one family: every number at its largest.

    Words (such as an activation) are not sizes and must agree.

    Raises:
        ValueError: the specs are of several families, or differ in a word.
    """
    items = list(specs)
    families = {spec.family for spec in items}
    if len(families) != 1:
        raise ValueError(f"one family expected, got {sorted(families)}")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(items[0]):
        options = {getattr(spec, field.name) for spec in items}
        if len(options) > 1 and any(isinstance(option, str) for option in options):
            raise ValueError(f"{items[0].family}: {field.name} must agree within a slot, got {sorted(options)}")
        values[field.name] = max(options)
    return dataclasses.replace(items[0], **values)


def round_channels(channels: float, multiple: int = 8) -> int:
    """Return the nearest multiple, at least one and at most a tenth below (as MobileNets and Once-for-All round)."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded
