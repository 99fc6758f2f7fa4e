"""Genes, genomes, architectures and the search space they span; numpy only.

A genome is a row of option *indices*, ``int16[n_genes]``; in bulk always ``int16[n, n_genes]``. A gene may exist only
under some options of one other gene (its parent), so the genes form a forest. Genes that do not exist are *inactive*
and are 0 in canonical form: equal architectures are equal rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces.documents import content_hash, decode, document, pretty_json
from search_spaces.errors import InputError, unknown_name

Option = int | float | str
Genomes = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Condition:
    """A gene exists only where its parent gene is active and has one of these options."""

    gene: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Gene:
    """One categorical choice."""

    name: str
    options: tuple[Option, ...]
    when: Condition | None = None

    @property
    def ordinal(self) -> bool:
        """Whether the options are sizes (all numbers) rather than kinds."""
        return not any(isinstance(option, str) for option in self.options)


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One network of one space, as a value: hashable, comparable, storable. It never holds a module."""

    space_hash: str
    genes: tuple[int, ...]

    @property
    def id(self) -> str:
        """First ten hexadecimal digits of the SHA-256 of space hash and genes."""
        text = self.space_hash + ":" + ",".join(str(gene) for gene in self.genes)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def to_json(self) -> str:
        """Return the architecture as JSON text."""
        return pretty_json(self)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> Architecture:
        """Read an architecture; raises `InputError` for anything that is not one."""
        return decode(cls, text, source=source)


