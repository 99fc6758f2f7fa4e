"""Two runs beside each other: what each was asked, and which has the better networks at the same cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nas.engine.pareto import hypervolume
from nas.front import Candidate, Front
from nas.report.holdings import Holdings, one_thread
from nas.report.parts import Cell, Chart, Line, Missing, Part, Report, Section, Table, rounded
from nas.run import Run
from nas.wording import counted, in_words
from predictors.quality import kendall_tau
from search_spaces.documents import canonical_json
from search_spaces.errors import InputError

_BUDGETS = 7


def make_comparison(first: Run, second: Run) -> Report:
    """Return the report of two runs; raises as `nas.report.making.make_report`."""
    if first.path.resolve() == second.path.resolve():
        raise InputError(f"{first.path} and {second.path} are the same run; a comparison is of two")
    names = _names(first, second)
    held = dict(zip(names, (Holdings(first), Holdings(second)), strict=True))
    shared = [device for device in held[names[0]].fronts if device in held[names[1]].fronts]
    with one_thread():
        sections = (_fronts(held, shared), _quality(held), _settings(held))
    return Report(
        title=f"{names[0]} against {names[1]}",
        subtitle="Two runs, by the networks that each has validated.",
        devices=tuple(shared),
        sections=sections,
    )


def _names(first: Run, second: Run) -> tuple[str, str]:
    one, other = first.path.resolve(), second.path.resolve()
    return (one.name, other.name) if one.name != other.name else (str(first.path), str(second.path))


def _fronts(held: Mapping[str, Holdings], shared: list[str]) -> Section:
    parts: list[Part] = [Line(text=text) for text in _unlike(held, shared)]
    for number, device in enumerate(shared):
        fronts = {name: each.fronts[device] for name, each in held.items()}
        if len({front.budget_at for front in fronts.values()}) > 1:
            told = " and ".join(f"{front.budget_at} in {name}" for name, front in fronts.items())
            parts.append(Line(text=f"On {device} latencies are not of the same statistic: {told}.", device=device))
            continue
        parts += _on(device, fronts, number)
    if not shared:
        for name, each in held.items():
            found = ", ".join(each.fronts) or "none"
            what = f"A device on which both have a front ({name} has: {found})"
            parts.append(Missing(what=what, command=each.command("nas search --budget-ms 50%")))
    return Section(
        name="front",
        title="Fronts",
        about="Validated networks of both runs, and the most accurate of each inside the same budgets.",
        parts=tuple(parts),
    )


def _unlike(held: Mapping[str, Holdings], shared: list[str]) -> list[str]:
    """Return why figures may not be compared, as far as the runs tell."""
    one, other = held.values()
    said = []
    if one.record and other.record and one.record.data_hash != other.record.data_hash:
        said.append("The runs are of different images: accuracies are not of the same task.")
    for device in shared:
        prints = {each.fronts[device].fingerprint_hash for each in held.values()}
        if len(prints) > 1:
            said.append(f"{device} was not the same machine, or not the same software: latencies may differ for that.")
    return said


def _on(device: str, fronts: Mapping[str, Front], number: int) -> list[Part]:
    reference = np.array(
        [
            max(1.0 - each.validation_accuracy for front in fronts.values() for each in front.candidates),
            _common_ms(fronts)[1],
        ]
    )
    volumes = {name: hypervolume(_minimised(front), reference) for name, front in fronts.items()}
    told = ", ".join(f"{name} {volume:.4g}" for name, volume in volumes.items())
    rows = tuple(
        (name, each.id, *rounded(_figures(each))) for name, front in fronts.items() for each in front.candidates
    )
    return [
        Line(
            text=f"Hypervolume of validation error and latency on {device}: {told} (reference: error "
            f"{reference[0]:.3f}, {reference[1]:.4g} ms).",
            device=device,
        ),
        Chart(
            name=f"fronts-{number}",
            title=f"Accuracy against latency on {device}",
            alt=f"Two rising fronts. Hypervolume: {told}.",
            traces=tuple(_trace(name, front, position) for position, (name, front) in enumerate(fronts.items())),
            layout={
                "xaxis": {"title": {"text": "latency ms"}},
                "yaxis": {"title": {"text": "search-validation accuracy %"}},
                "height": 480,
            },
            table=Table(
                name=f"fronts-{number}",
                title=f"Networks of both fronts on {device}",
                columns=("run", "network", "accuracy %", "± points", "latency ms", "MMACs", "params k"),
                rows=rows,
                shown=False,
                device=device,
            ),
            device=device,
        ),
        _at_budgets(device, fronts, number),
    ]


def _figures(each: Candidate) -> list[float]:
    accuracy = [100.0 * each.validation_accuracy, 100.0 * each.validation_standard_error]
    return [*accuracy, each.latency_ms, each.macs / 1e6, each.params / 1e3]


def _minimised(front: Front) -> np.typing.NDArray[np.float64]:
    return np.array([[1.0 - each.validation_accuracy, each.latency_ms] for each in front.candidates])


def _trace(name: str, front: Front, position: int) -> dict[str, Any]:
    colour = f"var(--c{position + 1})"
    errors = rounded([100.0 * each.validation_standard_error for each in front.candidates])
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": rounded([each.latency_ms for each in front.candidates]),
        "y": rounded([100.0 * each.validation_accuracy for each in front.candidates]),
        "error_y": {"array": errors, "color": colour, "thickness": 1, "width": 3},
        "hovertext": [each.id for each in front.candidates],
        "line": {"color": colour, "shape": "hv", "dash": ("solid", "dash")[position]},
        "marker": {"color": colour, "size": 9, "symbol": ("square", "circle-open")[position]},
    }


def _at_budgets(device: str, fronts: Mapping[str, Front], number: int) -> Table:
    """Return the most accurate network of each run inside budgets that both reach."""
    one, other = fronts
    rows: list[tuple[Cell, ...]] = []
    fastest, slowest = _common_ms(fronts)
    for limit_ms in np.geomspace(fastest, slowest, _BUDGETS) if 0.0 < fastest <= slowest else ():
        # The ends are figures of networks, which rounding must not shut out.
        best = [_best(front, float(limit_ms) * (1.0 + 1e-9)) for front in fronts.values()]
        gain = 100.0 * (best[1].validation_accuracy - best[0].validation_accuracy)
        error = 100.0 * math.hypot(*(each.validation_standard_error for each in best))
        verdict = f"{other if gain > 0 else one} is ahead" if abs(gain) > 2 * error else "within two standard errors"
        accuracies = rounded([100.0 * each.validation_accuracy for each in best])
        rows.append((*rounded([float(limit_ms)], 4), *accuracies, *rounded([gain, error], 3), verdict))
    return Table(
        name=f"budgets-{number}",
        title=f"The most accurate network inside a budget on {device}",
        columns=("budget ms", f"{one} %", f"{other} %", f"{other} less {one}, points", "± points", "verdict"),
        rows=tuple(rows),
        device=device,
    )


def _common_ms(fronts: Mapping[str, Front]) -> tuple[float, float]:
    """Return the latencies between which both fronts were asked for networks and have some."""
    fastest = max(min(each.latency_ms for each in front.candidates) for front in fronts.values())
    slowest = max(max(each.latency_ms for each in front.candidates) for front in fronts.values())
    budgets = [front.budget_ms for front in fronts.values() if front.budget_ms is not None]
    return fastest, min(slowest, *budgets) if budgets else slowest


def _best(front: Front, limit_ms: float) -> Candidate:
    inside = [each for each in front.candidates if each.latency_ms <= limit_ms]
    return max(inside, key=lambda each: each.validation_accuracy)


def _quality(held: Mapping[str, Holdings]) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for name, each in held.items():
        for device, latency in each.latencies.items():
            error = latency.table.error
            figures = rounded([error.mape_percent, error.within_5_percent, error.noise_floor_percent], 4)
            rows.append((name, f"latency on {device}: mean error %, within 5 %, noise floor %", *figures))
        for precision, known in each.accuracies.items():
            if known.unseen is not None:
                tau = kendall_tau(known.unseen, known.values)
                rows.append(
                    (name, f"accuracy in {precision}: Kendall's τ, networks", *rounded([tau, len(known)]), None)
                )
    columns = ("run", "of", "first", "second", "third")
    table = Table(name="quality", title="What predictions are worth", columns=columns, rows=tuple(rows))
    missing = Missing(what="A table or evaluated networks in either run", command="")
    return Section(
        name="trust",
        title="Can I trust them?",
        about="Errors of each run's own predictions, on networks that they were not made from.",
        parts=(table if rows else missing,),
    )


def _settings(held: Mapping[str, Holdings]) -> Section:
    """Return what differs between the runs, and what does not."""
    told = [_told(each) for each in held.values()]
    rows: list[tuple[Cell, ...]] = []
    for key in dict.fromkeys([*told[0], *told[1]]):
        values = [each.get(key, "-") for each in told]
        rows.append((key, *values, "" if values[0] == values[1] else "differs"))
    return Section(
        name="provenance",
        title="Where the figures come from",
        about="What each run was made with.",
        parts=(Table(name="settings", title="Both runs", columns=("what", *held, "same?"), rows=tuple(rows)),),
    )


def _told(held: Holdings) -> dict[str, str]:
    status, record = held.status, held.record
    told = {
        "space": f"{status.space} ({held.space.hash}), {in_words(status.architectures)} networks",
        "data": status.data,
        "networks evaluated": f"{status.evaluated:,}",
        "test split read": counted(held.test_reads, "time"),
    }
    if record is not None:
        told |= {"data content": record.data_hash[:16], "supernet": record.supernet_hash, "torch": record.torch_version}
        if record.config is not None:
            told |= {"training steps": f"{record.config.steps:,}", "training seconds": f"{record.seconds:.0f}"}
            told["settings other than the defaults"] = canonical_json(record.config.chosen)
    for name, front in held.fronts.items():
        budget = "none" if front.budget_ms is None else f"{front.budget_ms:.4g} ms"
        bounds = "".join(f", {cost} <= {limit:.6g}" for cost, limit in front.bounds.items())
        asked = f"budget {budget} at {front.budget_at}{bounds}, traded off with {', '.join(front.objectives)}"
        told[f"search on {name}"] = f"{asked}; {front.evaluations} evaluations, seed {front.seed}"
    return told
