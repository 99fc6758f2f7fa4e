"""What a report is made of: sections of lines, tables, charts and pictures, as plain values.

Texts are plain; whoever shows them escapes them. Parts of one device name it, so that a page can switch between
devices.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

Cell = str | int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of figures.

    Attributes:
        name: of its CSV file, without ending.
        title: what it shows.
        columns: with units.
        rows: a cell for each.
        shown: whether people are to see it; else it is for spreadsheets alone.
        device: that it is of; empty for all.
    """

    kind: ClassVar[str] = "table"

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    shown: bool = True
    device: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold figures alone."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        return tuple(not any(isinstance(cell, str) for cell in column) for column in columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot.

    Attributes:
        name: of the plot, unique in the page.
        title: what it shows.
        alt: what is to be seen in it, for those who do not see it.
        traces: as plotly takes them; colours are names of the page's own, such as ``var(--c1)``.
        layout: likewise, but for what all plots share.
        table: the figures behind it.
        axes: other figures of the same points, by title, one list per trace, to be chosen instead of x.
        device: that it is of; empty for all.
    """

    kind: ClassVar[str] = "chart"

    name: str
    title: str
    alt: str
    traces: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    table: Table
    axes: dict[str, list[list[float | None]]] = field(default_factory=dict)
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnBlock:
    """One block of a drawn network.

    Attributes:
        slot: where it stands.
        stage: the part of the network that it belongs to.
        family: of the block.
        sizes: what was chosen, in words, but for what is as usual.
        kernel: side of its kernel; 0 for none.
        channels: what goes in, the most inside, what comes out.
        resolution: side of what goes in and comes out, pixels.
        latency_ms: what it adds, by the latency table; None without one.
        macs: multiply-accumulates.
        params: learned parameters.
    """

    slot: str
    stage: str
    family: str
    sizes: str
    kernel: int
    channels: tuple[int, int, int]
    resolution: tuple[int, int]
    latency_ms: float | None
    macs: int
    params: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A network, block by block.

    Attributes:
        name: id of the network.
        title: what it is, with its figures.
        blocks: in the order in which they run.
        rest_ms: what the table adds for the network as a whole.
        predicted_ms: of the whole network, by the table as it is.
        device: that latencies are of.
        chosen: whether it is shown first.
    """

    kind: ClassVar[str] = "drawing"

    name: str
    title: str
    blocks: tuple[DrawnBlock, ...]
    rest_ms: float
    predicted_ms: float
    device: str
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The networks of a front, of which one can be selected.

    Attributes:
        name: of the group.
        title: what is chosen from.
        columns: titles of the cells.
        rows: id of each network, and its cells.
        chosen: id of the one that is selected first.
        chart: name of the chart that shows them.
        device: that they are for.
    """

    kind: ClassVar[str] = "choice"

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    chosen: str
    chart: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image.

    Attributes:
        title: what it shows.
        alt: what is to be seen in it.
        png: its content.
    """

    kind: ClassVar[str] = "picture"
    device: ClassVar[str] = ""

    title: str
    alt: str
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A sentence with figures."""

    kind: ClassVar[str] = "line"

    text: str
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What the run does not hold, and the command that makes it (or words, if no command does)."""

    kind: ClassVar[str] = "missing"

    what: str
    command: str
    device: str = ""


Part = Table | Chart | Drawing | Choice | Picture | Line | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report under a heading.

    Attributes:
        name: of its place in the page.
        title: the heading.
        about: what the section answers, in a sentence.
        parts: in their order.
    """

    name: str
    title: str
    about: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole report.

    Attributes:
        title: of the page.
        subtitle: what it is of.
        devices: that can be switched between; the first one is shown first.
        sections: in their order.
    """

    title: str
    subtitle: str
    devices: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, those behind charts too."""
        parts = [part for section in self.sections for part in section.parts]
        return tuple(
            each.table if isinstance(each, Chart) else each for each in parts if isinstance(each, Chart | Table)
        )

    @property
    def missing(self) -> tuple[Missing, ...]:
        """What the run does not hold."""
        return tuple(part for section in self.sections for part in section.parts if isinstance(part, Missing))


def escaped(text: str) -> str:
    """Return a text as plotly, which takes some tags for what they are, shows it unchanged."""
    return html.escape(text, quote=False)


def rounded(values: Sequence[float | None] | np.typing.NDArray[Any], digits: int = 5) -> list[float | None]:
    """Return figures with so many significant digits, which is all that a plot shows; what is not finite is None."""
    result: list[float | None] = []
    for value in values:
        number = float("nan") if value is None else float(value)
        result.append(float(f"{number:.{digits}g}") if np.isfinite(number) else None)
    return result
