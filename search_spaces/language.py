"""The declarative form of a space of networks: stages of blocks, each block a choice of operators with elastic sizes.

A `Layout` says what may be built. `NetworkSpace` turns it into genes and into *slots*: a slot is a place in the
network, and a table from its genes to the distinct block that stands there. Lowering one genome and looking up a
million of them are the same table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.blocks import FAMILIES, DownsampleSpec, HeadSpec, StemSpec
from search_spaces.documents import content_hash
from search_spaces.errors import InputError, unknown_name
from search_spaces.space import Condition, Gene, Genomes, SearchSpace
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock, block_key

ABSENT = -1
"""Block number of a slot that a shallower network does not have."""
UNREACHABLE = -2
"""Filler of table entries that no canonical genome points to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """What the network is given and asked for."""

    channels: int
    resolution: int
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A block family that a slot may hold, with the options of each elastic field of its spec."""

    family: str
    sizes: tuple[tuple[str, tuple[int, ...]], ...]

    def size_choices(self) -> Iterator[dict[str, int]]:
        """Yield every setting of the elastic fields, the last field fastest."""
        names = [name for name, _ in self.sizes]
        for values in itertools.product(*(options for _, options in self.sizes)):
            yield dict(zip(names, values, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks at one resolution: elastic width and depth, the same operators to choose from in every block."""

    width: tuple[int, ...]
    depth: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A whole space: stem, stages with down-sampling between them, head."""

    name: str
    input: ImageInput
    stem_kernel: int
    stem_stride: int
    stages: tuple[Stage, ...]
    head_features: int


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A place in the network and the block that each setting of its genes puts there.

    A genome's entry in `table` is ``genome[genes] @ strides``. The first genes (depth, width, operator), with `shape`
    options, span the table's outer dimensions. The others belong to one operator each; since inactive genes are 0 in
    canonical form, the operators share the innermost dimension.
    """

    name: str
    genes: npt.NDArray[np.int64]
    strides: npt.NDArray[np.int64]
    shape: tuple[int, ...]
    table: npt.NDArray[np.int32]

    def entries(self, genomes: Genomes) -> npt.NDArray[np.int64]:
        """Return each canonical genome's place in `table`, ``int64[n]``."""
        entry = np.zeros(len(genomes), dtype=np.int64)
        for gene, stride in zip(self.genes, self.strides, strict=True):
            entry += genomes[:, gene] * stride
        return entry


class NetworkSpace(SearchSpace):
    """A search space whose genomes stand for networks.

    Args:
        layout: what may be built.

    Raises:
        InputError: an unknown family, options that are not positive or repeat, a resolution that stages cannot halve.
    """

    def __init__(self, layout: Layout) -> None:
        _check_layout(layout)
        super().__init__(layout.name, list(_genes(layout)))
        self.layout = layout
        numbers: dict[str, int] = {}
        blocks: list[BlockSpec] = []

        def number(block: BlockSpec) -> int:
            key = block_key(block)
            if key not in numbers:
                numbers[key] = len(blocks)
                blocks.append(block)
            return numbers[key]

        self.slots = tuple(self._slots(number))
        self.blocks = tuple(blocks)

    @property
    def hash(self) -> str:
        """Content hash of the layout: equal for spaces in which every genome means the same network."""
        return content_hash(self.layout)

    def block_numbers(self, genomes: Genomes) -> npt.NDArray[np.int32]:
        """Return the number in `blocks` of every slot's block, ``int32[n, n_slots]``; `ABSENT` for unused slots."""
        columns = [slot.table[slot.entries(genomes)] for slot in self.slots]
        return np.stack(columns, axis=1)

    def lower(self, genome: Genomes) -> NetworkSpec:
        """Return the network that one canonical genome ``int16[n_genes]`` stands for."""
        numbers = self.block_numbers(genome[None])[0]
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

    def _slots(self, number: Callable[[BlockSpec], int]) -> Iterator[Slot]:
        layout = self.layout
        resolution = layout.input.resolution

        def stem(outer: Mapping[str, Any]) -> BlockSpec:
            return StemSpec(
                in_channels=layout.input.channels,
                out_channels=outer["stage1.width"],
                resolution=layout.input.resolution,
                kernel=layout.stem_kernel,
                stride=layout.stem_stride,
            )

        yield self._slot("stem", ["stage1.width"], stem, number)
        resolution //= layout.stem_stride
        for index, stage in enumerate(layout.stages, start=1):
            if index > 1:
                yield self._slot(
                    f"stage{index}.downsample",
                    [f"stage{index - 1}.width", f"stage{index}.width"],
                    _downsample(index, resolution),
                    number,
                )
                resolution //= 2
            for block in range(1, max(stage.depth) + 1):
                yield self._block_slot(index, stage, block, resolution, number)
        width = f"stage{len(layout.stages)}.width"

        def head(outer: Mapping[str, Any]) -> BlockSpec:
            return HeadSpec(
                in_channels=outer[width],
                resolution=resolution,
                features=layout.head_features,
                classes=layout.input.classes,
            )

        yield self._slot("head", [width], head, number)

    def _slot(
        self,
        name: str,
        outer: list[str],
        build: Callable[[Mapping[str, Any]], BlockSpec],
        number: Callable[[BlockSpec], int],
    ) -> Slot:
        """Make a slot whose block depends on `outer` genes alone."""
        genes = [self.index(gene) for gene in outer]
        shape = tuple(int(self.n_options[gene]) for gene in genes)
        options = [self.genes[gene].options for gene in genes]
        table = [number(build(dict(zip(outer, values, strict=True)))) for values in itertools.product(*options)]
        return Slot(name, np.array(genes), _strides(shape, 1), shape, np.array(table, dtype=np.int32))

    def _block_slot(
        self, index: int, stage: Stage, block: int, resolution: int, number: Callable[[BlockSpec], int]
    ) -> Slot:
        """Make the slot of one block of a stage."""
        prefix = f"stage{index}.block{block}"
        outer = [self.index(f"stage{index}.depth"), self.index(f"stage{index}.width")]
        outer.append(self.index(f"{prefix}.operator"))
        shape = tuple(int(self.n_options[gene]) for gene in outer)
        choices = [list(operator.size_choices()) for operator in stage.operators]
        inner = max(len(sizes) for sizes in choices)
        table = np.full((*shape, inner), UNREACHABLE, dtype=np.int32)
        for d, depth in enumerate(stage.depth):
            if depth < block:
                table[d] = ABSENT
                continue
            for (w, width), (o, operator) in itertools.product(enumerate(stage.width), enumerate(stage.operators)):
                for s, sizes in enumerate(choices[o]):
                    table[d, w, o, s] = number(stage_block(operator.family, width, resolution, sizes))
        genes, strides = list(outer), list(_strides(shape, inner))
        for operator in stage.operators:
            genes += [self.index(f"{prefix}.{operator.family}.{field}") for field, _ in operator.sizes]
            strides += list(_strides(tuple(len(options) for _, options in operator.sizes), 1))
        return Slot(prefix, np.array(genes), np.array(strides), shape, table.ravel())