class SearchSpace:
    """A set of genes, some conditional on others; immutable.

    Args:
        name: what people call the space.
        genes: the choices, in genome order; a parent may stand anywhere.

    Raises:
        InputError: a name repeats, a gene has no or repeated options, a condition names an unknown gene or option, or
            conditions form a cycle.
    """

    def __init__(self, name: str, genes: Sequence[Gene]) -> None:
        self.name = name
        self.genes = tuple(genes)
        self.names = tuple(gene.name for gene in self.genes)
        self.n_genes = len(self.genes)
        self._index = {gene: position for position, gene in enumerate(self.names)}
        _check_genes(self.genes, self._index)
        self.n_options: npt.NDArray[np.int64] = np.array([len(gene.options) for gene in self.genes], dtype=np.int64)
        self._order = _parents_first(self.genes, self._index)
        self._rules = tuple(
            (position, self._index[gene.when.gene], self._allowed(gene.when))
            for position in self._order
            if (gene := self.genes[position]).when is not None
        )

    @classmethod
    def from_choices(
        cls,
        choices: Mapping[str, Sequence[Option]],
        *,
        when: Mapping[str, Mapping[str, Sequence[Option]]] | None = None,
        name: str = "custom",
    ) -> SearchSpace:
        """Build a space from plain lists.

        Args:
            choices: gene name to options; options that are all numbers are ordinal.
            when: conditional gene to ``{parent gene: options under which it exists}``, one parent each.
            name: what people call the space.

        Raises:
            InputError: as the class; also when a condition has not exactly one parent.
        """
        conditions: dict[str, Condition] = {}
        for gene, parents in (when or {}).items():
            if gene not in choices:
                raise unknown_name("conditional gene", gene, choices)
            if len(parents) != 1:
                raise InputError(f"gene {gene!r} needs exactly one parent gene in `when`, got {sorted(parents)}")
            ((parent, options),) = parents.items()
            conditions[gene] = Condition(parent, tuple(options))
        return cls(name, [Gene(gene, tuple(options), conditions.get(gene)) for gene, options in choices.items()])

    @property
    def hash(self) -> str:
        """Content hash: equal for spaces in which every genome means the same."""
        return content_hash(self.genes)

    def index(self, gene: str) -> int:
        """Return a gene's column in a genome; raises `InputError` for an unknown name."""
        if gene not in self._index:
            raise unknown_name("gene", gene, self.names)
        return self._index[gene]

    @property
    def roots(self) -> tuple[str, ...]:
        """Genes that every architecture has: where a walk through the tree of choices starts."""
        return tuple(gene.name for gene in self.genes if gene.when is None)

    def children(self, gene: str, option: Option) -> tuple[str, ...]:
        """Return the genes that exist because a gene has an option; raises `InputError` for one that it has not."""
        known = self.genes[self.index(gene)].options
        if option not in known:
            raise unknown_name(f"option of gene {gene!r}", option, known)
        return tuple(
            other.name
            for other in self.genes
            if other.when is not None and other.when.gene == gene and option in other.when.options
        )

    def count(self) -> int:
        """Return the exact number of distinct architectures."""
        weights = self.option_counts()
        total = 1
        for position, gene in enumerate(self.genes):
            if gene.when is None:
                total *= sum(weights[position])
        return total

    def option_counts(self) -> list[list[int]]:
        """Return per gene and option how many distinct settings the genes below that option allow.

        Genes form a forest, so the product over independent children is exact.
        """
        counts: list[list[int]] = [[1] * len(gene.options) for gene in self.genes]
        for position in reversed(self._order):
            condition = self.genes[position].when
            if condition is not None:
                parent = self._index[condition.gene]
                below = sum(counts[position])
                for option in self._allowed(condition).nonzero()[0]:
                    counts[parent][option] *= below
        return counts

    def sample(self, n: int, rng: np.random.Generator) -> Genomes:
        """Draw `n` canonical genomes, each gene uniform over its options given its parent.

        This is not uniform over distinct architectures (see `sample_uniform`): options with many genes below them (deep
        networks) are drawn no more often than options with few.
        """
        return self.canonical(rng.integers(0, self.n_options, size=(n, self.n_genes)).astype(np.int16))

    def sample_uniform(self, n: int, rng: np.random.Generator) -> Genomes:
        """Draw `n` canonical genomes, every distinct architecture with the same probability; mostly deep networks."""
        columns = []
        for weights in self.option_counts():
            total = sum(weights)
            shares = np.cumsum([weight / total for weight in weights])
            columns.append(np.searchsorted(shares[:-1], rng.random(n), side="right"))
        return self.canonical(np.stack(columns, axis=1).astype(np.int16))

    def enumerate(self) -> Genomes:
        """Return every distinct architecture as a canonical genome, ``int16[count, n_genes]``; for small spaces."""
        rows: Genomes = np.zeros((1, self.n_genes), dtype=np.int16)
        for position in self._order:
            exists = self.active(rows)[:, position]
            options = int(self.n_options[position])
            repeated = np.repeat(rows[exists], options, axis=0)
            repeated[:, position] = np.tile(np.arange(options), int(exists.sum()))
            rows = np.concatenate([rows[~exists], repeated])
        return rows

    def active(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Return which genes exist, ``bool[n, n_genes]``."""
        result = np.ones(genomes.shape, dtype=np.bool_)
        for position, parent, allowed in self._rules:
            np.logical_and(result[:, parent], allowed[genomes[:, parent]], out=result[:, position])
        return result

    def canonical(self, genomes: Genomes) -> Genomes:
        """Return the genomes with inactive genes set to 0, so that equal architectures are equal rows."""
        return np.where(self.active(genomes), genomes, np.int16(0)).astype(np.int16, copy=False)

    def check(self, genomes: npt.ArrayLike) -> Genomes:
        """Return genomes from outside as a canonical ``int16[n, n_genes]`` array.

        Raises:
            InputError: wrong number of genes, not whole numbers, or an index out of range.
        """
        try:
            array = np.asarray(genomes)
        except ValueError:
            raise InputError(f"genomes of space {self.name!r} must all have {self.n_genes} genes") from None
        if array.ndim != 2 or array.shape[1] != self.n_genes:
            raise InputError(f"genomes of space {self.name!r} have shape (n, {self.n_genes}), got {array.shape}")
        if not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"genomes hold option indices (whole numbers), got dtype {array.dtype}")
        bad = (array < 0) | (array >= self.n_options)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"genome {row}: gene {self.names[column]!r} has index {array[row, column]}, "
                f"allowed are 0 to {self.n_options[column] - 1}"
            )
        return self.canonical(array.astype(np.int16))

    def mutate(self, genomes: Genomes, rng: np.random.Generator, *, probability: float) -> Genomes:
        """Return a copy in which each gene is redrawn with `probability`, at least one active one per row.

        Genes of one option cannot change and do not count.
        """
        n = len(genomes)
        redraw = rng.random(genomes.shape) < probability
        # One active gene per row is always redrawn: a changed inactive gene would vanish in canonical form.
        free = self.active(genomes) & (self.n_options > 1)
        chosen = np.where(free, rng.random(genomes.shape), -1.0).argmax(axis=1)
        redraw[np.arange(n), chosen] = True
        shift = 1 + (rng.random(genomes.shape) * (self.n_options - 1)).astype(np.int64)
        moved = (genomes + shift) % self.n_options
        return self.canonical(np.where(redraw, moved, genomes).astype(np.int16))

    def neighbours(self, genome: Genomes) -> Genomes:
        """Return every architecture that differs from one genome ``int16[n_genes]`` in one active gene, canonical."""
        changes = [
            (position, option)
            for position in self.active(genome[None])[0].nonzero()[0]
            for option in range(int(self.n_options[position]))
            if option != genome[position]
        ]
        result = np.repeat(genome[None], len(changes), axis=0)
        for row, (position, option) in enumerate(changes):
            result[row, position] = option
        return self.canonical(result)

    def crossover(self, first: Genomes, second: Genomes, rng: np.random.Generator) -> Genomes:
        """Return uniform crossover of two arrays of parents, row by row."""
        return self.canonical(np.where(rng.random(first.shape) < 0.5, first, second).astype(np.int16))

    def resize(self, genomes: Genomes, *, largest: bool) -> Genomes:
        """Return the genomes with every ordinal gene at its largest (or smallest) option; kinds stay."""
        result = genomes.copy()
        for position, gene in enumerate(self.genes):
            if gene.ordinal:
                values = [float(option) for option in gene.options]
                result[:, position] = np.argmax(values) if largest else np.argmin(values)
        return self.canonical(result)

    def encode(self, genomes: Genomes) -> npt.NDArray[np.float32]:
        """Return masked one-hot features, ``float32[n, sum of options]``; inactive genes are all zero."""
        active = self.active(genomes)
        offsets = np.concatenate([[0], np.cumsum(self.n_options)[:-1]])
        result = np.zeros((len(genomes), int(self.n_options.sum())), dtype=np.float32)
        rows = np.arange(len(genomes))
        for position in range(self.n_genes):
            result[rows, offsets[position] + genomes[:, position]] = active[:, position]
        return result

    def decode(self, genome: Genomes) -> dict[str, Option]:
        """Return the active genes of one genome ``int16[n_genes]`` with their options."""
        active = self.active(genome[None])[0]
        return {
            gene.name: gene.options[int(option)]
            for gene, option, exists in zip(self.genes, genome, active, strict=True)
            if exists
        }

    def unique(self, genomes: Genomes) -> Genomes:
        """Return the distinct rows, in the order in which each first occurs."""
        keys = np.ascontiguousarray(genomes).view(np.dtype((np.void, genomes.itemsize * self.n_genes))).ravel()
        _, first = np.unique(keys, return_index=True)
        distinct: Genomes = genomes[np.sort(first)]
        return distinct

    def architecture(self, genome: Genomes) -> Architecture:
        """Return one genome ``int16[n_genes]`` as an `Architecture`, in canonical form."""
        row = self.canonical(genome[None])[0]
        return Architecture(space_hash=self.hash, genes=tuple(int(option) for option in row))

    def genome(self, architecture: Architecture) -> Genomes:
        """Return an architecture's genome; raises `InputError` if it belongs to another space."""
        if architecture.space_hash != self.hash:
            raise InputError(
                f"architecture {architecture.id} belongs to space {architecture.space_hash}, this is {self.hash}"
            )
        genome: Genomes = self.check([architecture.genes])[0]
        return genome

    def _allowed(self, condition: Condition) -> npt.NDArray[np.bool_]:
        """Return a mask over the parent's options."""
        parent = self.genes[self._index[condition.gene]]
        return np.array([option in condition.options for option in parent.options], dtype=np.bool_)


def _check_genes(genes: Sequence[Gene], index: Mapping[str, int]) -> None:
    if len(index) != len(genes):
        repeated = sorted({gene.name for gene in genes if [g.name for g in genes].count(gene.name) > 1})
        raise InputError(f"gene names must differ; repeated: {', '.join(repeated)}")
    for gene in genes:
        if not gene.options or len(set(gene.options)) != len(gene.options):
            raise InputError(f"gene {gene.name!r} needs distinct options, got {list(gene.options)}")
        if gene.when is None:
            continue
        if gene.when.gene not in index:
            raise unknown_name(f"parent of gene {gene.name!r}", gene.when.gene, index)
        parent = genes[index[gene.when.gene]]
        for option in gene.when.options:
            if option not in parent.options:
                raise unknown_name(
                    f"option of {parent.name!r} in the condition of {gene.name!r}", option, parent.options
                )


def _parents_first(genes: Sequence[Gene], index: Mapping[str, int]) -> tuple[int, ...]:
    """Return positions so that every parent comes before its children; raises `InputError` on a cycle."""
    order: list[int] = []
    placed: set[str] = set()
    waiting = list(range(len(genes)))
    while waiting:
        ready = [p for p in waiting if (when := genes[p].when) is None or when.gene in placed]
        if not ready:
            raise InputError(f"conditions form a cycle among {', '.join(genes[p].name for p in waiting)}")
        order += ready
        placed.update(genes[p].name for p in ready)
        waiting = [p for p in waiting if genes[p].name not in placed]
    return tuple(order)
