"""What a network's latency may depend on, as figures of its blocks that add up."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import numpy.typing as npt

from search_spaces.counting import LayerKind
from search_spaces.errors import InputError
from search_spaces.spec import BlockSpec

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BlockTimes:
    """What blocks were measured to take, in the order of ``space.blocks``, ``float64[n_blocks]`` each.

    Attributes:
        latency_ms: with all that a block touches in the nearest cache, as it runs back to back alone.
        cold_ms: with nothing of it in any cache.
    """

    latency_ms: Values
    cold_ms: Values


TIME = "time"
WAIT = "wait"
TOUCHED = "touched_mb"
CONSTANT = "constant"
CONTEXT = (CONSTANT, "blocks", "weights_mb")
LAYERS = (
    *(f"{kind}_{figure}" for kind in ("dense", "grouped", "product") for figure in ("layers", "mmacs", "moutputs")),
    "norm_layers",
)
"""Devices differ in what they are good at: kernels that are large or depthwise, memory, or many small steps."""

_NETWORKS = "networks"
_LAYER_FIGURES = frozenset(
    f"{kind}_{figure}" for kind in get_args(LayerKind) for figure in ("layers", "mmacs", "moutputs")
)
_FEATURE = re.compile(r"time(:\w+|@\d+|%\d+)?|networks%\d+|blocks|weights_mb|touched_mb|wait")
_ELEMENT_BYTES = {"fp32": 4, "int8": 1}


def feature(name: str, blocks: Sequence[BlockSpec], times: BlockTimes, precision: str, batch: int = 1) -> Values:
    """Return a feature of every block, ``float64[n_blocks]``.

    ``time`` is its latency in ms; ``time:FAMILY``, ``time@SIDE`` and ``time%INPUT`` are the same for blocks of one
    family, on maps of about one side (a power of two), or of networks that take images of one size, else 0;
    ``networks%INPUT`` is 1 for the stems of those. ``wait`` is by how much a block is slower when nothing of it is in
    the caches. ``blocks`` is 1, ``weights_mb`` the size of its weights, ``touched_mb`` that and the activations it
    writes. ``KIND_layers``, ``KIND_mmacs`` and ``KIND_moutputs`` are the number of its layers of a kind, their million
    MACs and the millions of elements they write, see `search_spaces.counting`.

    Raises:
        InputError: there is no such feature.
    """
    if not _FEATURE.fullmatch(name) and name not in _LAYER_FIGURES:
        raise InputError(f"a latency table counts on {name!r}, which is no feature of blocks")
    if name == "blocks":
        return np.ones(len(blocks))
    if name == WAIT:
        return np.maximum(0.0, times.cold_ms - times.latency_ms)
    if name in ("weights_mb", TOUCHED):
        written = batch * _ELEMENT_BYTES[precision] if name == TOUCHED else 0
        return np.array([(block.weight_bytes(precision) + written * block.activations()) / 1e6 for block in blocks])
    if name in _LAYER_FIGURES:
        return np.array([_of_layers(cast(Hashable, block))[name] for block in blocks])
    family, side, size = (name.partition(mark)[2] for mark in ":@%")
    inputs = image_sizes(blocks) if size else []
    chosen = [_belongs(block, family, side) and size in ("", str(_input(block, inputs))) for block in blocks]
    if name.startswith(_NETWORKS):
        return np.where(chosen, [float(block.role == "stem") for block in blocks], 0.0)
    return np.where(chosen, times.latency_ms, 0.0)


def by_family(blocks: Sequence[BlockSpec]) -> list[str]:
    """Return the features that tell families of blocks apart."""
    return [f"{TIME}:{family}" for family in sorted({block.family for block in blocks})]


def by_side(blocks: Sequence[BlockSpec]) -> list[str]:
    """Return the features that tell sizes of maps apart."""
    return [f"{TIME}@{side}" for side in sorted({_side(block) for block in blocks})]


def by_image_size(blocks: Sequence[BlockSpec]) -> list[str]:
    """Return the features that tell sizes of images apart; none where all networks take images of one size."""
    sizes = image_sizes(blocks)
    return [f"{each}%{size}" for size in sizes for each in (TIME, _NETWORKS)] if len(sizes) > 1 else []


def image_sizes(blocks: Sequence[BlockSpec]) -> list[int]:
    """Return the sizes of the images that networks of these blocks take, falling."""
    return sorted({block.resolution for block in blocks if block.role == "stem"}, reverse=True)


@functools.lru_cache(maxsize=1 << 14)
def _of_layers(block: Hashable) -> Mapping[str, float]:
    """Return the figures of a block's layers by kind; specs are hashable, which their protocol cannot say."""
    figures = dict.fromkeys(_LAYER_FIGURES, 0.0)
    for layer in cast(BlockSpec, block).layers():
        figures[f"{layer.kind}_layers"] += 1.0
        figures[f"{layer.kind}_mmacs"] += layer.macs / 1e6
        figures[f"{layer.kind}_moutputs"] += layer.outputs / 1e6
    return figures


def _belongs(block: BlockSpec, family: str, side: str) -> bool:
    return family in ("", block.family) and side in ("", str(_side(block)))


def _side(block: BlockSpec) -> int:
    """Return the side of a block's map, rounded to a power of two."""
    return int(2 ** round(math.log2(block.resolution)))


def _input(block: BlockSpec, inputs: Sequence[int]) -> int | None:
    """Return the size of the images that a block's network takes: one that halves to the side of its map.

    Exactly if there is such a size, else rounded up; the largest of several, so that blocks that networks for images of
    several sizes share count for the largest.
    """
    if block.role == "stem":
        return block.resolution
    found = [
        (size % 2**halvings == 0, size)
        for size in inputs
        for halvings in range(size.bit_length())
        if -(-size // 2**halvings) == block.resolution
    ]
    return max(found)[1] if found else None
