"""The inner loop: NSGA-II over exact and predicted figures, whole generations at a time.

Sorting and crowding are pymoo's. Its own loop keeps an object per individual, which costs more than any of the figures
here (see ``experiments/search-strategies``); so selection, variation, repair and finding repeats are done on arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.engine.pareto import ranked
from nas.engine.problem import Values
from search_spaces.space import Genomes, SearchSpace

Score = Callable[[Genomes], tuple[Values, Values]]
"""From canonical genomes to what is minimised ``float64[n, m]`` and to violations ``float64[n]``, kept at 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolution:
    """The settings of the inner loop.

    Attributes:
        population: how many survive, and how many children each generation has.
        generations: how often.
        crossover: share of children that have two parents.
        mutated_genes: mean number of genes that are redrawn beside the one that always is.
    """

    population: int = 256
    generations: int = 40
    crossover: float = 0.7
    mutated_genes: float = 1.0


def evolve(
    space: SearchSpace, score: Score, start: Genomes, settings: Evolution, rng: np.random.Generator
) -> tuple[Genomes, Values, Values]:
    """Return the last population with its objectives and violations, best first.

    Args:
        space: what the genomes mean.
        score: called once per generation, with canonical genomes that are new to it.
        start: the first population, ``int16[k, n_genes]``, distinct and canonical; of any size.
        settings: how long, and how many.
        rng: of all draws.
    """
    hashing = rng.integers(-(2**62), 2**62, size=space.n_genes)
    genomes = start
    minimised, violation = score(start)
    order, places = ranked(minimised, violation, n=settings.population)
    for _ in range(settings.generations):
        genomes, minimised, violation = genomes[order], minimised[order], violation[order]
        children = _children(space, genomes, places, settings, rng)
        children = children[_new_rows(children, genomes, hashing)]
        if len(children):
            child_minimised, child_violation = score(children)
            genomes = np.concatenate([genomes, children])
            minimised = np.concatenate([minimised, child_minimised])
            violation = np.concatenate([violation, child_violation])
        order, places = ranked(minimised, violation, n=settings.population)
    return genomes[order], minimised[order], violation[order]


def _children(
    space: SearchSpace,
    genomes: Genomes,
    places: npt.NDArray[np.int64],
    settings: Evolution,
    rng: np.random.Generator,
) -> Genomes:
    """Return as many children as survive: parents by binary tournament, uniform crossover, redrawn genes."""
    n = settings.population
    # Rows are sorted, so the smaller place of two wins; at equal places the first one that was drawn.
    rivals = rng.integers(0, len(genomes), size=(2, 2, n))
    parents = np.where(places[rivals[0]] <= places[rivals[1]], rivals[0], rivals[1])
    first, second = genomes[parents[0]], genomes[parents[1]]
    crossed = rng.random((n, 1)) < settings.crossover
    from_second = crossed & (rng.random(first.shape) < 0.5)
    mixed = np.where(from_second, second, first)
    return space.mutate(mixed, rng, probability=settings.mutated_genes / space.n_genes)


def _new_rows(children: Genomes, genomes: Genomes, hashing: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the first of each distinct child that is not among the genomes; rows are compared by a 64-bit hash.

    Two different rows have the same hash with probability 2⁻⁶²; a child would then be lost, nothing else.
    """
    with np.errstate(over="ignore"):
        known = genomes.astype(np.int64) @ hashing
        fresh = children.astype(np.int64) @ hashing
    _, first = np.unique(fresh, return_index=True)
    first.sort()
    new: npt.NDArray[np.int64] = first[~np.isin(fresh[first], known)]
    return new