def _downsample(index: int, resolution: int) -> Callable[[Mapping[str, Any]], BlockSpec]:
    """Return the builder of the down-sampling before a stage."""

    def build(outer: Mapping[str, Any]) -> BlockSpec:
        return DownsampleSpec(
            in_channels=outer[f"stage{index - 1}.width"],
            out_channels=outer[f"stage{index}.width"],
            resolution=resolution,
        )

    return build


def stage_block(family: str, width: int, resolution: int, sizes: Mapping[str, int]) -> BlockSpec:
    """Build a stage's block of any family: those with one width call it `channels`, others name both ends."""
    make: Callable[..., BlockSpec] = FAMILIES[family]
    one_width = "channels" in FAMILIES[family].__dataclass_fields__
    ends = {"channels": width} if one_width else {"in_channels": width, "out_channels": width}
    block = make(**ends, resolution=resolution, **sizes)
    if block.out_resolution != resolution:
        made = f"with {dict(sizes)} it makes {block.out_resolution} of {resolution}"
        raise InputError(f"{family} in a stage must keep the resolution, {made}")
    return block


def _genes(layout: Layout) -> Iterator[Gene]:
    for index, stage in enumerate(layout.stages, start=1):
        yield Gene(f"stage{index}.width", stage.width)
        yield Gene(f"stage{index}.depth", stage.depth)
        for block in range(1, max(stage.depth) + 1):
            deeper = tuple(depth for depth in stage.depth if depth >= block)
            exists = Condition(f"stage{index}.depth", deeper) if len(deeper) < len(stage.depth) else None
            operator_gene = f"stage{index}.block{block}.operator"
            yield Gene(operator_gene, tuple(operator.family for operator in stage.operators), exists)
            for operator in stage.operators:
                for field, options in operator.sizes:
                    name = f"stage{index}.block{block}.{operator.family}.{field}"
                    yield Gene(name, options, Condition(operator_gene, (operator.family,)))


def _strides(shape: tuple[int, ...], innermost: int) -> npt.NDArray[np.int64]:
    """Return the stride of each dimension of a C-ordered array whose last dimension steps by `innermost`."""
    return np.array([innermost * math.prod(shape[i + 1 :]) for i in range(len(shape))], dtype=np.int64)


def _check_layout(layout: Layout) -> None:
    sizes = {f"input {name}": getattr(layout.input, name) for name in ("channels", "resolution", "classes")}
    sizes |= {name: getattr(layout, name) for name in ("stem_kernel", "stem_stride", "head_features")}
    for name, value in sizes.items():
        if value < 1:
            raise InputError(f"space {layout.name!r}: {name} must be at least 1, got {value}")
    halvings = layout.stem_stride * 2 ** (len(layout.stages) - 1)
    if not layout.stages or layout.input.resolution % halvings:
        raise InputError(
            f"space {layout.name!r}: resolution {layout.input.resolution} must be a multiple of {halvings} "
            f"(stem stride {layout.stem_stride}, {len(layout.stages)} stages)"
        )
    for index, stage in enumerate(layout.stages, start=1):
        for operator in stage.operators:
            _check_operator(operator, index)
        elastic = [options for operator in stage.operators for _, options in operator.sizes]
        for options in (stage.width, stage.depth, *elastic):
            if not options or min(options) < 1:
                raise InputError(f"space {layout.name!r}, stage {index}: options must be positive, got {list(options)}")


def _check_operator(operator: Operator, stage: int) -> None:
    """Refuse what cannot stand in a stage, where blocks follow one another at one width and resolution."""
    if operator.family not in FAMILIES:
        raise unknown_name(f"block family in stage {stage}", operator.family, FAMILIES)
    fields = FAMILIES[operator.family].__dataclass_fields__
    given = {name for name, _ in operator.sizes}
    for name in given - fields.keys():
        raise unknown_name(f"elastic size of {operator.family} in stage {stage}", name, fields)
    if "channels" not in fields and "out_channels" not in fields:
        raise InputError(f"stage {stage}: {operator.family} is no block of a stage")
    fixed = {"channels", "in_channels", "out_channels", "resolution"}
    missing = {name for name, field in fields.items() if field.default is MISSING} - given - fixed
    if missing:
        raise InputError(f"stage {stage}: {operator.family} needs options for {', '.join(sorted(missing))}")
