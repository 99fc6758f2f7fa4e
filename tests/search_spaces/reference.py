"""What genomes mean, written out slowly: no tables, no masks, nothing shared with the code under test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from search_spaces.blocks import AttentionSpec, ConvNeXtSpec, DownsampleSpec, HeadSpec, MBConvSpec, StemSpec
from search_spaces.language import Layout
from search_spaces.space import Gene, Genomes, Option, SearchSpace
from search_spaces.spec import BlockSpec, PlacedBlock


def meaning(space: SearchSpace, row: npt.NDArray[np.integer]) -> dict[str, Option]:
    """Return the genes that exist in a genome, canonical or not, with their options."""
    genes = {gene.name: gene for gene in space.genes}
    chosen = {gene.name: gene.options[int(index)] for gene, index in zip(space.genes, row, strict=True)}

    def exists(gene: Gene) -> bool:
        if gene.when is None:
            return True
        return chosen[gene.when.gene] in gene.when.options and exists(genes[gene.when.gene])

    return {name: chosen[name] for name, gene in genes.items() if exists(gene)}


def every_row(space: SearchSpace) -> Genomes:
    """Return every combination of option indices, those that stand for the same network included."""
    rows = itertools.product(*(range(len(gene.options)) for gene in space.genes))
    return np.array(list(rows), dtype=np.int16).reshape(-1, space.n_genes)


def every_network(space: SearchSpace) -> Genomes:
    """Return every canonical genome of a space whose parents stand before their children."""
    rows: list[tuple[dict[str, Option], tuple[int, ...]]] = [({}, ())]
    for gene in space.genes:
        longer = []
        for chosen, row in rows:
            exists = gene.when is None or chosen.get(gene.when.gene) in gene.when.options
            for index, option in enumerate(gene.options if exists else gene.options[:1]):
                longer.append((chosen | {gene.name: option} if exists else chosen, (*row, index)))
        rows = longer
    return np.array([row for _, row in rows], dtype=np.int16)


def blocks_of(layout: Layout, chosen: Mapping[str, Option]) -> tuple[PlacedBlock, ...]:
    """Return the blocks of the network with these options, following the sentences of the layout's documentation."""
    widths = [int(chosen[f"stage{stage}.width"]) for stage in range(1, len(layout.stages) + 1)]
    side = layout.input.resolution
    stem = StemSpec(
        in_channels=layout.input.channels,
        out_channels=widths[0],
        resolution=side,
        kernel=layout.stem_kernel,
        stride=layout.stem_stride,
    )
    placed = [PlacedBlock("stem", stem)]
    side //= layout.stem_stride
    for stage, width in enumerate(widths, start=1):
        if stage > 1:
            merge = DownsampleSpec(in_channels=widths[stage - 2], out_channels=width, resolution=side)
            placed.append(PlacedBlock(f"stage{stage}.downsample", merge))
            side //= 2
        for block in range(1, int(chosen[f"stage{stage}.depth"]) + 1):
            slot = f"stage{stage}.block{block}"
            placed.append(PlacedBlock(slot, _stage_block(slot, width, side, chosen)))
    head = HeadSpec(
        in_channels=widths[-1], resolution=side, features=layout.head_features, classes=layout.input.classes
    )
    return (*placed, PlacedBlock("head", head))


def _stage_block(slot: str, width: int, side: int, chosen: Mapping[str, Option]) -> BlockSpec:
    family = chosen[f"{slot}.operator"]

    def size(field: str) -> int:
        return int(chosen[f"{slot}.{family}.{field}"])

    match family:
        case "mbconv":
            return MBConvSpec(
                in_channels=width,
                out_channels=width,
                resolution=side,
                kernel=size("kernel"),
                expansion=size("expansion"),
            )
        case "convnext":
            return ConvNeXtSpec(channels=width, resolution=side, kernel=size("kernel"), expansion=size("expansion"))
        case "attention":
            return AttentionSpec(channels=width, resolution=side, expansion=size("expansion"))
    raise AssertionError(f"{slot} holds {family}")
