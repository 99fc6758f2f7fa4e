"""Features that know the structure of a space: what exists, what is alike, what is known beside the genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from predictors.regression.base import FeatureGroup
from search_spaces.space import Genomes, Option, SearchSpace

Matrix = npt.NDArray[np.float32]

_TINY = 1e-12


class StructureFeatures:
    """Masked one-hots and sizes, counts of options among genes that are alike, and figures that are known anyway.

    Genes are alike if they have the same options: in the whole space, and once more below the same root gene (such as
    the depth of one stage). A linear model can express such counts by the one-hots alone, but then has to learn from
    few networks that a large kernel tends to help in every block; with the counts it learns that first. Features of one
    kind form a group, so that a regression can learn which kinds matter.

    Args:
        space: what the genomes mean.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        starts = np.concatenate([[0], np.cumsum(space.n_options)[:-1]])
        kinds: dict[object, list[int]] = {}
        for position, gene in enumerate(space.genes):
            kinds.setdefault(gene.options, []).append(position)
        one_hots = [[np.arange(space.n_options[p]) + starts[p] for p in genes] for genes in kinds.values()]
        self._one_hots = [np.concatenate(columns) for columns in one_hots]
        self._sizes = [
            (np.array(genes), _sizes(space.genes[genes[0]].options))
            for genes in kinds.values()
            if space.genes[genes[0]].ordinal and len(space.genes[genes[0]].options) > 2
        ]
        self._counts = [counts for genes in kinds.values() for counts in _counting(space, genes)]

    def __call__(self, genomes: Genomes, known: npt.NDArray[np.floating] | None = None) -> Matrix:
        """Return features ``float32[n, n_features]``, those of a group side by side.

        Args:
            genomes: canonical, ``int16[n, n_genes]``.
            known: figures of the same genomes, ``float[n, k]``, such as their MACs: cost alone ranks networks well over
                the whole range of a space, so the genes only have to explain the rest. Each is taken as it is and as
                its logarithm.
        """
        one_hot = self._space.encode(genomes)
        active = self._space.active(genomes)
        parts = [one_hot[:, columns] for columns in self._one_hots]
        parts += [sizes[genomes[:, genes]] * active[:, genes] for genes, sizes in self._sizes]
        parts += [one_hot @ counts for counts in self._counts]
        if known is not None:
            parts += [known.astype(np.float32), np.log(np.maximum(known, _TINY)).astype(np.float32)]
        return np.concatenate(parts, axis=1)

    @property
    def width(self) -> int:
        """How many features there are with nothing known."""
        return sum(group.width for group in self.groups())

    def groups(self, n_known: int = 0) -> list[FeatureGroup]:
        """Return how the features are grouped, given that `n_known` figures are known."""
        genes = [FeatureGroup(len(columns)) for columns in self._one_hots]
        sizes = [FeatureGroup(len(genes)) for genes, _ in self._sizes]
        counts = [FeatureGroup(matrix.shape[1], coarse=True) for matrix in self._counts]
        return [*genes, *sizes, *counts, FeatureGroup(2 * n_known, coarse=True)]


def _sizes(options: Sequence[Option]) -> Matrix:
    """Return the options of an ordinal gene as numbers of mean 0 and standard deviation 1."""
    sizes = np.array(options, dtype=np.float32)
    standard: Matrix = (sizes - sizes.mean()) / sizes.std()
    return standard


def _counting(space: SearchSpace, genes: Sequence[int]) -> list[Matrix]:
    """Return matrices from one-hots to counts of options among some genes: of all, and of those below each root gene.

    Each ``float32[n_one_hot, n_counts]``. A gene alone has its one-hot, and genes below a single root are all.
    """
    starts = np.concatenate([[0], np.cumsum(space.n_options)[:-1]])
    by_root: dict[int, list[int]] = {}
    for position in genes:
        by_root.setdefault(_root(space, position), []).append(position)
    together = [list(genes)] if len(genes) > 1 else []
    apart = [members for members in by_root.values() if 1 < len(members) < len(genes)]
    matrices = []
    for sets in (together, apart):
        matrix = np.zeros(
            (int(space.n_options.sum()), sum(int(space.n_options[members[0]]) for members in sets)), np.float32
        )
        column = 0
        for members in sets:
            for option in range(int(space.n_options[members[0]])):
                matrix[starts[members] + option, column] = 1.0
                column += 1
        matrices.append(matrix)
    return matrices


def _root(space: SearchSpace, position: int) -> int:
    """Return the gene at the top of the tree that a gene belongs to."""
    while (condition := space.genes[position].when) is not None:
        position = space.index(condition.gene)
    return position
