"""What genomes mean, written out slowly: no tables, no masks, nothing shared with the code under test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.blocks import FAMILIES as KINDS
from search_spaces.blocks import DownsampleSpec
from search_spaces.layout import Layout
from search_spaces.space import Gene, Genomes, Option, SearchSpace
from search_spaces.spec import PlacedBlock

FAMILIES: dict[str, Any] = dict(KINDS)


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

    def choice(name: str, options: Sequence[Option]) -> Option:
        """Return what is chosen; what has one option is no gene."""
        assert (name in chosen) == (len(options) > 1)
        return chosen[name] if len(options) > 1 else options[0]

    widths = [int(choice(f"stage{n}.width", stage.width)) for n, stage in enumerate(layout.stages, start=1)]
    side = int(choice("resolution", layout.input.resolutions))
    width = int(choice("stem.width", layout.stem.width)) if layout.stem.width else widths[0]
    settings: dict[str, Any] = dict(layout.stem.settings)
    stem = FAMILIES[layout.stem.family](
        in_channels=layout.input.channels, out_channels=width, resolution=side, **settings
    )
    placed = [PlacedBlock("stem", stem)]
    side = -(-side // int(settings.get("stride") or settings["patch"]))
    for n, stage in enumerate(layout.stages, start=1):
        stride = stage.stride
        if stage.first == "downsample" and stride == 2:
            merge = DownsampleSpec(in_channels=width, out_channels=widths[n - 1], resolution=side)
            placed.append(PlacedBlock(f"stage{n}.downsample", merge))
            side, width, stride = side // 2, widths[n - 1], 1
        for number in range(1, int(choice(f"stage{n}.depth", stage.depth)) + 1):
            slot = f"stage{n}.block{number}"
            able = [o for o in stage.operators if "stride" in {field.name for field in fields(FAMILIES[o.family])}]
            operators = able if number == 1 and stage.first == "operator" else stage.operators
            family = choice(f"{slot}.operator", [operator.family for operator in operators])
            (operator,) = (each for each in operators if each.family == family)
            more: dict[str, Any] = {
                field: choice(f"{slot}.{family}.{field}", options) for field, options in operator.sizes
            } | dict(operator.settings)
            if operator in able:
                more |= {"in_channels": width, "out_channels": widths[n - 1], "stride": stride}
            else:
                more |= {"channels": width}
            placed.append(PlacedBlock(slot, FAMILIES[operator.family](resolution=side, **more)))
            side, width, stride = -(-side // stride), widths[n - 1], 1
    more = dict(layout.head.settings)
    head = FAMILIES[layout.head.family](in_channels=width, resolution=side, classes=layout.input.classes, **more)
    return (*placed, PlacedBlock("head", head))
