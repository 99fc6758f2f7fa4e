"""Costs that are a sum over blocks (latency, MACs, parameters): bulk prediction and the exact reachable range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.language import ABSENT, UNREACHABLE, NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import BlockSpec

Values = npt.NDArray[np.float64]
_Factor = tuple[tuple[int, ...], Values]


class AdditiveCost:
    """A constant plus one value for every block of a network.

    Args:
        space: what the genomes mean.
        block_values: value of each of ``space.blocks``, ``float64[n_blocks]``.
        constant: added once per network.

    Attributes:
        space: as given.
        block_values: as given.
        constant: as given.
    """

    def __init__(self, space: NetworkSpace, block_values: npt.ArrayLike, constant: float = 0.0) -> None:
        values = np.asarray(block_values, dtype=np.float64)
        assert values.shape == (len(space.blocks),)
        self.space = space
        self.block_values = values
        self.constant = constant
        numbers = space.tables
        self._values = np.select([numbers == ABSENT, numbers == UNREACHABLE], [0.0, np.nan], values[numbers])

    @classmethod
    def of(cls, space: NetworkSpace, cost: Callable[[BlockSpec], float]) -> AdditiveCost:
        """Build the cost from a function of a block, such as ``BlockSpec.macs``."""
        return cls(space, [cost(block) for block in space.blocks])

    def predict(self, genomes: Genomes) -> Values:
        """Return the cost of canonical genomes ``int16[n, n_genes]``, ``float64[n]``."""
        total: Values = self.space.gather(genomes, self._values).sum(axis=1) + self.constant
        return total

    def cheapest(self) -> tuple[float, Genomes]:
        """Return the smallest cost in the whole space and a genome ``int16[n_genes]`` that has it; exact."""
        genome = self._minimise(1.0)
        return float(self.predict(genome[None])[0]), genome

    def dearest(self) -> tuple[float, Genomes]:
        """Return the largest cost in the whole space and a genome ``int16[n_genes]`` that has it; exact."""
        genome = self._minimise(-1.0)
        return float(self.predict(genome[None])[0]), genome

    def _minimise(self, sign: float) -> Genomes:
        """Minimise the signed sum by variable elimination over the genes that slots share.

        Slots touch few genes each (neighbouring widths, one depth), so the largest intermediate table stays small
        however many architectures there are.
        """
        ends = np.cumsum([len(slot.table) for slot in self.space.slots])[:-1]
        tables = [
            np.where(np.isnan(values), math.inf, sign * values).reshape(*slot.shape, -1)
            for slot, values in zip(self.space.slots, np.split(self._values, ends), strict=True)
        ]
        outer = [tuple(int(gene) for gene in slot.genes[: len(slot.shape)]) for slot in self.space.slots]
        chosen = _eliminate(
            [(genes, table.min(axis=-1)) for genes, table in zip(outer, tables, strict=True)], self.space.n_options
        )
        genome = np.zeros(self.space.n_genes, dtype=np.int16)
        for slot, genes, table in zip(self.space.slots, outer, tables, strict=True):
            position = tuple(chosen[gene] for gene in genes)
            inner = int(table[position].argmin())
            genome[list(genes)] = position
            private, strides = slot.genes[len(genes) :], slot.strides[len(genes) :]
            genome[private] = (inner // strides) % self.space.n_options[private]
        canonical: Genomes = self.space.canonical(genome[None])[0]
        return canonical


def largest_over_blocks(space: NetworkSpace, block_values: npt.ArrayLike, genomes: Genomes) -> Values:
    """Return the largest of the values of every network's blocks, ``float64[n]``: a peak, where costs add up.

    Args:
        space: what the genomes mean.
        block_values: value of each of ``space.blocks``, such as `BlockSpec.peak_elements`, ``float64[n_blocks]``.
        genomes: canonical, ``int16[n, n_genes]``.
    """
    values = np.asarray(block_values, dtype=np.float64)
    table = np.where(space.tables < 0, -np.inf, values[space.tables])
    peak: Values = space.gather(genomes, table).max(axis=1)
    return peak


def _eliminate(factors: list[_Factor], n_options: Sequence[int] | npt.NDArray[np.int64]) -> dict[int, int]:
    """Return the option of every gene that minimises a sum of tables, each over a few genes."""
    factors = [_sorted_axes(factor) for factor in factors]
    steps: list[tuple[int, tuple[int, ...], npt.NDArray[np.int64]]] = []
    waiting = {gene for genes, _ in factors for gene in genes}
    while waiting:
        gene = min(sorted(waiting), key=lambda g: _joint_size(g, factors, n_options))
        touched = [factor for factor in factors if gene in factor[0]]
        genes = tuple(sorted({other for names, _ in touched for other in names}))
        joint = np.zeros([int(n_options[other]) for other in genes])
        for names, table in touched:
            joint = joint + table.reshape([int(n_options[o]) if o in names else 1 for o in genes])
        axis = genes.index(gene)
        rest = tuple(other for other in genes if other != gene)
        steps.append((gene, rest, joint.argmin(axis=axis)))
        factors = [factor for factor in factors if gene not in factor[0]] + [(rest, joint.min(axis=axis))]
        waiting.remove(gene)
    chosen: dict[int, int] = {}
    for gene, rest, best in reversed(steps):
        chosen[gene] = int(best[tuple(chosen[other] for other in rest)])
    return chosen


def _joint_size(gene: int, factors: Sequence[_Factor], n_options: Any) -> int:
    """Return the size of the table that eliminating a gene would make."""
    genes = {other for names, _ in factors if gene in names for other in names}
    return math.prod(int(n_options[other]) for other in genes)


def _sorted_axes(factor: _Factor) -> _Factor:
    genes, table = factor
    order = sorted(range(len(genes)), key=genes.__getitem__)
    return tuple(genes[i] for i in order), table.transpose(order)
