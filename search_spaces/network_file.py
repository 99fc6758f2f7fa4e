"""Networks as JSON, written and read; what is read may come from anywhere."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

from search_spaces.blocks import FAMILIES
from search_spaces.documents import canonical_json, decode, document
from search_spaces.errors import InputError, unknown_name
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock, block_fields


@document
@dataclass(frozen=True)
class _Placed:
    slot: str
    block: dict[str, int | float | str]


@document
@dataclass(frozen=True)
class _Network:
    blocks: tuple[_Placed, ...]


def read_network(text: str | bytes, *, source: str) -> NetworkSpec:
    """Return a network of blocks that follow one another.

    Args:
        text: JSON, which is not trusted.
        source: where it came from, for messages.

    Raises:
        InputError: the text is no JSON, a block cannot be, or two blocks do not fit.
    """
    network = decode(_Network, text, source=source)
    if not network.blocks:
        raise InputError(f"{source}: a network has at least one block")
    try:
        placed = tuple(PlacedBlock(item.slot, _block(item.block)) for item in network.blocks)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    names = [item.slot.replace(".", "_") for item in placed]
    if not all(name.isidentifier() for name in names) or len(set(names)) < len(names):
        raise InputError(f"{source}: slots need distinct names of letters, digits, underscores and dots")
    if [item.block.role for item in placed].count("head") != 1 or placed[-1].block.role != "head":
        raise InputError(f"{source}: a network ends in its one head")
    for before, after in itertools.pairwise(placed):
        given = (before.block.out_channels, before.block.out_resolution)
        if given != (after.block.in_channels, after.block.resolution):
            raise InputError(
                f"{source}: {before.slot} gives {given} channels and pixels, which {after.slot} does not take"
            )
    return NetworkSpec(placed)


def _block(fields: dict[str, Any]) -> BlockSpec:
    family = fields.get("family")
    if family not in FAMILIES:
        raise unknown_name("block family", family, FAMILIES)
    kind = FAMILIES[str(family)]
    known = [field.name for field in dataclasses.fields(kind)]
    for name in fields.keys() - {"family", *known}:
        raise unknown_name(f"field of {family}", name, known)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in fields and field.default is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{family} lacks {', '.join(missing)}")
    block: BlockSpec = kind(**{name: value for name, value in fields.items() if name != "family"})
    return block


def network_json(network: NetworkSpec) -> str:
    """Return a network as canonical JSON: equal networks give equal texts."""
    return canonical_json({"blocks": [{"slot": item.slot, "block": block_fields(item.block)} for item in network]})
