"""Block families, one folder each: ``spec.py`` (numbers, no torch) and ``module.py`` (torch).

To add a family: write the folder, add its spec to `FAMILIES`. The module class is named like the spec without ``Spec``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from search_spaces.blocks.attention.spec import AttentionSpec
from search_spaces.blocks.convnext.spec import ConvNeXtSpec
from search_spaces.blocks.downsample.spec import DownsampleSpec
from search_spaces.blocks.fused_mbconv.spec import FusedMBConvSpec
from search_spaces.blocks.head.spec import HeadSpec
from search_spaces.blocks.mbconv.spec import MBConvSpec
from search_spaces.blocks.patchify.spec import PatchifySpec
from search_spaces.blocks.single_head.spec import SingleHeadSpec
from search_spaces.blocks.stem.spec import StemSpec
from search_spaces.spec import BlockSpec

if TYPE_CHECKING:
    from search_spaces.blocks.layers import Block

FAMILIES: dict[str, type[BlockSpec]] = {
    spec.family: spec
    for spec in (
        StemSpec,
        PatchifySpec,
        DownsampleSpec,
        MBConvSpec,
        FusedMBConvSpec,
        ConvNeXtSpec,
        AttentionSpec,
        SingleHeadSpec,
        HeadSpec,
    )
}


def build_module(spec: BlockSpec) -> Block[Any]:
    """Return a torch module for a block, with fresh weights; elastic below its sizes. Loads torch.

    The class stands in ``module.py`` beside the file of the spec.
    """
    module = importlib.import_module(f"{type(spec).__module__.rpartition('.')[0]}.module")
    block: Block[Any] = getattr(module, type(spec).__name__.removesuffix("Spec"))(spec)
    return block


__all__ = [
    "FAMILIES",
    "AttentionSpec",
    "ConvNeXtSpec",
    "DownsampleSpec",
    "FusedMBConvSpec",
    "HeadSpec",
    "MBConvSpec",
    "PatchifySpec",
    "SingleHeadSpec",
    "StemSpec",
    "build_module",
]
