"""Accuracy against latency: what was found, what was evaluated, what is predicted, what else there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.baseline_record import Baseline
from nas.front import Candidate, Front
from nas.report.holdings import Accuracies, Holdings, ratio_of, search_options
from nas.report.network import network_words
from nas.report.parts import Cell, Chart, Choice, Line, Missing, Part, Section, Table, escaped, rounded
from nas.run import device_option
from nas.wording import accuracy_text, ms_text
from predictors.accuracy import network_costs
from predictors.latency import LatencyPredictor
from predictors.quality import standard_error
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]

_CLOUD = 1200
_EVALUATED = 2000
_DESCRIBED = 500
_COLUMNS = ("what", "network", "accuracy %", "± points", "latency ms", "measured", "MMACs", "params k", "file MB")
AXES = ("latency ms", "MMACs", "params k", "file MB")
"""Figures that can stand on the x axis, as columns of the table are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Points:
    """Networks that are drawn alike.

    Attributes:
        name: in the legend.
        rows: as `_COLUMNS`, but for the first.
        style: of the markers, for plotly.
    """

    name: str
    rows: Sequence[tuple[Cell, ...]]
    style: Mapping[str, Any]


def front_section(held: Holdings) -> Section:
    """Return the section of all fronts."""
    parts: list[Part] = []
    for name, front in held.fronts.items():
        parts += _parts(held, name, front)
    if held.status.front_problem:
        parts.append(Missing(what=held.status.front_problem, command=held.command("nas search --budget-ms 50%")))
    elif not held.fronts:
        parts.append(Missing(what="No search has found a front with these weights", command=held.status.next))
    return Section(
        name="front",
        title="Front",
        about="Which networks are worth having: none is worse than another in accuracy and in all costs traded off.",
        parts=tuple(parts),
    )


def _parts(held: Holdings, name: str, front: Front) -> list[Part]:
    latency, known = held.latency_of(front), held.accuracies_of(front)
    chart = f"front-{list(held.fronts).index(name)}"
    parts: list[Part] = [Line(text=_summary(front), device=name)]
    if latency is None:
        build = held.command(f"nas build-lut --device {front.device}")
        parts.append(Missing(what=f"The latency table of {front.device}", command=build, device=name))
    parts.append(_chart(held, name, front, chart, latency, known))
    parts.append(_choice(name, front, chart))
    if front.comparison is None:
        more = held.command(search_options(front, compare="random-predictor"))
        parts.append(Missing(what="A comparison with random search at equal cost", command=more, device=name))
    baseline = "nas baseline" + device_option(front.device)
    if not held.baselines:
        parts.append(Missing(what="Hand-made networks as rivals", command=held.command(baseline), device=name))
    return parts


def _summary(front: Front) -> str:
    best = front.best
    at = "" if front.budget_at == "min" else f" ({front.budget_at} of running back to back)"
    asked = "no budget" if front.budget_ms is None else f"a budget of {ms_text(front.budget_ms)} ms{at}"
    used = "" if front.budget_ms is None else f", {best.latency_ms / front.budget_ms:.0%} of the budget"
    ties = f"; {len(front.ties)} more are as accurate within one standard error" if front.ties else ""
    others = "".join(
        f", {'no budget' if each.budget_ms is None else f'at most {ms_text(each.budget_ms)} ms'} on {each.device}"
        for each in front.others
    )
    return (
        f"{len(front.candidates)} networks for {asked} on {front.device}{others}. The best, {best.id}, has "
        f"{accuracy_text(best.validation_accuracy, best.validation_standard_error)} of {front.validation_images:,} "
        f"search-validation images right and takes {ms_text(best.latency_ms)} ms{used}{ties}."
    )


def _choice(name: str, front: Front, chart: str) -> Choice:
    def cells(each: Candidate) -> tuple[str, ...]:
        measured = each.measured_latency_ms
        tie = "best" if each == front.best else "as accurate" if each in front.ties else ""
        return (
            accuracy_text(each.validation_accuracy, each.validation_standard_error),
            ms_text(each.predicted_latency_ms),
            "-" if measured is None else ms_text(measured),
            f"{each.macs / 1e6:.2f}",
            f"{each.params / 1e3:.0f}",
            tie,
        )

    return Choice(
        name=chart.replace("front", "choice"),
        title=f"Networks of the front on {name}",
        columns=("accuracy", "predicted ms", "measured ms", "MMACs", "params k", "note"),
        rows=tuple((each.id, cells(each)) for each in front.candidates),
        chosen=front.best.id,
        chart=chart,
        device=name,
    )


