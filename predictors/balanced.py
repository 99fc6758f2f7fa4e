"""Networks spread evenly over a cost: random ones crowd around its middle, and a fit to them is lost at the ends."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from predictors.additive import AdditiveCost
from search_spaces.errors import InputError
from search_spaces.space import Genomes, SearchSpace

Values = npt.NDArray[np.float64]

_TILT = 6.0
_DRAWS_PER_NETWORK = 20
_ROUNDS = 20


def sample_balanced(cost: AdditiveCost, n: int, rng: np.random.Generator, *, bins: int = 10) -> Genomes:
    """Draw distinct networks whose histogram over the logarithm of a cost is flat.

    Bins are of equal width between the cheapest and the dearest network of the space. Where a bin holds fewer networks
    than its share, or they are not found in a bounded time, the others get more.

    Args:
        cost: MACs, parameters or latency; positive.
        n: how many; fewer are returned if the space has fewer.
        rng: source of all draws.
        bins: how many bins.

    Returns:
        Canonical genomes, ``int16[n, n_genes]``, in random order.

    Raises:
        InputError: the cost of some network is not positive.
    """
    space = cost.space
    cheapest, dearest = cost.cheapest(), cost.dearest()
    if cheapest[0] <= 0.0:
        raise InputError(f"a histogram over logarithms needs positive costs; the cheapest network has {cheapest[0]:g}")
    edges = np.geomspace(cheapest[0], dearest[0], bins + 1)[1:-1]
    found = np.stack([cheapest[1], dearest[1]])
    share = -(-n // bins)
    for _ in range(_ROUNDS):
        drawn = _tilted(space, _DRAWS_PER_NETWORK * n, rng)
        found = space.unique(np.concatenate([found, drawn]))
        place = np.searchsorted(edges, cost.predict(found))
        rank = _rank_within(place, rng)
        # Far more than are needed are kept of no bin, so that rounds do not grow.
        kept = rank < 4 * share
        found, place, rank = found[kept], place[kept], rank[kept]
        if np.bincount(np.minimum(place, bins - 1), minlength=bins).min() >= share:
            break
    first = np.lexsort((rng.random(len(found)), rank))[:n]
    chosen: Genomes = found[rng.permutation(first)]
    return chosen


def evenly_spaced(cost: Values, n: int) -> list[int]:
    """Return the positions of distinct values at about equal distances on a logarithm, both ends among them.

    Args:
        cost: positive, ``float64[m]``, with m of at least n.
        n: how many.
    """
    size = np.log(cost)
    distance = np.abs(size[None] - np.linspace(size.min(), size.max(), n)[:, None])
    chosen: list[int] = []
    for row in distance:
        row[chosen] = np.inf  # each once
        chosen.append(int(row.argmin()))
    return chosen


def _tilted(space: SearchSpace, n: int, rng: np.random.Generator) -> Genomes:
    """Draw networks each of which prefers, more or less, small or large options: together they span the space."""
    tilt = rng.uniform(-_TILT, _TILT, n)
    columns = []
    for gene in space.genes:
        sizes = np.argsort(np.argsort([float(option) for option in gene.options])) if gene.ordinal else None
        scores = rng.gumbel(size=(n, len(gene.options)))
        if sizes is not None and len(gene.options) > 1:
            scores += tilt[:, None] * sizes / (len(gene.options) - 1)
        columns.append(scores.argmax(axis=1))
    return space.canonical(np.stack(columns, axis=1).astype(np.int16))


def _rank_within(place: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return each row's position among the rows of its bin, in random order."""
    order = np.lexsort((rng.random(len(place)), place))
    starts = np.searchsorted(place[order], place[order])
    rank = np.empty(len(place), dtype=np.int64)
    rank[order] = np.arange(len(place)) - starts
    return rank
