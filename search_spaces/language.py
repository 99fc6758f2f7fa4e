"""From a `Layout` to a search space whose genomes stand for networks.

A *slot* is a place in the network, and a table from its genes to the distinct block that stands there. Lowering one
genome and looking up a million of them are the same tables.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.blocks import DownsampleSpec
from search_spaces.documents import content_hash
from search_spaces.errors import InputError
from search_spaces.layout import Layout, Operator, Stage, check_layout, make_block
from search_spaces.space import Condition, Gene, Genomes, Option, SearchSpace
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock, largest_spec

ABSENT = -1
"""Block number of a slot that a shallower network does not have."""
UNREACHABLE = -2
"""Filler of table entries that no canonical genome points to."""

_CHUNK = 8192  # rows, so that their entries stay in the cache
_MAX_ENTRIES = 100_000  # of all tables: far more than could ever be measured
_MAX_PARAMS = 10**10  # of a supernet
_MAX_ELEMENTS = 10**10  # of activations in one block
_MAX_COUNT = 10**1000

Number = Callable[[BlockSpec], int]


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A place in the network and the block that each setting of its genes puts there.

    A genome's entry in `table` is ``genome[genes] @ strides``. The first genes (such as resolution, depth, width,
    operator), with `shape` options, span the table's outer dimensions. The others belong to one operator each; since
    inactive genes are 0 in canonical form, the operators share the innermost dimension.
    """

    name: str
    genes: npt.NDArray[np.int64]
    strides: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    table: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Axis:
    """A choice that a slot depends on; a gene if there is more than one option."""

    name: str
    options: tuple[Option, ...]

    @property
    def is_gene(self) -> bool:
        return len(self.options) > 1


