"""Random spaces for property tests."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st

from search_spaces.layout import Head, ImageInput, Layout, Operator, Stage, Stem
from search_spaces.space import Condition, Gene, Genomes, Option, SearchSpace

Item = TypeVar("Item")

PROPERTY = settings(deadline=None, derandomize=True, max_examples=100)
"""The same examples in every run: a red test is the fault of the change under test."""

seeds = st.integers(0, 2**32 - 1)

_SIZES = st.integers(-9, 9)
_NAMES = st.text("abc")
_KINDS: st.SearchStrategy[st.SearchStrategy[Option]] = st.sampled_from(
    [_SIZES, _NAMES, _SIZES | st.floats(-9.5, 9.5, width=16) | _NAMES]
)


@st.composite
def forests(draw: st.DrawFn, *, min_options: int = 1) -> SearchSpace:
    """Draw up to five genes of up to four options, parents anywhere in the genome, some genes never existing."""
    order = draw(st.permutations(range(draw(st.integers(1, 5)))))
    genes: dict[int, Gene] = {}
    for position in order:
        options = tuple(draw(st.lists(draw(_KINDS), min_size=min_options, max_size=4, unique=True)))
        parent = draw(st.sampled_from([None, *genes.values()]))
        when = None if parent is None else Condition(parent.name, draw(_some(parent.options, min_size=0)))
        genes[position] = Gene(f"g{position}", options, when)
    return SearchSpace("random", [genes[position] for position in sorted(genes)])


@st.composite
def layouts(draw: st.DrawFn, *, max_depth: int = 3) -> Layout:
    """Draw up to two stages with any of the operators, options in any order, that leave something to choose."""
    stem = draw(_stems())
    numbers = range(1, draw(st.integers(1, 2)) + 1)
    stages = tuple(draw(_stages(max_depth, tied=number == 1 and not stem.width)) for number in numbers)
    multiple = 8 * math.prod(stage.stride for stage in stages)
    resolutions = draw(_some((multiple, 2 * multiple)))
    layout = Layout(
        name="random",
        input=ImageInput(
            channels=draw(st.sampled_from([1, 3])),
            resolution=max(resolutions),
            smaller=tuple(sorted(resolutions)[:-1]),
            classes=draw(st.integers(1, 4)),
        ),
        stem=stem,
        stages=stages,
        head=Head(settings=(("expanded", draw(st.sampled_from([0, 8]))), ("features", draw(st.integers(0, 8))))),
    )
    assume(_has_choices(layout))
    return layout


def _has_choices(layout: Layout) -> bool:
    options: list[tuple[object, ...]] = [layout.input.resolutions, layout.stem.width]
    for stage in layout.stages:
        options += [stage.width, stage.depth]
        deep = range(1, max(stage.depth) + 1)
        options += [tuple(o.family for o in stage.operators_at(block)) for block in deep]
        options += [sizes for block in deep for o in stage.operators_at(block) for _, sizes in o.sizes]
    return any(len(each) > 1 for each in options)


@st.composite
def _stems(draw: st.DrawFn) -> Stem:
    width = draw(st.sampled_from([(), (8,), (8, 16)]))
    if draw(st.booleans()):
        return Stem(family="patchify", width=width, settings=(("patch", draw(st.sampled_from([2, 4]))),))
    kernel, stride = draw(st.sampled_from([3, 5])), draw(st.sampled_from([1, 2, 4]))
    return Stem(width=width, settings=(("kernel", kernel), ("stride", stride), ("activation", "silu")))


@st.composite
def _stages(draw: st.DrawFn, max_depth: int, *, tied: bool) -> Stage:
    kernels, expansions = _some((3, 5)), _some((1, 2))
    squeeze = draw(st.sampled_from(["none", "hidden", "input"]))
    movable = (
        Operator(
            family="mbconv",
            sizes=(("kernel", draw(kernels)), ("expansion", draw(expansions))),
            settings=(("squeeze", squeeze),),
        ),
        Operator(family="fused_mbconv", sizes=(("expansion", draw(_some((1.5, 2)))),), settings=(("kernel", 3),)),
    )
    others = (
        Operator(family="convnext", sizes=(("expansion", draw(expansions)), ("kernel", draw(kernels)))),
        Operator(family="attention", sizes=(("expansion", draw(expansions)),)),
        Operator(family="single_head", sizes=(("attended", draw(_some((0, 8)))),), settings=(("expansion", 1),)),
    )
    first = draw(st.sampled_from(["downsample", "operator"]))
    operators = draw(_some((*movable, *others)))
    if first == "operator" and not any(operator.may_come_first for operator in operators):
        operators = (*operators, movable[0])
    depths = tuple(range(1, max_depth + 1))
    return Stage(
        width=draw(_some((16, 32))),
        depth=draw(_some(depths)),
        operators=operators,
        stride=draw(st.sampled_from([1, 2] if tied or first == "operator" else [2])),
        first=first,
    )


def _some(items: tuple[Item, ...], *, min_size: int = 1) -> st.SearchStrategy[tuple[Item, ...]]:
    """Draw some of the items, in any order."""
    if not items:
        return st.just(())
    return st.lists(st.sampled_from(items), min_size=min_size, max_size=len(items), unique=True).map(tuple)


def any_rows(space: SearchSpace, n: int, seed: int) -> Genomes:
    """Draw genomes that need not be canonical, ``int16[n, n_genes]``."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, space.n_options, size=(n, space.n_genes)).astype(np.int16)
