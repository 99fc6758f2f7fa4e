"""Spaces written as TOML. Everything is checked, and an error names its place in the file.

What is a list is a choice and what is a single value is the same in all networks. Channels and classes come from the
data.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.documents import parse_toml, read_text
from search_spaces.errors import InputError, unknown_name
from search_spaces.language import NetworkSpace
from search_spaces.layout import DOWNSAMPLE, Head, ImageInput, Layout, Operator, Setting, Sharing, Size, Stage, Stem


def read_space_file(path: Path) -> str:
    """Return the text of a space's file.

    Raises:
        InputError: there is no such file, or it is no text of a sensible size.
        MachineError: it cannot be read.
    """
    return read_text(path, wanted="--space takes a name or a TOML file")


def parse_space(text: str, *, source: str, channels: int, classes: int) -> NetworkSpace:
    """Return the space that a TOML text stands for.

    Args:
        text: which is not trusted.
        source: where it came from, for messages.
        channels: of the images.
        classes: number of labels.

    Raises:
        InputError: the text is no TOML, or stands for no space; names the place.
    """
    document = parse_toml(text, source=source)
    try:
        return NetworkSpace(_layout(_Table("", document), channels, classes))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


class _Table:
    """A table of the file, of which every key must be taken."""

    def __init__(self, place: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise InputError(f"{place} must be a table, got {value!r}")
        self.place = place
        self._left = dict(value)
        self._known = list(self._left)

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """Return a value of a type; raises `InputError` if it is missing without a default."""
        if key not in self._left:
            if default is ...:
                near = difflib.get_close_matches(key, self._left, n=1)
                hint = f" (there is {near[0]!r})" if near else ""
                raise InputError(f"{self._name(key)} is missing{hint}")
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise InputError(f"{self._name(key)} must be {_words(kind)}, got {value!r}")
        return value

    def options(self, key: str, default: Any = ...) -> tuple[Size, ...]:
        """Return a number or a list of them as options."""
        value = self.take(key, (int, float, list), default)
        return _numbers(self._name(key), value) if isinstance(value, list) else () if value == () else (value,)

    def tables(self, key: str) -> list[_Table]:
        """Return a list of tables."""
        value = self.take(key, list)
        return [_Table(f"{self._name(key)}[{number}]", item) for number, item in enumerate(value, start=1)]

    def table(self, key: str, default: Any = ...) -> _Table:
        """Return a table."""
        return _Table(self._name(key), self.take(key, dict, default))

    def rest(self) -> tuple[tuple[tuple[str, tuple[Size, ...]], ...], tuple[tuple[str, Setting], ...]]:
        """Return the keys that were not taken: lists as choices, single values as settings."""
        sizes, settings = [], []
        for key, value in self._left.items():
            if isinstance(value, list):
                sizes.append((key, _numbers(self._name(key), value)))
            elif isinstance(value, int | float | str) and not isinstance(value, bool):
                settings.append((key, value))
            else:
                raise InputError(f"{self._name(key)} must be a number, a word or a list of numbers, got {value!r}")
        self._left = {}
        return tuple(sizes), tuple(settings)

    def settings(self) -> tuple[tuple[str, Setting], ...]:
        """Return the keys that were not taken, none of them a choice."""
        sizes, settings = self.rest()
        if sizes:
            raise InputError(f"{self._name(sizes[0][0])} must be a single value, got {list(sizes[0][1])}")
        return settings

    def finish(self) -> None:
        """Refuse what was not taken."""
        for key in self._left:
            raise unknown_name(f"key in {self.place or 'the file'}", key, [k for k in self._known if k != key])

    def _name(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key


def _layout(document: _Table, channels: int, classes: int) -> Layout:
    name = document.take("name", str)
    resolutions = document.options("resolution")
    stem, head = document.table("stem"), document.table("head")
    sharing, usual = document.table("sharing", {}), Sharing()
    stages = tuple(_stage(table) for table in document.tables("stages"))
    document.finish()
    layout = Layout(
        name=name,
        input=ImageInput(
            channels=channels,
            classes=classes,
            resolution=_whole("resolution", resolutions)[-1],
            smaller=_whole("resolution", resolutions)[:-1],
        ),
        stem=Stem(
            family=stem.take("family", str, "stem"),
            width=_whole("stem.width", stem.options("width", ())),
            settings=stem.settings(),
        ),
        stages=stages,
        head=Head(family=head.take("family", str, "head"), settings=head.settings()),
        sharing=Sharing(
            kernel_transforms=sharing.take("kernel_transforms", bool, usual.kernel_transforms),
            layer_scale=sharing.take("layer_scale", (int, float), usual.layer_scale),
            switchable_layer_scale=sharing.take("switchable_layer_scale", bool, usual.switchable_layer_scale),
        ),
    )
    sharing.finish()
    return layout


def _stage(table: _Table) -> Stage:
    place = table.place
    operators = []
    for operator in table.tables("operators"):
        family = operator.take("family", str)
        sizes, settings = operator.rest()
        operators.append(Operator(family=family, sizes=sizes, settings=settings))
    stage = Stage(
        width=_whole(f"{place}.width", table.options("width")),
        depth=_whole(f"{place}.depth", table.options("depth")),
        operators=tuple(operators),
        stride=table.take("stride", int, 2),
        first=table.take("first", str, DOWNSAMPLE),
    )
    table.finish()
    return stage


def _numbers(name: str, values: list[object]) -> tuple[Size, ...]:
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(f"{name} must be numbers, got {values!r}")
    if not values:
        raise InputError(f"{name} is an empty list; give at least one option")
    return tuple(values)  # type: ignore[arg-type]


def _whole(name: str, options: tuple[Size, ...]) -> tuple[int, ...]:
    if not all(isinstance(option, int) for option in options):
        raise InputError(f"{name} must be whole numbers, got {list(options)}")
    return tuple(int(option) for option in options)


def _words(kind: type | tuple[type, ...]) -> str:
    names = {
        str: "a text",
        int: "a whole number",
        float: "a number",
        list: "a list",
        dict: "a table",
        bool: "true or false",
    }
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(names[each] for each in kinds if not (each is int and float in kinds))
