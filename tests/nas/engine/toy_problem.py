"""Search problems of which everything is known, over spaces of 30, 243 and many million architectures."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from nas.engine.objectives import Constraint, Objective
from nas.engine.problem import Problem
from search_spaces.space import Genomes, SearchSpace

Values = npt.NDArray[np.float64]

SMALL = SearchSpace.from_choices(
    {"op": ("a", "b", "c"), "depth": (1, 2), "kernel": (3, 5), "width": (1, 2, 3)}, when={"kernel": {"op": ("a", "b")}}
)
MEDIUM = SearchSpace.from_choices({f"gene{i}": (1, 2, 3) for i in range(5)})
LARGE = SearchSpace.from_choices(
    {f"op{i}": ("a", "b", "c") for i in range(8)}
    | {f"size{i}": (1, 2, 3, 4) for i in range(8)}
    | {f"kernel{i}": (3, 5) for i in range(8)},
    when={f"kernel{i}": {f"op{i}": ("a", "b")} for i in range(8)},
)


class Toy:
    """A problem whose objectives are sums of random terms per gene, so that everything about it can be computed.

    Args:
        space: what is searched.
        limit: upper bound of cost, as a share of its range.
        seed: of the terms.

    Attributes:
        cheapest: the genome of least cost, ``int16[n_genes]``; the problem's anchor.
        objectives, constraints, problem: what is searched for.
        scored: how many genomes the search asked for their cost.
    """

    def __init__(self, space: SearchSpace, *, limit: float, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shape = (space.n_genes, int(space.n_options.max()))
        self.space = space
        self._cost = rng.random(shape)
        # Worth goes with cost, as it does for networks, but not perfectly.
        self._worth = 0.5 * self._cost + 0.5 * rng.random(shape)
        self.cheapest = self._extreme(smallest=True)
        ends = np.stack([self.cheapest, self._extreme(smallest=False)])
        low, high = self.cost(ends).tolist()
        self.limit = low + limit * (high - low)
        self.scored = 0
        self.objectives = [
            Objective("worth", self.worth, maximize=True, costly=True),
            Objective("cost", self._counted_cost),
        ]
        self.constraints = [Constraint("cost", upper=self.limit)]
        self.problem = Problem(space, self.objectives, self.constraints, known=self.cheapest[None])

    def cost(self, genomes: Genomes) -> Values:
        """Return what is limited, ``float64[n]``; genes that do not exist cost nothing."""
        return self._sum(self._cost, genomes)

    def worth(self, genomes: Genomes) -> Values:
        """Return what is costly, ``float64[n]``."""
        return self._sum(self._worth, genomes)

    def values(self, genomes: Genomes) -> Values:
        """Return the metrics of the problem, ``float64[n, 2]``."""
        return np.stack([self.worth(genomes), self.cost(genomes)], axis=1)

    def minimised(self, genomes: Genomes) -> Values:
        """Return the true objectives, both minimised."""
        return self.problem.minimised(self.values(genomes))

    def all_feasible(self) -> set[bytes]:
        """Return every genome inside the limit, by trying all settings."""
        every = np.array(list(itertools.product(*(range(n) for n in self.space.n_options))), dtype=np.int16)
        distinct = self.space.unique(self.space.canonical(every))
        return {row.tobytes() for row in distinct[self.cost(distinct) <= self.limit]}

    def _counted_cost(self, genomes: Genomes) -> Values:
        self.scored += len(genomes)
        return self.cost(genomes)

    def _sum(self, terms: Values, genomes: Genomes) -> Values:
        result: Values = (terms[np.arange(self.space.n_genes), genomes] * self.space.active(genomes)).sum(axis=1)
        return result

    def _extreme(self, *, smallest: bool) -> Genomes:
        """Return the cheapest or the dearest genome: a gene and those that depend on it add up apart from the rest."""
        space = self.space
        genome = np.zeros((1, space.n_genes), dtype=np.int16)
        for root, gene in enumerate(space.genes):
            if gene.when is None:
                below = [p for p, other in enumerate(space.genes) if other.when and other.when.gene == gene.name]
                settings = list(itertools.product(*(range(space.n_options[p]) for p in (root, *below))))
                options = np.repeat(genome, len(settings), axis=0)
                options[:, [root, *below]] = settings
                cost = self.cost(space.canonical(options))
                genome = options[[cost.argmin() if smallest else cost.argmax()]]
        extreme: Genomes = space.canonical(genome)[0]
        return extreme
