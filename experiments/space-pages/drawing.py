"""A space as a picture: its blocks from left to right."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from search_spaces.language import NetworkSpace
from search_spaces.layout import Stage

_COLOURS = {
    "stem": "#8c8c8c",
    "patchify": "#8c8c8c",
    "downsample": "#c7c7c7",
    "mbconv": "#4c78a8",
    "fused_mbconv": "#72b7b2",
    "convnext": "#54a24b",
    "attention": "#e45756",
    "single_head": "#f2a65a",
    "head": "#8c8c8c",
}
_HATCHES = {"mbconv": "", "fused_mbconv": "//", "convnext": "..", "attention": "xx", "single_head": "\\\\"}
_GAP, _PALE = 0.35, 0.35


def draw(space: NetworkSpace, path: Path) -> None:
    """Draw a space: a column per block, as high as the logarithm of the map's side."""
    layout = space.layout
    sides = layout.sides(layout.input.resolution)
    figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
    x = _column(axes, 0.0, [layout.stem.family], sides[0], pale=False)
    _label(axes, 0.0, x, "stem\n" + _listed(layout.stem.width or layout.stages[0].width))
    used = [layout.stem.family]
    for number, stage in enumerate(layout.stages, start=1):
        x += _GAP
        side = sides[number]
        if layout.downsamples(number):
            x = _column(axes, x, ["downsample"], side, pale=False)
            used.append("downsample")
        start = x
        for block in range(1, max(stage.depth) + 1):
            families = [operator.family for operator in stage.operators_at(block)]
            used += families
            x = _column(axes, x, families, side, pale=block > min(stage.depth))
        _label(axes, start, x, _stage_text(stage, side))
    x += _GAP
    end = _column(axes, x, [layout.head.family], sides[-1], pale=False)
    _label(axes, x, end, "head")
    handles = [
        Patch(facecolor=_COLOURS[family], hatch=_HATCHES.get(family), edgecolor="white", label=family.replace("_", " "))
        for family in dict.fromkeys(used)
    ]
    axes.legend(handles=handles, ncols=len(handles), loc="upper right", frameon=False, fontsize=9)
    axes.set(xlim=(-0.3, end + 0.3), ylim=(-2.6, _height(sides[0]) + 1.6))
    axes.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _column(axes: Axes, x: float, families: list[str], side: int, *, pale: bool) -> float:
    """Draw one block, divided among the families it chooses from; returns where the next one starts."""
    height = _height(side)
    for position, family in enumerate(families):
        axes.add_patch(
            Rectangle(
                (x, height * position / len(families)),
                0.85,
                height / len(families),
                facecolor=_COLOURS[family],
                hatch=_HATCHES.get(family),
                edgecolor="white",
                alpha=_PALE if pale else 1.0,
            )
        )
    return x + 1.0


def _height(side: int) -> float:
    return math.log2(side) + 1.0


def _stage_text(stage: Stage, side: int) -> str:
    blocks = "block" if stage.depth == (1,) else "blocks"
    return f"{side} px\nwidth {_listed(stage.width)}\n{_listed(stage.depth)} {blocks}"


def _label(axes: Axes, start: float, end: float, text: str) -> None:
    axes.text((start + end - 0.15) / 2, -0.25, text, ha="center", va="top", fontsize=8.5)


def _listed(options: tuple[int, ...]) -> str:
    return "/".join(map(str, options))
