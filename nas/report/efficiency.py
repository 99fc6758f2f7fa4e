"""How far exported networks are from what the machine could do, by the roofline of each layer."""

from __future__ import annotations

import math

from nas.analysis_record import Analysis, LayerTime
from nas.report.holdings import Holdings
from nas.report.parts import Chart, Line, Missing, Part, Section, Table, rounded


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
    counted = [each for each in analysis.layers if each.macs]
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
        title=f"Layers of {name} on {analysis.device}",
        columns=("layer", "operator", "ms", "MMACs", "MB", "compute bound ms", "memory bound ms", "bound by"),
        rows=rows,
        shown=False,
    )
    return [
        Line(
            text=f"{name} takes {analysis.latency_ms:.4f} ms on {analysis.device}. At peak its multiply-accumulates "
            f"take {100 * analysis.efficiency:.0f} % of that (gap {gap:.2f}, minus the logarithm of the share); with "
            f"memory as it is, {100 * analysis.attainable_efficiency:.0f} % could be reached. "
            f"{100 * analysis.memory_bound_share:.0f} % of the bound is waiting for memory.",
        ),
        *([_waterline(name, analysis, counted, number, table)] if counted else []),
        _gaps(name, analysis, number, table),
    ]


def _waterline(name: str, analysis: Analysis, layers: list[LayerTime], number: int, table: Table) -> Chart:
    """Return bars as wide as a layer's work and as high as its intensity, and the machine's balance as water."""
    widths = [each.macs / 1e6 for each in layers]
    starts = [sum(widths[:position]) for position in range(len(widths))]
    placed = list(zip(starts, widths, layers, strict=True))
    rate = _balance(analysis, layers)
    under = sum(each.memory_ms > each.compute_ms for each in layers)
    return Chart(
        name=f"waterline-{number}",
        title=f"Waterline of {name}",
        alt=f"Bars of arithmetic intensity by layer, as wide as their work. {under} of {len(layers)} layers with "
        f"multiply-accumulates are bound by memory: they end under the line at {rate:.2g} MACs per byte.",
        traces=tuple(
            {
                "type": "bar",
                "name": bound,
                "x": rounded([start + width / 2 for start, width, _ in own]),
                "width": rounded([width for _, width, _ in own]),
                "y": rounded([each.macs / max(1, each.size_bytes) for _, _, each in own]),
                "hovertext": [
                    f"{each.name}: {each.macs / 1e6:.3g} MMACs, {each.latency_ms:.4f} ms" for *_, each in own
                ],
                "hoverinfo": "text",
                "marker": {
                    "color": colour,
                    "pattern": {"shape": pattern},
                    "line": {"color": "var(--page)", "width": 1},
                },
            }
            for bound, colour, pattern in (("bound by compute", "var(--c2)", ""), ("bound by memory", "var(--c1)", "/"))
            if (own := [each for each in placed if (each[2].memory_ms > each[2].compute_ms) == (pattern == "/")])
        ),
        layout={
            "xaxis": {"title": {"text": "MMACs, layer after layer"}},
            "yaxis": {"title": {"text": "MACs per byte"}, "type": "log"},
            "barmode": "overlay",
            "shapes": [
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": rate,
                    "y1": rate,
                    "line": {"color": "var(--ink)", "dash": "dash", "width": 1.5},
                }
            ],
        },
        table=table,
    )


def _balance(analysis: Analysis, layers: list[LayerTime]) -> float:
    """Return how many multiply-accumulates the machine does in the time of a byte, of layers of a typical size."""
    typical = sorted(each.size_bytes for each in layers)[len(layers) // 2]
    _, memory_ms = analysis.peaks.bound_ms(0, typical, int8=False)
    return analysis.peaks.gmacs_per_s * memory_ms * 1e6 / typical


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
                "x": [each.name for each in slowest],
                "y": rounded(values),
                "marker": {"color": colour, "pattern": {"shape": pattern}},
            }
            for title, values, colour, pattern in (
                ("measured", [each.latency_ms for each in slowest], "var(--c2)", ""),
                ("bound", [each.bound_ms for each in slowest], "var(--c1)", "/"),
            )
        ),
        layout={
            "xaxis": {"title": {"text": ""}, "tickangle": -45, "automargin": True},
            "yaxis": {"title": {"text": "ms"}},
            "barmode": "group",
            "height": 460,
        },
        table=Table(
            name=f"slowest-{number}",
            title=f"Slowest layers of {name} on {analysis.device}",
            columns=table.columns,
            rows=tuple(row for row in table.rows if row[0] in {each.name for each in slowest}),
            shown=False,
        ),
    )
