"""Latency tables that Once-for-All and ProxylessNAS published, and the networks that they go with.

A table is a YAML file of one resolution, from the description of a block to its mean latency in milliseconds. The form
is so plain that it is read line by line: what is not of that form is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from predictors.additive import AdditiveCost
from search_spaces.blocks import HeadSpec, MBConvSpec, StemSpec
from search_spaces.errors import InputError, first_line
from search_spaces.language import NetworkSpace
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock

_ENTRY = re.compile(r"(?P<key>[A-Za-z0-9_]+-input:[A-Za-z0-9:x-]+):")
_FIELD = re.compile(r"  (?P<name>count|mean|std|var): (?P<value>[0-9.eE+-]+)")
_ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "h_swish": "hard-swish"}
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of one resolution.

    Attributes:
        source: where it came from.
        resolution: side of the images, pixels.
        latency_ms: by the description of a block.
    """

    source: str
    resolution: int
    latency_ms: Mapping[str, float]

    def network_ms(self, network: NetworkSpec) -> float:
        """Return the sum over a network's blocks; raises `InputError` naming what is missing."""
        return sum(self._look_up([placed.block for placed in network]))

    def cost(self, space: NetworkSpace) -> AdditiveCost:
        """Return the latency of all networks of a space, in ms; raises `InputError` naming what is missing."""
        return AdditiveCost(space, self._look_up(space.blocks))

    def keys(self, block: BlockSpec) -> tuple[str, ...]:
        """Return what the table calls a block's parts; raises `InputError` for a family that it does not know."""
        side, given, made = block.resolution, block.in_channels, block.out_channels
        out = f"output:{block.out_resolution}x{block.out_resolution}x{made}"
        if isinstance(block, StemSpec):
            return (f"Conv-input:{side}x{side}x{given}-{out}",)
        if isinstance(block, MBConvSpec):
            # Once-for-All tells channels, squeeze-and-excite and hard-swish; ProxylessNAS the ratio alone.
            named = any("-hs:" in key for key in self.latency_ms)
            expand = block.hidden_channels if named else block.expansion
            more = f"-se:{int(block.squeeze != 'none')}-hs:{int(block.activation == 'hard-swish')}" if named else ""
            return (
                f"expanded_conv-input:{side}x{side}x{given}-{out}-expand:{expand}-kernel:{block.kernel}"
                f"-stride:{block.stride}-idskip:{int(block.residual)}{more}",
            )
        if isinstance(block, HeadSpec) and block.expanded:
            pooled = block.expanded
            wide = f"Conv_1-input:{side}x{side}x{given}-output:{side}x{side}x{pooled}"
            if not block.features:
                return (wide, f"Logits-input:{side}x{side}x{pooled}-output:{made}")
            return (
                wide,
                f"AvgPool2D-input:{side}x{side}x{pooled}-output:1x1x{pooled}",
                f"Conv_2-input:1x1x{pooled}-output:1x1x{block.features}",
                f"Logits-input:1x1x{block.features}-output:{made}",
            )
        raise InputError(
            f"{self.source} has no {block.family} of this form; it knows the networks it was published with"
        )

    def _look_up(self, blocks: Sequence[BlockSpec]) -> list[float]:
        sides = {block.resolution for block in blocks if block.role == "stem"}
        if sides and sides != {self.resolution}:
            given = "/".join(map(str, sorted(sides)))
            raise InputError(f"{self.source} is of {self.resolution} pixels, not of {given}; take the table of those")
        keys = [self.keys(block) for block in blocks]
        missing = [key for of_block in keys for key in of_block if key not in self.latency_ms]
        if missing:
            shown = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
            raise InputError(f"{self.source} lacks {len(missing)} of {sum(map(len, keys))} entries: {shown}")
        return [sum(self.latency_ms[key] for key in of_block) for of_block in keys]


def read_published_table(text: str, *, source: str) -> PublishedTable:
    """Read a table.

    Args:
        text: of the file, which is not trusted.
        source: where it came from, for messages.

    Raises:
        InputError: a line is not of the published form, an entry has no mean, a figure is no latency; or the table does
            not say for which resolution it is.
    """
    latency_ms: dict[str, float] = {}
    key, has_mean = "", True
    for number, line in enumerate(text.splitlines(), start=1):
        place = f"{source}, line {number}"
        if not line.strip():
            continue
        if entry := _ENTRY.fullmatch(line.rstrip()):
            if not has_mean:
                raise InputError(f"{place}: the entry before, {key}, has no mean")
            key, has_mean = entry["key"], False
            if key in latency_ms:
                raise InputError(f"{place}: {key} is there twice")
        elif key and (field := _FIELD.fullmatch(line.rstrip())):
            if field["name"] == "mean":
                latency_ms[key], has_mean = _latency(field["value"], place), True
        else:
            raise InputError(f"{place}: not of the published form: {line[:60]!r}")
    if not has_mean:
        raise InputError(f"{source}: the last entry, {key}, has no mean")
    sides = {int(found[1]) for key in latency_ms if (found := re.match(r"Conv-input:(\d+)x", key))}
    if len(sides) != 1:
        raise InputError(f"{source}: {len(sides) or 'no'} entries of a first convolution (Conv-input:…); one is needed")
    return PublishedTable(source, sides.pop(), latency_ms)


def read_published_network(text: str | bytes, *, source: str, resolution: int) -> NetworkSpec:
    """Read a network of MBConvs that Once-for-All or ProxylessNAS published.

    Args:
        text: JSON of the file ``net.config``, which is not trusted.
        source: where it came from, for messages.
        resolution: side of the images; it stands in another file.

    Raises:
        InputError: the text is no such network.
    """
    try:
        document = json.loads(text)
        blocks = list(_blocks(document, resolution))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        raise InputError(f"{source} is no published network: {_reason(error)}") from None
    return NetworkSpec(tuple(PlacedBlock(f"block{number}", block) for number, block in enumerate(blocks)))


def _blocks(document: Any, resolution: int) -> Iterator[BlockSpec]:
    first, side = document["first_conv"], resolution
    last: BlockSpec = StemSpec(
        in_channels=first["in_channels"],
        out_channels=first["out_channels"],
        resolution=side,
        kernel=first["kernel_size"],
        stride=first["stride"],
        activation=_ACTIVATIONS[first["act_func"]],
    )
    yield last
    for item in document["blocks"]:
        block = item["mobile_inverted_conv"]
        if block["name"] == "ZeroLayer":
            continue  # with its shortcut, the identity
        hidden = block.get("mid_channels")
        last = MBConvSpec(
            in_channels=block["in_channels"],
            out_channels=block["out_channels"],
            resolution=last.out_resolution,
            stride=block["stride"],
            kernel=block["kernel_size"],
            # Where both are given, the channels count.
            expansion=_ratio(hidden, block["in_channels"]) if hidden else block["expand_ratio"],
            activation=_ACTIVATIONS[block.get("act_func", "relu6")],
            squeeze="hidden" if block.get("use_se", False) else "none",
        )
        yield last
    expand = document.get("final_expand_layer")
    mix = document["feature_mix_layer"]
    yield HeadSpec(
        in_channels=last.out_channels,
        resolution=last.out_resolution,
        expanded=(expand or mix)["out_channels"],
        features=mix["out_channels"] if expand else 0,
        classes=document["classifier"]["out_features"],
        activation=_ACTIVATIONS[mix["act_func"]],
    )


def _ratio(hidden: int, channels: int) -> float:
    ratio = hidden / channels
    return int(ratio) if ratio.is_integer() else ratio


def _latency(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise InputError(f"{place}: {text!r} is no latency")
    return value


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
