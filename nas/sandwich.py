"""Which subnets a training step updates: the sandwich rule with balanced operators; numpy only.

Sizes follow the sandwich rule (slimmable networks, arXiv:1903.05134): the largest, the smallest and random ones. Kinds
of operator have no largest, so they are drawn by balanced permutation (strict fairness as in FairNAS,
arXiv:1907.01845): in every m steps, each of a slot's m operators is updated equally often.
"""

from __future__ import annotations

import math

import numpy as np

from search_spaces.space import Genomes, SearchSpace

_STREAM = 1  # keeps these draws apart from others of the same seed
LARGEST, SMALLEST = 0, 1
"""Rows of the largest and smallest sizes in what `Sandwich.subnets` returns; the rows after them are random."""


class Sandwich:
    """The subnets of every step, as a pure function of space, seed and step: nothing to store or resume.

    Steps come in cycles as long as the least common multiple of the numbers of operators. Within a cycle a subnet's
    operators run through whole permutations, and sizes that decide which slots exist (depths) stay as drawn once:
    otherwise a slot would be used in some steps of a permutation only. All other sizes are drawn afresh every step.

    Args:
        space: what to draw from.
        seed: of all draws.
        random_subnets: rows beside the largest and the smallest.
    """

    def __init__(self, space: SearchSpace, *, seed: int, random_subnets: int = 2) -> None:
        self.space = space
        self.seed = seed
        self.n_subnets = 2 + random_subnets
        self._operators = [p for p, gene in enumerate(space.genes) if not gene.ordinal]
        parents = {gene.when.gene for gene in space.genes if gene.when is not None}
        self._depths = [p for p, gene in enumerate(space.genes) if gene.ordinal and gene.name in parents]
        self.cycle = math.lcm(1, *(len(space.genes[p].options) for p in self._operators))

    def subnets(self, step: int) -> Genomes:
        """Return the canonical genomes of a step, ``int16[n_subnets, n_genes]``, largest and smallest first."""
        cycle, position = divmod(step, self.cycle)
        rng = np.random.default_rng([self.seed, _STREAM, cycle])
        shape = (self.cycle, self.n_subnets, self.space.n_genes)
        drawn = rng.integers(0, self.space.n_options, size=shape).astype(np.int16)
        drawn[:, :, self._depths] = drawn[0, :, self._depths].T
        for gene in self._operators:
            options = len(self.space.genes[gene].options)
            for subnet in range(self.n_subnets):
                permutations = [rng.permutation(options) for _ in range(self.cycle // options)]
                drawn[:, subnet, gene] = np.concatenate(permutations)
        genomes = drawn[position]
        largest = self.space.resize(genomes[[LARGEST]], largest=True)
        smallest = self.space.resize(genomes[[SMALLEST]], largest=False)
        return np.concatenate([largest, smallest, self.space.canonical(genomes[2:])])
