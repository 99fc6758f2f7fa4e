"""The declarative form of a space of networks: a stem, stages of blocks, a head.

Every block of a stage is a choice of operators with elastic sizes. What has one option only is a fact, not a gene.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from search_spaces.blocks import FAMILIES
from search_spaces.documents import ADDED_LATER
from search_spaces.errors import InputError, unknown_name
from search_spaces.spec import BlockSpec

Size = int | float
Setting = int | float | str
Settings = tuple[tuple[str, Setting], ...]
"""Names and values of fields of a block's spec."""

DOWNSAMPLE, OPERATOR = "downsample", "operator"
TRANSITIONS = (DOWNSAMPLE, OPERATOR)

_PLACED = {"channels", "in_channels", "out_channels", "resolution", "stride"}
"""Fields that follow from where a block stands in a stage."""
_MAX_OPTIONS, _MAX_STAGES, _MAX_DEPTH = 256, 32, 64
"""More is a slip of the pen, which would take minutes to build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """What networks are given and asked for.

    Attributes:
        channels: of the images.
        resolution: side of the images, pixels.
        classes: number of labels.
        smaller: other sides that a network may take; images are then scaled down to it.
    """

    channels: int
    resolution: int
    classes: int
    smaller: tuple[int, ...] = ()

    @property
    def resolutions(self) -> tuple[int, ...]:
        """All sides, the largest last."""
        return (*self.smaller, self.resolution)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """From the image to the first stage.

    Attributes:
        family: of the block.
        settings: of its fields.
        width: options of its channels; none for those of the first stage.
    """

    family: str = "stem"
    settings: Settings
    width: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A block family that a slot may hold.

    Attributes:
        family: of the block.
        sizes: options of each elastic field of its spec.
        settings: of its other fields, such as an activation: the same in all blocks of a stage.
    """

    family: str
    sizes: tuple[tuple[str, tuple[Size, ...]], ...] = ()
    settings: Settings = ()

    def size_choices(self) -> Iterator[dict[str, Size]]:
        """Yield every setting of the elastic fields, the last field fastest."""
        names = [name for name, _ in self.sizes]
        for values in itertools.product(*(options for _, options in self.sizes)):
            yield dict(zip(names, values, strict=True))

    @property
    def may_come_first(self) -> bool:
        """Whether the block can change width and resolution."""
        return "stride" in _fields(self.family)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks at one resolution: elastic width and depth, the same operators to choose from in every block.

    Attributes:
        width: options of the channels.
        depth: options of the number of blocks.
        operators: to choose from.
        stride: 2 if the stage halves the side that it is given.
        first: what changes width and side: ``"downsample"``, a block of its own before the first one, or
            ``"operator"``, the first block itself, which then chooses among the operators that can.
    """

    width: tuple[int, ...]
    depth: tuple[int, ...]
    operators: tuple[Operator, ...]
    stride: int = 2
    first: str = DOWNSAMPLE

    def enters_at(self, block: int) -> bool:
        """Return whether the block of this number, from 1, is given what comes before the stage."""
        return block == 1 and self.first == OPERATOR

    def operators_at(self, block: int) -> tuple[Operator, ...]:
        """Return the operators that the block of this number, from 1, chooses from."""
        return tuple(each for each in self.operators if each.may_come_first or not self.enters_at(block))


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """From the last stage to the logits: a block family and the settings of its fields."""

    family: str = "head"
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How a supernet of the space shares weights, and where it starts.

    Attributes:
        kernel_transforms: whether smaller kernels are made from larger ones by learned matrices (Once-for-All).
        layer_scale: first value of all layer scales.
        switchable_layer_scale: whether each width has layer scales of its own, instead of the first ones of the largest
            (NASViT, ICLR 2022).
    """

    kernel_transforms: bool = False
    layer_scale: float = 0.1
    switchable_layer_scale: bool = field(default=False, metadata=ADDED_LATER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A whole space."""

    name: str
    input: ImageInput
    stem: Stem
    stages: tuple[Stage, ...]
    head: Head
    sharing: Sharing = Sharing()

    def in_width(self, stage: int) -> tuple[str, tuple[int, ...]]:
        """Return name and options of the width that the stage of this number, from 1, is given."""
        if stage > 1:
            return f"stage{stage - 1}.width", self.stages[stage - 2].width
        return ("stem.width", self.stem.width) if self.stem.width else ("stage1.width", self.stages[0].width)

    def downsamples(self, stage: int) -> bool:
        """Return whether a block of its own stands before the stage of this number, from 1."""
        return self.stages[stage - 1].first == DOWNSAMPLE and (self.stages[stage - 1].stride > 1)

    def sides(self, resolution: int) -> tuple[int, ...]:
        """Return the side of what each stage is given, and last that of what the head is given, pixels."""
        stem = make_block(
            self.stem.family,
            in_channels=self.input.channels,
            out_channels=8,
            resolution=resolution,
            settings=dict(self.stem.settings),
        )
        sides = [stem.out_resolution]
        for stage in self.stages:
            sides.append(-(-sides[-1] // stage.stride))
        return tuple(sides)


def make_block(
    family: str, *, in_channels: int, out_channels: int, resolution: int, settings: Mapping[str, Setting]
) -> BlockSpec:
    """Build a block of any family: those with one width call it `channels`, others name one end or both.

    Raises:
        InputError: settings that the family does not have or allow.
    """
    make: Callable[..., BlockSpec] = FAMILIES[family]
    fields = _fields(family)
    ends = {"channels": out_channels, "in_channels": in_channels, "out_channels": out_channels}
    placed = {name: value for name, value in ends.items() if name in fields}
    return make(**placed, resolution=resolution, **settings)


def check_layout(layout: Layout) -> None:
    """Raise `InputError`, naming the place, for a layout that stands for no space."""
    image = layout.input
    for name in ("channels", "resolution", "classes"):
        if getattr(image, name) < 1:
            raise InputError(f"space {layout.name!r}: input {name} must be at least 1, got {getattr(image, name)}")
    _check_options("input", "resolution", image.resolutions)
    if max(image.resolutions) > image.resolution:
        raise InputError(f"space {layout.name!r}: the input's resolution must be the largest one, {image.resolutions}")
    _check_block("stem", layout.stem.family, "stem", (), layout.stem.settings, also={"stride"})
    _check_block("head", layout.head.family, "head", (), layout.head.settings, also={"classes"}, given={"classes"})
    if layout.stem.width:
        _check_options("stem", "width", layout.stem.width)
    if not 0 < len(layout.stages) <= _MAX_STAGES:
        raise InputError(f"space {layout.name!r} has {len(layout.stages) or 'no'} stages; give 1 to {_MAX_STAGES}")
    if not 0.0 < layout.sharing.layer_scale <= 10.0:
        raise InputError(f"sharing: layer_scale must be above 0 and at most 10, got {layout.sharing.layer_scale}")
    for number, stage in enumerate(layout.stages, start=1):
        _check_stage(layout, number, stage)
    _check_sides(layout)


def _check_stage(layout: Layout, number: int, stage: Stage) -> None:
    place = f"stage {number}"
    _check_options(place, "width", stage.width)
    _check_options(place, "depth", stage.depth)
    if max(stage.depth) > _MAX_DEPTH:
        raise InputError(f"{place}: a stage has at most {_MAX_DEPTH} blocks, got {max(stage.depth)}")
    if stage.stride not in (1, 2):
        raise InputError(f"{place}: stride must be 1 or 2, got {stage.stride}")
    if stage.first not in TRANSITIONS:
        raise unknown_name(f"first block of {place}", stage.first, TRANSITIONS)
    if not stage.operators:
        raise InputError(f"{place} has no operators")
    families = [operator.family for operator in stage.operators]
    for operator in stage.operators:
        _check_block(place, operator.family, "operator", operator.sizes, operator.settings)
        if families.count(operator.family) > 1:
            raise InputError(f"{place}: operators must differ; repeated: {operator.family}")
    changes = number > 1 or bool(layout.stem.width)
    if stage.first == DOWNSAMPLE and stage.stride == 1 and changes:
        raise InputError(
            f"{place} has stride 1, so nothing brings its input to its width; give it stride 2, or first = 'operator'"
        )
    if not stage.operators_at(1):
        raise InputError(
            f"{place}: none of {', '.join(families)} can change width and side as its first block; use first = "
            "'downsample', or add an operator that can, such as mbconv"
        )


def _check_block(
    place: str,
    family: str,
    role: str,
    sizes: Iterable[tuple[str, tuple[Size, ...]]],
    settings: Settings,
    *,
    also: Iterable[str] = (),
    given: Iterable[str] = (),
) -> None:
    """Check a block's fields: `also` may be set beside those that are free in a stage, `given` come from elsewhere."""
    if family not in FAMILIES:
        raise unknown_name(
            f"block family in {place}", family, [name for name, kind in FAMILIES.items() if kind.role == role]
        )
    if FAMILIES[family].role != role:
        raise InputError(f"{place}: {family} is no {role}, but a {FAMILIES[family].role}")
    fields = _fields(family)
    free = [name for name in fields if name not in _PLACED.difference(also) | set(given)]
    names = [name for name, _ in sizes] + [name for name, _ in settings]
    for name in names:
        if name not in free:
            raise unknown_name(f"setting of {family} in {place}", name, free)
        if names.count(name) > 1:
            raise InputError(f"{place}: {name} of {family} is set twice")
    for name, options in sizes:
        if fields[name].type == "str":
            raise InputError(f"{place}: {name} of {family} is no size to choose; give one word for the whole stage")
        _check_options(place, f"{family}.{name}", options, least=0 if name in FAMILIES[family].optional else 1)
    missing = [name for name in free if fields[name].default is MISSING and name not in names]
    if missing:
        raise InputError(f"{place}: {family} needs {', '.join(missing)}")


def _check_options(place: str, name: str, options: tuple[Size, ...], *, least: int = 1) -> None:
    """Refuse options that are no sizes; whether a block can have them, its family says."""
    sizes = [option for option in options if isinstance(option, int | float) and not isinstance(option, bool)]
    if len(sizes) < len(options) or not options or min(sizes) < least:
        raise InputError(f"{place}: options of {name} must be numbers of at least {least}, got {list(options)}")
    if len(options) > _MAX_OPTIONS:
        raise InputError(f"{place}: {name} has {len(options)} options, more than {_MAX_OPTIONS}; offer fewer")
    if len(set(options)) < len(options):
        raise InputError(f"{place}: options of {name} must be distinct, got {list(options)}")


def _check_sides(layout: Layout) -> None:
    for resolution in layout.input.resolutions:
        for number, side in enumerate(layout.sides(resolution)[:-1], start=1):
            if layout.downsamples(number) and side % 2:
                raise InputError(
                    f"space {layout.name!r}: at resolution {resolution}, stage {number} is given a side of {side} "
                    "pixels, which its down-sampling cannot halve"
                )


def _fields(family: str) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(FAMILIES[family])}