def _chart(
    held: Holdings, name: str, front: Front, chart: str, latency: LatencyPredictor | None, known: Accuracies
) -> Chart:
    groups: list[_Points] = []
    ratio = None if latency is None else ratio_of(front, latency)
    if latency is not None and ratio is not None:
        groups += _background(held, front, latency, known, ratio)
    groups += _rivals(held.baselines, front)
    groups += _candidates(front)
    told = [each.genes for each in (*front.candidates, *front.dropped)] + known.genomes[-_DESCRIBED:].tolist()
    words = {
        held.space.architecture(genome).id: network_words(held.space.lower(genome)) for genome in held.space.check(told)
    }
    traces = [_trace(group, words) for group in groups]
    axes = {
        title: [rounded([row[_COLUMNS.index(title) - 1] for row in group.rows]) for group in groups]  # type: ignore[misc]
        for title in AXES
        if any(row[_COLUMNS.index(title) - 1] is not None for group in groups for row in group.rows)
    }
    lines = [(each.budget_ms, "budget") for each in front.devices[:1] if each.budget_ms is not None]
    best = front.best
    return Chart(
        name=chart,
        title=f"Accuracy against cost on {name}",
        alt=(
            f"Points of accuracy over latency. The front rises from {_point(front.candidates[0])} to "
            f"{_point(front.candidates[-1])}; the best is {best.id}."
        ),
        traces=tuple(traces),
        layout={
            "xaxis": {"title": {"text": AXES[0]}},
            "yaxis": {"title": {"text": "search-validation accuracy %"}},
            "shapes": [_vertical(value) for value, _ in lines],
            "annotations": [_note(value, text) for value, text in lines],
            "height": 520,
        },
        table=Table(
            name=chart,
            title=f"All networks of the plot on {name}",
            columns=_COLUMNS,
            rows=tuple((group.name, *row) for group in groups for row in group.rows if group.name != _PREDICTED),
            shown=False,
            device=name,
        ),
        axes=axes,
        device=name,
    )


def _point(each: Candidate) -> str:
    return f"{100 * each.validation_accuracy:.1f} % at {ms_text(each.latency_ms)} ms"


_PREDICTED = "predicted, drawn at random"


def _background(
    held: Holdings, front: Front, latency: LatencyPredictor, known: Accuracies, ratio: float
) -> list[_Points]:
    """Return what was evaluated and what is predicted."""
    groups, costs = [], network_costs(held.space)

    def rows(genomes: Genomes, accuracy: Values, images: int | None) -> list[tuple[Cell, ...]]:
        predicted, sums, told = latency.predict(genomes) * ratio, costs(genomes), latency.columns(genomes)
        file_mb = told["file_mb"].to_numpy() if "file_mb" in told else [None] * len(genomes)
        return [
            (
                held.space.architecture(genome).id,
                _figure(100 * share),
                _figure(100 * standard_error(float(share), images)) if images else None,
                _figure(ms),
                "no",
                _figure(macs / 1e6),
                _figure(params / 1e3),
                _figure(size),
            )
            for genome, share, ms, (macs, params), size in zip(genomes, accuracy, predicted, sums, file_mb, strict=True)
        ]

    if known.predictor is not None:
        drawn = held.space.unique(held.space.sample(_CLOUD, np.random.default_rng(0)))
        cloud = rows(drawn, known.predictor.predict(drawn)[0], None)
        groups.append(_Points(name=_PREDICTED, rows=cloud, style=_CLOUD_STYLE))
    if len(known):
        latest = slice(-_EVALUATED, None)
        own = rows(known.genomes[latest], known.values[latest], front.validation_images)
        name = "evaluated" if len(known) <= _EVALUATED else f"evaluated, the last {_EVALUATED:,}"
        groups.append(_Points(name=name, rows=own, style=_EVALUATED_STYLE))
    if front.comparison is not None:
        rival = known.of(front.comparison.against_asked)
        name = f"{front.comparison.against}, {len(rival)} evaluations"
        asked = rows(rival.genomes, rival.values, front.validation_images)
        groups.append(_Points(name=name, rows=asked, style=_RIVAL_STYLE))
    return groups


