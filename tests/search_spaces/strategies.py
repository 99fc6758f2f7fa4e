"""Random spaces for property tests."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from search_spaces.language import ImageInput, Layout, Operator, Stage
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
    """Draw up to two stages with any of the operators, options in any order."""
    stages = draw(st.lists(_stages(max_depth), min_size=1, max_size=2))
    stride = draw(st.sampled_from([1, 2, 4]))
    resolution = stride * 2 ** (len(stages) - 1) * draw(st.integers(1, 3))
    return Layout(
        name="random",
        input=ImageInput(
            channels=draw(st.sampled_from([1, 3])), resolution=resolution, classes=draw(st.integers(1, 4))
        ),
        stem_kernel=draw(st.sampled_from([3, 5])),
        stem_stride=stride,
        stages=tuple(stages),
        head_features=draw(st.integers(1, 8)),
    )


@st.composite
def _stages(draw: st.DrawFn, max_depth: int) -> Stage:
    kernels, expansions = _some((3, 5)), _some((1, 2))
    operators = (
        Operator(family="mbconv", sizes=(("kernel", draw(kernels)), ("expansion", draw(expansions)))),
        Operator(family="convnext", sizes=(("expansion", draw(expansions)), ("kernel", draw(kernels)))),
        Operator(family="attention", sizes=(("expansion", draw(expansions)),)),
    )
    depths = tuple(range(1, max_depth + 1))
    return Stage(width=draw(_some((16, 32))), depth=draw(_some(depths)), operators=draw(_some(operators)))


def _some(items: tuple[Item, ...], *, min_size: int = 1) -> st.SearchStrategy[tuple[Item, ...]]:
    """Draw some of the items, in any order."""
    if not items:
        return st.just(())
    return st.lists(st.sampled_from(items), min_size=min_size, max_size=len(items), unique=True).map(tuple)


def any_rows(space: SearchSpace, n: int, seed: int) -> Genomes:
    """Draw genomes that need not be canonical, ``int16[n, n_genes]``."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, space.n_options, size=(n, space.n_genes)).astype(np.int16)
