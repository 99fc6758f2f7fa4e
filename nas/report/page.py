"""A report as one HTML file that needs no network: texts escaped, plotly's script inside, figures in tables too."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nas.report.parts import Chart, Drawing, DrawnBlock, Report, escaped

_COLOURS = 6
_HALF_WIDTH, _HEIGHT = 58.0, 30
_KERNEL_X, _PITCH, _LARGEST_KERNEL = 134.0, 3.6, 7
_MOST_ROWS = 300  # of a table in the page; its CSV file has all
_HEIGHT_PX = 380  # of plots that say nothing else


@dataclass(frozen=True, slots=True)
class _Row:
    """A block of a drawing, with what is drawn of it."""

    block: DrawnBlock
    place: str
    points: str
    dots: tuple[tuple[float, float], ...]
    colour: int
    ms_share: float
    macs_share: float


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    rows: tuple[_Row, ...]


def page(report: Report, *, csv: str) -> str:
    """Return a report as an HTML document.

    Args:
        report: what to show.
        csv: name of the folder, beside the page, in which its tables lie; empty for none.
    """
    environment = Environment(
        loader=PackageLoader("nas.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = [part for section in report.sections for part in section.parts]
    colours = _colours([part for part in parts if isinstance(part, Drawing)])
    return environment.get_template("page.html").render(
        report=report,
        csv=csv,
        most_rows=_MOST_ROWS,
        shown_for=lambda device: _shown_for(device, report.devices),
        height=_HEIGHT_PX,
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
        plotly=Markup(_plotly()),
        charts=Markup(_charts([part for part in parts if isinstance(part, Chart)])),
        encoded=lambda content: base64.b64encode(content).decode(),
        stages=lambda drawing: list(_stages(drawing, colours)),
    )


def _asset(name: str) -> str:
    return resources.files("nas.report").joinpath("assets", name).read_text(encoding="utf-8")


def _plotly() -> str:
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def _charts(charts: list[Chart]) -> str:
    """Return plots as JSON that nothing in it can end the script element around it."""
    plain = [
        {
            "name": each.name,
            "traces": [_named(trace) for trace in each.traces],
            "layout": each.layout,
            "axes": each.axes,
        }
        for each in charts
    ]
    text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _named(trace: dict[str, Any]) -> dict[str, Any]:
    """Return a trace whose names are shown as they are: plotly would take tags in them for tags."""
    x = [escaped(each) if isinstance(each, str) else each for each in trace["x"]]
    return trace | {"x": x, "name": escaped(trace["name"])}


def devices_of(front: str) -> tuple[str, ...]:
    """Return the devices of a front, by its name."""
    return tuple(front.split(" + "))


def _shown_for(device: str, switch: tuple[str, ...]) -> str:
    """Return the choices of the switch, as JSON, for which a part is shown that is of a device or of a front."""
    return json.dumps([each for each in switch if device == each or device in devices_of(each)])


def _colours(drawings: list[Drawing]) -> dict[str, int]:
    """Return a number of a colour for each family of blocks."""
    families = dict.fromkeys(block.family for drawing in drawings for block in drawing.blocks)
    return {family: number % _COLOURS + 1 for number, family in enumerate(families)}


def _stages(drawing: Drawing, colours: dict[str, int]) -> Iterator[_Stage]:
    widest = max(max(block.channels) for block in drawing.blocks)
    slowest = max((block.latency_ms or 0.0) for block in drawing.blocks) or 1.0
    dearest = max(block.macs for block in drawing.blocks) or 1
    for stage, blocks in itertools.groupby(drawing.blocks, key=lambda block: block.stage):
        rows = tuple(
            _Row(
                block=block,
                place=block.slot.removeprefix(f"{stage}."),
                points=_shape(block, widest),
                dots=_dots(block.kernel),
                colour=colours[block.family],
                ms_share=round(100.0 * max(0.0, block.latency_ms or 0.0) / slowest, 1),
                macs_share=round(100.0 * block.macs / dearest, 1),
            )
            for block in blocks
        )
        yield _Stage(stage, rows)


def _shape(block: DrawnBlock, widest: int) -> str:
    """Return the corners of a block: as wide as its channels going in, inside, and coming out."""
    heights = (0, _HEIGHT / 2, _HEIGHT)
    inside = max(block.channels[1], min(block.channels[0], block.channels[2]))
    half = [_HALF_WIDTH * each / widest for each in (block.channels[0], inside, block.channels[2])]
    right = [(60 + width, height) for width, height in zip(half, heights, strict=True)]
    left = [(60 - width, height) for width, height in reversed(list(zip(half, heights, strict=True)))]
    return " ".join(f"{x:.1f},{y:g}" for x, y in (*right, *left))


def _dots(kernel: int) -> tuple[tuple[float, float], ...]:
    """Return where the squares of a kernel are drawn, beside the shape; those of a kernel of 1 are not."""
    if not 1 < kernel <= _LARGEST_KERNEL:
        return ()
    first = -(kernel - 1) / 2
    places = [_PITCH * (first + number) for number in range(kernel)]
    return tuple((round(_KERNEL_X + x, 1), round(_HEIGHT / 2 - 1.2 + y, 1)) for x in places for y in places)