def _rivals(baselines: Sequence[Baseline], front: Front) -> list[_Points]:
    rows: list[tuple[Cell, ...]] = [
        (
            each.plan.preset,
            _figure(100 * each.validation_accuracy),
            _figure(100 * each.validation_standard_error),
            _figure(each.plan.latency_ms),
            "yes",
            _figure(each.macs / 1e6),
            _figure(each.params / 1e3),
            None,
        )
        for each in baselines
        if each.plan.device == front.device and front.budget_at == "min"  # as they were measured
    ]
    return [_Points(name="hand-made, trained alone", rows=rows, style=_BASELINE_STYLE)] if rows else []


def _candidates(front: Front) -> list[_Points]:
    groups = []
    for name, candidates, style in (
        ("outside when measured", front.dropped, _DROPPED_STYLE),
        ("front, validated", front.candidates, _FRONT_STYLE),
    ):
        rows: list[tuple[Cell, ...]] = [
            (
                each.id,
                _figure(100 * each.validation_accuracy),
                _figure(100 * each.validation_standard_error),
                _figure(each.latency_ms),
                "no" if each.measured_latency_ms is None else "yes",
                _figure(each.macs / 1e6),
                _figure(each.params / 1e3),
                _figure(each.file_mb),
            )
            for each in candidates
        ]
        if rows:
            groups.append(_Points(name=name, rows=rows, style=style))
    return groups


def _trace(points: _Points, words: Mapping[str, str]) -> dict[str, Any]:
    """Return points as plotly takes them; of some networks the pointer tells what they are made of."""
    style = dict(points.style)
    errors = [row[2] for row in points.rows]
    if colour := style.pop("errors", None):
        style["error_y"] = {"array": errors, "color": colour, "thickness": 1, "width": 0 if "faint" in colour else 3}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": points.name,
        "x": [row[3] for row in points.rows],
        "y": [row[1] for row in points.rows],
        "customdata": [row[0] for row in points.rows],
        "hovertext": [
            f"<b>{escaped(str(row[0]))}</b> {row[1]}{'' if row[2] is None else f' ± {row[2]}'} %, {row[3]} ms"
            + (f"<br>{more}" if (more := words.get(str(row[0]))) else "")
            for row in points.rows
        ],
        "hoverinfo": "text+name",
        **style,
    }


def _figure(value: float | None) -> float | None:
    return rounded([value])[0]


def _vertical(value: float) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": value,
        "x1": value,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": "var(--ink)", "dash": "dash", "width": 1.5},
    }


def _note(value: float, text: str) -> dict[str, Any]:
    return {"x": value, "y": 1.0, "yref": "paper", "yanchor": "bottom", "text": text, "showarrow": False}


# Markers differ in shape as well as in colour.
_CLOUD_STYLE = {"marker": {"color": "var(--faint)", "size": 4, "symbol": "circle"}, "opacity": 0.55}
_EVALUATED_STYLE = {"marker": {"color": "var(--c1)", "size": 6, "symbol": "circle-open"}, "errors": "var(--faint)"}
_RIVAL_STYLE = {"marker": {"color": "var(--c4)", "size": 7, "symbol": "x-thin-open", "line": {"width": 1.5}}}
_BASELINE_STYLE = {"marker": {"color": "var(--c3)", "size": 11, "symbol": "diamond"}, "errors": "var(--c3)"}
_DROPPED_STYLE = {"marker": {"color": "var(--c4)", "size": 9, "symbol": "triangle-down-open"}, "errors": "var(--c4)"}
_FRONT_STYLE = {
    "mode": "lines+markers",
    "marker": {"color": "var(--c2)", "size": 10, "symbol": "square"},
    "line": {"color": "var(--c2)", "shape": "hv", "width": 1.5},
    "errors": "var(--c2)",
}
