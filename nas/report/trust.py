"""What the figures are worth: predictions against measurements, ranks against truth, budgets against repetitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.engine.pareto import hypervolume
from nas.front import Front
from nas.goal import LATENCY
from nas.report.holdings import LEAST_TO_LEARN, Accuracies, Holdings, ratio_of, search_options
from nas.report.parts import Cell, Chart, Line, Missing, Part, Section, Table, rounded
from nas.wording import ms_text
from predictors.latency import LatencyPredictor, truth_ms
from predictors.quality import LatencyError, kendall_tau

Values = npt.NDArray[np.float64]

_BANDS = 5
_STEPS = 256
_SHOWN = 2000  # points of a plot


def trust_section(held: Holdings) -> Section:
    """Return the section of all tables and fronts."""
    parts: list[Part] = []
    for number, (device, latency) in enumerate(held.latencies.items()):
        parts += _table_parts(latency, device, number)
    for each in held.status.tables:
        if each.problem is not None:
            parts.append(Missing(what=each.problem, command=held.command("nas build-lut --device NAME")))
    if not held.latencies:
        parts.append(Missing(what="A latency table", command=held.command("nas build-lut --device cpu")))
    for number, (name, front) in enumerate(held.fronts.items()):
        parts += _predictor_parts(held, front, name, number)
        parts += _volume_parts(held, front, name, number)
    parts += _budget_parts(held)
    parts += [Line(text=f"Not readable, and left out: {each}.") for each in held.damaged()]
    return Section(
        name="trust",
        title="Can I trust it?",
        about="Predictions beside what was measured or evaluated, on networks that the predictions were not made from.",
        parts=tuple(parts),
    )


def _table_parts(latency: LatencyPredictor, device: str, number: int) -> list[Part]:
    table = latency.table
    genomes = latency.space.check([each.genes for each in table.held_out])
    predicted, measured = latency.predict(genomes), truth_ms(table.held_out)
    rows = tuple(
        (latency.space.architecture(genome).id, *rounded([one, other, 100.0 * (one / other - 1.0)]))
        for genome, one, other in zip(genomes, predicted, measured, strict=True)
    )
    error = table.error
    kept = "keeps its promise" if not error.shortfalls else f"misses its promise: {', '.join(error.shortfalls)}"
    ends = rounded([min(measured.min(), predicted.min()), max(measured.max(), predicted.max())])
    return [
        Line(
            text=f"The latency table of {device} {kept}: off by {error.mape_percent:.2f} % on average on "
            f"{error.networks} networks that it was not fitted to, {error.within_5_percent:.0f} % of them within 5 %, "
            f"bias {error.bias_percent:+.2f} %, rank correlation {error.spearman:.4f}. Two measurements of one network "
            f"differ by {error.noise_floor_percent:.2f} % themselves (noise floor).",
            device=device,
        ),
        Chart(
            name=f"lut-{number}",
            title=f"Latency, predicted against measured on {device}",
            alt=f"Points close to the diagonal: the mean error is {error.mape_percent:.2f} %.",
            traces=(
                _diagonal("equal", ends, "solid", 1.0),
                _diagonal("5 % apart", ends, "dot", 1.05),
                _diagonal("", ends, "dot", 0.95),
                _points("networks never fitted to", [row[2] for row in rows], [row[1] for row in rows], rows, "ms"),
            ),
            layout=_square("measured ms", "predicted ms"),
            table=Table(
                name=f"lut-{number}",
                title=f"Held-out networks on {device}",
                columns=("network", "predicted ms", "measured ms", "error %"),
                rows=rows,
                shown=False,
                device=device,
            ),
            device=device,
        ),
        Table(
            name=f"lut-errors-{number}",
            title=f"Three ways to predict, on the same networks, on {device}",
            columns=("model", "mean error %", "within 5 %", "bias %", "rank correlation"),
            rows=tuple(
                _errors(name, each)
                for name, each in (
                    (f"calibrated table ({table.calibration.model})", error),
                    ("plain sum of its blocks", table.plain_error),
                    ("a straight line through MACs", table.macs_error),
                )
            ),
            device=device,
        ),
    ]


def _errors(name: str, error: LatencyError) -> tuple[Cell, ...]:
    figures = (error.mape_percent, error.within_5_percent, error.bias_percent, error.spearman)
    return (name, *rounded(figures, 4))


def _predictor_parts(held: Holdings, front: Front, name: str, number: int) -> list[Part]:
    known = held.accuracies_of(front)
    unseen = known.unseen
    if unseen is None or known.predictor is None:
        search = held.command(search_options(front, anew=True))
        what = f"{LEAST_TO_LEARN} evaluated networks, to tell how well accuracy is predicted"
        return [Missing(what=what, command=search, device=name)]
    tau = kendall_tau(unseen, known.values)
    rows = tuple(
        (held.space.architecture(genome).id, *rounded([100.0 * one, 100.0 * other]))
        for genome, one, other in zip(known.genomes, unseen, known.values, strict=True)
    )
    shown = rows[-_SHOWN:]
    bands = _tau_in_bands(held, front, known, unseen)
    inside = "" if bands is None else f"; inside fifths of equal latency {bands:.2f} on average"
    ends = rounded([100.0 * min(unseen.min(), known.values.min()), 100.0 * max(unseen.max(), known.values.max())])
    return [
        Line(
            text=f"Predicted and true accuracy of {len(known)} evaluated networks agree in rank with Kendall's τ of "
            f"{tau:.2f}{inside} ({known.predictor.chosen}; each network predicted from the other four fifths).",
            device=name,
        ),
        Chart(
            name=f"predictor-{number}",
            title=f"Accuracy, predicted against true ({name})",
            alt=f"Points around the diagonal: Kendall's τ is {tau:.2f}.",
            traces=(
                _diagonal("equal", ends, "solid", 1.0),
                _points("evaluated networks", [row[2] for row in shown], [row[1] for row in shown], shown, "%"),
            ),
            layout=_square("true accuracy %", "predicted accuracy %"),
            table=Table(
                name=f"predictor-{number}",
                title=f"Evaluated networks ({name})",
                columns=("network", "predicted accuracy %", "true accuracy %"),
                rows=rows,
                shown=False,
                device=name,
            ),
            device=name,
        ),
    ]


def _tau_in_bands(held: Holdings, front: Front, known: Accuracies, predicted: Values) -> float | None:
    """Return the mean τ inside fifths of about equal latency, which tells more than that of cheap against dear."""
    latency = held.latency_of(front)
    if latency is None or len(known) < 4 * _BANDS:
        return None
    order = np.argsort(latency.predict(known.genomes), kind="stable")
    bands = np.array_split(order, _BANDS)
    return float(np.mean([kendall_tau(predicted[band], known.values[band]) for band in bands]))


def _volume_parts(held: Holdings, front: Front, name: str, number: int) -> list[Part]:
    latency, known = held.latency_of(front), held.accuracies_of(front)
    own, against = known.of(front.asked) if front.asked else known, front.comparison
    ratio = None if latency is None else ratio_of(front, latency)
    if latency is None or ratio is None or not len(own) or front.objectives != (LATENCY,):
        return []
    title = "this search" if front.asked else "all evaluated networks, in their order"
    arms = {title: own}
    if against is not None and front.asked:
        rival = known.of(against.against_asked)
        arms = {against.strategy: own} | ({against.against: rival} if len(rival) else {})
    objectives = {each: _objectives(latency, arm, ratio) for each, arm in arms.items()}
    limit_ms = min(math.inf if front.budget_ms is None else front.budget_ms, front.reachable_ms[1])
    reference = np.array([max(each[:, 0].max() for each in objectives.values()), limit_ms])
    if against is not None and against.reference.keys() == {"error", LATENCY}:
        reference = np.array([against.reference["error"], against.reference[LATENCY]])
    curves = {each: _volumes(minimised, reference) for each, minimised in objectives.items()}
    ends = ", ".join(f"{each} {curve[-1][1]:.4g} after {curve[-1][0]}" for each, curve in curves.items())
    rows = tuple((each, count, *rounded([volume])) for each, curve in curves.items() for count, volume in curve)
    return [
        Line(
            text=f"Hypervolume of true error and predicted latency, one seed: {ends} evaluations (reference: error "
            f"{reference[0]:.3f}, {ms_text(float(reference[1]))} ms).",
            device=name,
        ),
        Chart(
            name=f"volume-{number}",
            title=f"Hypervolume against evaluations ({name})",
            alt=f"Rising lines; at the end: {ends} evaluations.",
            traces=tuple(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": each,
                    "x": [count for count, _ in curve],
                    "y": rounded([volume for _, volume in curve]),
                    "line": {"color": f"var(--c{position + 1})", "dash": ("solid", "dash")[position], "shape": "hv"},
                }
                for position, (each, curve) in enumerate(curves.items())
            ),
            layout={
                "xaxis": {"title": {"text": "evaluated networks"}},
                "yaxis": {"title": {"text": "hypervolume (error times ms)"}, "rangemode": "tozero"},
            },
            table=Table(
                name=f"volume-{number}",
                title=f"Hypervolume against evaluations ({name})",
                columns=("strategy", "evaluations", "hypervolume"),
                rows=rows,
                shown=False,
                device=name,
            ),
            device=name,
        ),
    ]


def _objectives(latency: LatencyPredictor, known: Accuracies, ratio: float) -> Values:
    return np.column_stack([1.0 - known.values, ratio * latency.predict(known.genomes)])


def _volumes(minimised: Values, reference: Values) -> list[tuple[int, float]]:
    """Return the hypervolume after so many networks; of many not after each."""
    counts = np.unique(np.linspace(1, len(minimised), min(len(minimised), _STEPS)).astype(int)).tolist()
    return [(count, hypervolume(minimised[:count], reference)) for count in counts]


def _budget_parts(held: Holdings) -> list[Part]:
    """Return what was asked of networks, and what was measured."""
    rows: list[tuple[Cell, ...]] = []
    for name, front in held.fronts.items():
        if front.budget_ms is None:
            continue
        measured = [each.measured_latency_ms for each in front.candidates if each.measured_latency_ms is not None]
        inside = sum(each <= front.budget_ms for each in measured)
        worst = rounded([max(measured) if measured else None])[0]
        rows.append(
            (f"front on {name}", rounded([front.budget_ms])[0], len(measured), inside, worst, len(front.dropped))
        )
    for folder, record in held.exports.items():
        if record.budget_ms is not None and record.latency_ms is not None:
            kept = int(record.latency_ms <= record.budget_ms)
            budget_ms, latency_ms = rounded([record.budget_ms, record.latency_ms])
            rows.append((f"export {folder}, measured again", budget_ms, 1, kept, latency_ms, 0))
    if not rows:
        return []
    return [
        Table(
            name="budgets",
            title="Budgets kept",
            columns=("networks", "budget ms", "measured", "inside", "slowest ms", "dropped as outside"),
            rows=tuple(rows),
        )
    ]


def _points(name: str, x: list[Cell], y: list[Cell], rows: tuple[tuple[Cell, ...], ...], unit: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": x,
        "y": y,
        "hovertext": [f"{row[0]}: {row[1]} {unit} predicted, {row[2]} {unit}" for row in rows],
        "hoverinfo": "text",
        "marker": {"color": "var(--c1)", "size": 6, "symbol": "circle-open"},
    }


def _diagonal(name: str, ends: list[float | None], dash: str, slope: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "showlegend": bool(name),
        "x": ends,
        "y": rounded([slope * each for each in ends if each is not None]),
        "hoverinfo": "skip",
        "line": {"color": "var(--soft)", "dash": dash, "width": 1},
    }


def _square(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