class NetworkSpace(SearchSpace):
    """A search space whose genomes stand for networks.

    Args:
        layout: what may be built.

    Raises:
        InputError: what `check_layout` or a block refuses; or there is nothing to choose.
    """

    def __init__(self, layout: Layout) -> None:
        check_layout(layout)
        genes = [gene for gene in _genes(layout) if len(gene.options) > 1]
        if not genes:
            raise InputError(f"space {layout.name!r} leaves nothing to choose: every choice has one option")
        super().__init__(layout.name, genes)
        self.layout = layout
        self._n_entries = 0
        numbers: dict[BlockSpec, int] = {}
        self.slots = tuple(self._slots(lambda block: numbers.setdefault(block, len(numbers))))
        self.blocks = tuple(numbers)
        self._check_size()

    @property
    def hash(self) -> str:
        """Content hash of the layout: equal for spaces in which every genome means the same network."""
        return content_hash(self.layout)

    def gather(self, genomes: Genomes, tables: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Look up every slot's entry in tables of any values: ``[n, n_slots]`` of their type.

        Args:
            genomes: canonical, ``int16[n, n_genes]``.
            tables: the values of all slots' tables, one slot after the other.
        """
        result = np.empty((len(genomes), len(self.slots)), dtype=tables.dtype)
        # A matrix product is several times as fast as sums of columns of whole numbers, and exact: float32 holds whole
        # numbers up to 2^24, and tables have fewer entries (`_MAX_ENTRIES`).
        for start in range(0, len(genomes), _CHUNK):
            rows = slice(start, start + _CHUNK)
            entries = (genomes[rows].astype(np.float32) @ self._strides).astype(np.int32)
            entries += self._starts
            np.take(tables, entries, out=result[rows])
        return result

    def block_numbers(self, genomes: Genomes) -> npt.NDArray[np.int32]:
        """Return the number in `blocks` of every slot's block, ``int32[n, n_slots]``; `ABSENT` for unused slots."""
        return self.gather(genomes, self.tables)

    @functools.cached_property
    def tables(self) -> npt.NDArray[np.int32]:
        """The tables of all slots, one after the other: block numbers, `ABSENT` or `UNREACHABLE`."""
        return np.concatenate([slot.table for slot in self.slots])

    @functools.cached_property
    def _starts(self) -> npt.NDArray[np.int32]:
        sizes = [len(slot.table) for slot in self.slots]
        return np.cumsum([0, *sizes[:-1]]).astype(np.int32)

    @functools.cached_property
    def _strides(self) -> npt.NDArray[np.float32]:
        strides = np.zeros((self.n_genes, len(self.slots)), dtype=np.float32)
        for column, slot in enumerate(self.slots):
            strides[slot.genes, column] = slot.strides
        return strides

    def lower(self, genome: Genomes) -> NetworkSpec:
        """Return the network that one canonical genome ``int16[n_genes]`` stands for."""
        numbers = self.block_numbers(genome[None])[0]
        assert (numbers != UNREACHABLE).all(), "the genome is not canonical"
        return NetworkSpec(
            tuple(
                PlacedBlock(slot.name, self.blocks[number])
                for slot, number in zip(self.slots, numbers, strict=True)
                if number != ABSENT
            )
        )

    def slot_families(self) -> dict[str, dict[str, list[BlockSpec]]]:
        """Return for every slot, by family, the distinct blocks that may stand there."""
        result: dict[str, dict[str, list[BlockSpec]]] = {}
        for slot in self.slots:
            families = result.setdefault(slot.name, {})
            for number in sorted(set(slot.table.tolist()) - {ABSENT, UNREACHABLE}):
                families.setdefault(self.blocks[number].family, []).append(self.blocks[number])
        return result

    def _check_size(self) -> None:
        """Refuse what no machine could hold, before anybody tries."""
        params = sum(
            largest_spec(blocks).params() for families in self.slot_families().values() for blocks in families.values()
        )
        if params > _MAX_PARAMS:
            raise InputError(f"space {self.name!r}: a supernet of it has {params:.2e} parameters; offer smaller sizes")
        elements, block = max((block.peak_elements(), block.family) for block in self.blocks)
        if elements > _MAX_ELEMENTS:
            raise InputError(f"space {self.name!r}: one {block} makes {elements:.2e} activations; offer smaller sizes")
        if self.count() > _MAX_COUNT:
            raise InputError(f"space {self.name!r} has more than 10^1000 networks; offer less")

    def _count_entries(self, slot: str, entries: int) -> None:
        """Refuse tables that would take minutes to build, before they are."""
        self._n_entries += entries
        if self._n_entries > _MAX_ENTRIES:
            raise InputError(
                f"space {self.name!r}: with {entries} of {slot}, blocks have {self._n_entries} settings in all, "
                f"more than {_MAX_ENTRIES}; offer fewer options"
            )

    def _slots(self, number: Number) -> Iterator[Slot]:
        layout = self.layout
        sides = {resolution: layout.sides(resolution) for resolution in layout.input.resolutions}
        resolution = _Axis("resolution", layout.input.resolutions)

        def stem(chosen: Mapping[str, Any]) -> BlockSpec:
            return make_block(
                layout.stem.family,
                in_channels=layout.input.channels,
                out_channels=chosen[layout.in_width(1)[0]],
                resolution=chosen["resolution"],
                settings=dict(layout.stem.settings),
            )

        def head(chosen: Mapping[str, Any]) -> BlockSpec:
            return make_block(
                layout.head.family,
                in_channels=chosen[width.name],
                out_channels=layout.input.classes,
                resolution=sides[chosen["resolution"]][-1],
                settings=dict(layout.head.settings) | {"classes": layout.input.classes},
            )

        yield self._slot("stem", [resolution, _Axis(*layout.in_width(1))], stem, number)
        for index, stage in enumerate(layout.stages, start=1):
            before, width = _Axis(*layout.in_width(index)), _Axis(f"stage{index}.width", stage.width)
            if layout.downsamples(index):
                build = functools.partial(_downsample, before.name, width.name, index, sides)
                axes = list(dict.fromkeys([resolution, before, width]))
                yield self._slot(f"stage{index}.downsample", axes, build, number)
            for block in range(1, max(stage.depth) + 1):
                yield self._block_slot(index, block, [resolution, before, width], sides, number)
        yield self._slot("head", [resolution, width], head, number)

    def _slot(self, name: str, axes: Sequence[_Axis], build: Callable[..., BlockSpec], number: Number) -> Slot:
        """Make a slot whose block depends on these axes alone."""
        self._count_entries(name, math.prod(len(axis.options) for axis in axes))
        table = [
            number(build(dict(zip([axis.name for axis in axes], values, strict=True))))
            for values in itertools.product(*(axis.options for axis in axes))
        ]
        genes = [axis for axis in axes if axis.is_gene]
        shape = tuple(len(axis.options) for axis in genes)
        positions = np.array([self.index(axis.name) for axis in genes], dtype=np.int64)
        return Slot(name, positions, _strides(shape, 1), shape, np.array(table, dtype=np.int32))

    def _block_slot(
        self,
        index: int,
        block: int,
        axes: Sequence[_Axis],
        sides: Mapping[int, Sequence[int]],
        number: Number,
    ) -> Slot:
        """Make the slot of one block of a stage, given the axes of resolution, width before and width."""
        stage, prefix = self.layout.stages[index - 1], f"stage{index}.block{block}"
        operators = stage.operators_at(block)
        resolution, before, width = axes
        changes = stage.enters_at(block) and before != width
        depth = _Axis(f"stage{index}.depth", stage.depth)
        operator = _Axis(f"{prefix}.operator", tuple(each.family for each in operators))
        outer = [resolution, depth, *([before] if changes else []), width, operator]
        inner = max(math.prod(len(options) for _, options in each.sizes) for each in operators)
        self._count_entries(prefix, math.prod(len(axis.options) for axis in outer) * inner)
        choices = [list(each.size_choices()) for each in operators]
        table = np.full((*(len(axis.options) for axis in outer), inner), UNREACHABLE, dtype=np.int32)
        for place in itertools.product(*(range(len(axis.options)) for axis in outer)):
            chosen: dict[str, Any] = {axis.name: axis.options[i] for axis, i in zip(outer, place, strict=True)}
            if chosen[depth.name] < block:
                table[place] = ABSENT
                continue
            for position, sizes in enumerate(choices[place[-1]]):
                table[(*place, position)] = number(
                    _stage_block(stage, index, block, operators[place[-1]], sizes, chosen, before.name, sides)
                )
        genes = [axis for axis in outer if axis.is_gene]
        shape = tuple(len(axis.options) for axis in genes)
        positions, strides = [self.index(axis.name) for axis in genes], list(_strides(shape, inner))
        for each in operators:
            steps = _strides(tuple(len(options) for _, options in each.sizes), 1)
            for (field, options), step in zip(each.sizes, steps, strict=True):
                if len(options) > 1:
                    positions.append(self.index(f"{prefix}.{each.family}.{field}"))
                    strides.append(step)
        return Slot(
            prefix, np.array(positions, dtype=np.int64), np.array(strides, dtype=np.int64), shape, table.ravel()
        )


def _downsample(
    before: str, width: str, index: int, sides: Mapping[int, Sequence[int]], chosen: Mapping[str, Any]
) -> BlockSpec:
    return DownsampleSpec(
        in_channels=chosen[before],
        out_channels=chosen[width],
        resolution=sides[chosen["resolution"]][index - 1],
    )


def _stage_block(
    stage: Stage,
    index: int,
    block: int,
    operator: Operator,
    sizes: Mapping[str, Any],
    chosen: Mapping[str, Any],
    before: str,
    sides: Mapping[int, Sequence[int]],
) -> BlockSpec:
    width = chosen[f"stage{index}.width"]
    settings = dict(operator.settings) | dict(sizes)
    given, own = sides[chosen["resolution"]][index - 1 : index + 1]
    first = stage.enters_at(block)
    if first:
        settings["stride"] = stage.stride
    try:
        return make_block(
            operator.family,
            in_channels=chosen.get(before, width) if first else width,
            out_channels=width,
            resolution=given if first else own,
            settings=settings,
        )
    except InputError as error:
        raise InputError(f"stage {index}: {error}") from None


def _genes(layout: Layout) -> Iterator[Gene]:
    """Yield all choices, those of one option included."""
    yield Gene("resolution", layout.input.resolutions)
    if layout.stem.width:
        yield Gene("stem.width", layout.stem.width)
    for index, stage in enumerate(layout.stages, start=1):
        yield Gene(f"stage{index}.width", stage.width)
        yield Gene(f"stage{index}.depth", stage.depth)
        for block in range(1, max(stage.depth) + 1):
            deeper = tuple(depth for depth in stage.depth if depth >= block)
            exists = Condition(f"stage{index}.depth", deeper) if len(deeper) < len(stage.depth) else None
            operators = stage.operators_at(block)
            name = f"stage{index}.block{block}.operator"
            yield Gene(name, tuple(operator.family for operator in operators), exists)
            for operator in operators:
                chosen = Condition(name, (operator.family,)) if len(operators) > 1 else exists
                for field, options in operator.sizes:
                    yield Gene(f"stage{index}.block{block}.{operator.family}.{field}", options, chosen)


def _strides(shape: tuple[int, ...], innermost: int) -> npt.NDArray[np.int64]:
    """Return the stride of each dimension of a C-ordered array whose last dimension steps by `innermost`."""
    return np.array([innermost * math.prod(shape[i + 1 :]) for i in range(len(shape))], dtype=np.int64)
