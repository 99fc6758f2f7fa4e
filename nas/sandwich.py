"""Which subnets a training step may update: the largest, the smallest and random ones, operators balanced; numpy only.

With all of them, sizes follow the sandwich rule (slimmable networks, arXiv:1903.05134). Kinds
of operator have no largest, so they are drawn by balanced permutation (strict fairness as in FairNAS,
arXiv:1907.01845): in every m steps, each of a slot's m operators is updated equally often.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from nas.training_record import Sampling, TrainingConfig
from predictors.additive import AdditiveCost
from search_spaces.errors import InputError, unknown_name
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes, SearchSpace

_STREAM = 1  # keeps these draws apart from others of the same seed
_SWEEPS = 4
_CANDIDATES = 8  # depths, and sizes for each, of which the nearest are chosen
_PREFERENCE = 6.0  # logarithm of how much more often the largest option is drawn than the smallest, at most
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
        sampling: of the random subnets' sizes. ``"balanced"`` gives each a preference for small or for large ones, so
            that cheap and dear subnets are trained as often as those in the middle, around which uniform draws crowd.
            ``"bounded"`` chooses those whose cost is near one that rises and falls slowly from step to step
            (ElasticViT, arXiv:2303.09730), so that gradients of very unequal networks do not follow each other.
        shrinking: kinds of sizes, such as ``kernel``, ``depth`` and ``width``, which are the largest at first and
            become free one after the other, at equal distances (progressive shrinking, arXiv:1908.09791).
        steps: of the whole training, which shrinking divides, and in which costs rise and fall four times.
        cost: returns a positive figure of canonical genomes, such as MACs, which bounded sampling needs.

    Raises:
        InputError: the space has no size of a kind that is to shrink, or bounded sampling has no cost.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        random_subnets: int = 2,
        sampling: Sampling = "uniform",
        shrinking: Sequence[str] = (),
        steps: int = 1,
        cost: Callable[[Genomes], npt.NDArray[np.float64]] | None = None,
    ) -> None:
        if sampling == "bounded" and cost is None:
            raise InputError("bounded sampling needs a cost; `Sandwich.of` takes MACs")
        self.space = space
        self.seed = seed
        self.n_subnets = 2 + random_subnets
        self._sampling, self._shrinking, self._steps, self._cost = sampling, tuple(shrinking), steps, cost
        self._sizes = [np.array(gene.options, dtype=float) if gene.ordinal else None for gene in space.genes]
        self._kinds = [gene.name.rpartition(".")[2] if gene.ordinal else "" for gene in space.genes]
        for kind in shrinking:
            if kind not in self._kinds:
                raise unknown_name("kind of size to shrink", kind, sorted(set(self._kinds) - {""}))
        self._operators = [p for p, gene in enumerate(space.genes) if not gene.ordinal]
        parents = {gene.when.gene for gene in space.genes if gene.when is not None}
        self._depths = [p for p, gene in enumerate(space.genes) if gene.ordinal and gene.name in parents]
        self.cycle = math.lcm(1, *(len(space.genes[p].options) for p in self._operators))

    @classmethod
    def of(cls, space: NetworkSpace, config: TrainingConfig) -> Self:
        """Return the sandwich of a training."""
        return cls(
            space,
            seed=config.seed,
            random_subnets=config.random_subnets,
            sampling=config.sampling,
            shrinking=config.shrinking,
            steps=config.steps,
            cost=AdditiveCost.of(space, lambda block: float(block.macs())).predict,
        )

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
        if self._sampling == "balanced":
            self._prefer(drawn, rng)
        if self._sampling == "bounded":
            self._keep_near(drawn, rng, cycle)
        genomes = drawn[position]
        held = self._held(step)
        for size, sizes in enumerate(self._sizes):
            if sizes is not None:
                genomes[LARGEST, size], genomes[SMALLEST, size] = sizes.argmax(), sizes.argmin()
                if self._kinds[size] in held:
                    genomes[:, size] = sizes.argmax()
        # Last, so that operators of slots which a size brings back are those that were drawn.
        return self.space.canonical(genomes)

    def _prefer(self, drawn: Genomes, rng: np.random.Generator) -> None:
        """Draw the sizes of random subnets anew, each subnet with a preference of its own."""
        shape = drawn[:, 2:, 0].shape
        free, fixed = rng.uniform(-_PREFERENCE, _PREFERENCE, shape), rng.uniform(-_PREFERENCE, _PREFERENCE, shape[1:])
        self._draw_sizes(drawn[:, 2:], free, fixed[None], rng)

    def _keep_near(self, drawn: Genomes, rng: np.random.Generator, cycle: int) -> None:
        """Choose, of many drawn sizes of each random subnet, those whose cost is nearest to the cycle's."""
        assert self._cost is not None
        ends = [self.space.resize(self.space.canonical(drawn[:, 0]), largest=largest) for largest in (False, True)]
        low, high = (np.log(self._cost(end)).mean() for end in ends)
        height = 1.0 - abs(1.0 - (2.0 * _SWEEPS * cycle * self.cycle / self._steps) % 2.0)
        for subnet in range(2, self.n_subnets):
            shape = (self.cycle, _CANDIDATES, _CANDIDATES)
            candidates = np.broadcast_to(drawn[:, subnet, None, None], (*shape, self.space.n_genes)).copy()
            middle = _PREFERENCE * (2.0 * height - 1.0)
            free, fixed = rng.normal(middle, 1.0, shape), rng.normal(middle, 1.0, _CANDIDATES)
            self._draw_sizes(candidates, free, fixed[None, :, None], rng)
            costs = self._cost(self.space.canonical(candidates.reshape(-1, self.space.n_genes))).reshape(shape)
            off = np.abs(np.log(costs) - (low + (high - low) * height))
            # All steps of a cycle have one depth: the one with which the sizes can be nearest.
            depth = off.min(axis=2).sum(axis=0).argmin()
            drawn[:, subnet] = candidates[np.arange(self.cycle), depth, off[:, depth].argmin(axis=1)]

    def _draw_sizes(
        self,
        genomes: Genomes,
        free: npt.NDArray[np.float64],
        fixed: npt.NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        """Draw sizes in place, by preferences for large ones.

        Args:
            genomes: ``int16[..., n_genes]``; the first dimension is that of the steps of a cycle.
            free: preferences, of the shape of `genomes` but for genes.
            fixed: those for depths, which are equal along its dimensions of length 1.
            rng: source of all draws.
        """
        for position, options in enumerate(self._sizes):
            if options is not None and len(options) > 1:
                depth = position in self._depths
                rank = np.argsort(np.argsort(options)) / (len(options) - 1)
                preference = fixed if depth else free
                noise = rng.gumbel(size=(*preference.shape, len(options)))
                genomes[..., position] = (noise + preference[..., None] * rank).argmax(axis=-1)

    def _held(self, step: int) -> tuple[str, ...]:
        """Return the kinds of sizes that are not free yet."""
        return self._shrinking[step * (len(self._shrinking) + 1) // self._steps :]
