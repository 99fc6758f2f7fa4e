"""How far exported networks are from what the machine could do, by the roofline of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nas.analysis_record import Analysis, LayerTime
from nas.report.holdings import Holdings
from nas.report.parts import Chart, Line, Missing, Part, Section, Table, escaped, rounded


def efficiency_section(held: Holdings) -> Section:
    """Return the section of all exported networks whose layers were measured."""
    parts: list[Part] = []
    for number, (name, analysis) in enumerate(held.analyses.items()):
        parts += _parts(name, analysis, number)
    if not parts:
        command = f"nas analyze {next(iter(held.exports))}" if held.exports else "nas export"
        what = "The layers of the exported network, measured" if held.exports else "An exported network to look into"
        parts.append(Missing(what=what, command=held.command(command)))
    return Section(
        name="efficiency",
        title="Efficiency",
        about="No layer can be faster than its multiply-accumulates at the machine's peak, nor than its bytes at the "
        "rate of copies. What a network takes beyond that is its gap.",
        parts=tuple(parts),
    )


def _parts(name: str, analysis: Analysis, number: int) -> list[Part]:
    counted = [each for each in analysis.layers if each.compute_ms > 0.0]
    gap = -math.log(analysis.efficiency) if analysis.efficiency > 0 else math.inf
    rows = tuple(
        (
            each.name,
            each.operator,
            *rounded([each.latency_ms, each.macs / 1e6, each.size_bytes / 1e6, each.compute_ms, each.memory_ms]),
            "memory" if each.memory_ms > each.compute_ms else "compute",
        )
        for each in analysis.layers
    )
    table = Table(
        name=f"layers-{number}",
        title=f"Layers of {name}",
        columns=("layer", "operator", "ms", "MMACs", "MB", "compute bound ms", "memory bound ms", "bound by"),
        rows=rows,
        shown=False,
    )
    return [
        Line(
            text=f"{name}: {analysis.latency_ms:.4f} ms. At peak its multiply-accumulates "
            f"take {100 * analysis.efficiency:.0f} % of that (gap {gap:.2f}, minus the logarithm of the share); with "
            f"memory as it is, {100 * analysis.attainable_efficiency:.0f} % could be reached. "
            f"{100 * analysis.memory_bound_share:.0f} % of the bound is waiting for memory.",
        ),
        *([_waterline(name, counted, number, table)] if counted else []),
        _gaps(name, analysis, number, table),
    ]


def _waterline(name: str, layers: list[LayerTime], number: int, table: Table) -> Chart:
    """Return bars as wide as a layer's work and as high as its intensity, and what memory asks for as water."""
    widths = [each.macs / 1e6 for each in layers]
    starts = [sum(widths[:position]) for position in range(len(widths))]
    placed = list(zip(starts, widths, layers, strict=True))
    under = sum(each.memory_ms > each.compute_ms for each in layers)
    return Chart(
        name=f"waterline-{number}",
        title=f"Waterline of {name}",
        alt=f"Bars of arithmetic intensity by layer, as wide as their work. {under} of {len(layers)} layers with "
        "multiply-accumulates are bound by memory: they end under their line.",
        traces=(*_bars(placed), _water(placed)),
        layout={
            "xaxis": {"title": {"text": "MMACs, layer after layer"}},
            "yaxis": {"title": {"text": "MACs per byte"}, "type": "log"},
            "barmode": "overlay",
        },
        table=table,
    )


def _bars(placed: Sequence[tuple[float, float, LayerTime]]) -> list[dict[str, Any]]:
    """Return a bar for each layer, in two groups by what bounds it."""
    bars = []
    for bound, colour, pattern in (("bound by compute", "var(--c2)", ""), ("bound by memory", "var(--c1)", "/")):
        own = [each for each in placed if (each[2].memory_ms > each[2].compute_ms) == (pattern == "/")]
        said = [f"{escaped(each.name)}: {each.macs / 1e6:.3g} MMACs, {each.latency_ms:.4f} ms" for *_, each in own]
        fill = {"color": colour, "pattern": {"shape": pattern}, "line": {"color": "var(--page)", "width": 1}}
        bars.append(
            {
                "type": "bar",
                "name": bound,
                "x": rounded([start + width / 2 for start, width, _ in own]),
                "width": rounded([width for _, width, _ in own]),
                "y": rounded([each.macs / max(1, each.size_bytes) for _, _, each in own]),
                "hovertext": said,
                "hoverinfo": "text",
                "marker": fill,
            }
        )
    return [each for each in bars if each["x"]]


def _water(placed: Sequence[tuple[float, float, LayerTime]]) -> dict[str, Any]:
    """Return the intensity at which work and bytes of each layer take equally long; copies of few bytes are faster."""
    x: list[float | None] = []
    y: list[float | None] = []
    for start, width, each in placed:
        balance = each.macs / each.compute_ms * each.memory_ms / max(1, each.size_bytes)
        x += [start, start + width, None]
        y += [balance, balance, None]
    line = {"color": "var(--ink)", "width": 2}
    title = "below it, memory is too slow"
    return {"type": "scatter", "mode": "lines", "name": title, "x": rounded(x), "y": rounded(y), "line": line}


def _gaps(name: str, analysis: Analysis, number: int, table: Table) -> Chart:
    slowest = sorted(analysis.layers, key=lambda each: -each.latency_ms)[:20]
    return Chart(
        name=f"gap-{number}",
        title=f"Slowest layers of {name} beside their bounds",
        alt="Bars of measured layer times and of the least that they can take; the slowest is "
        f"{slowest[0].name} with {slowest[0].latency_ms:.4f} ms against {slowest[0].bound_ms:.4f} ms.",
        traces=tuple(
            {
                "type": "bar",
                "name": title,
                "x": [f"{place}. {each.name}" for place, each in enumerate(slowest, start=1)],
                "y": rounded(values),
                "marker": {"color": colour, "pattern": {"shape": pattern}},
            }
            for title, values, colour, pattern in (
                ("measured", [each.latency_ms for each in slowest], "var(--c2)", ""),
                ("bound", [each.bound_ms for each in slowest], "var(--c1)", "/"),
            )
        ),
        layout={
            "xaxis": {"title": {"text": ""}, "type": "category", "tickangle": -45, "automargin": True},
            "yaxis": {"title": {"text": "ms"}},
            "barmode": "group",
            "height": 460,
        },
        table=Table(
            name=f"slowest-{number}",
            title=f"Slowest layers of {name}",
            columns=table.columns,
            rows=tuple(row for row in table.rows if row[0] in {each.name for each in slowest}),
            shown=False,
        ),
    )
