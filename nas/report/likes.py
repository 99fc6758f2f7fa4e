"""What a device likes: which operators and sizes networks of the predicted front have, by how long they take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.engine.evolution import Evolution, evolve
from nas.engine.pareto import front_rows
from nas.report.holdings import Accuracies, Holdings
from nas.report.parts import Chart, Line, Missing, Part, Section, Table, rounded
from predictors.latency import LatencyPredictor
from predictors.table_frame import Staircase, staircases, table_frame
from search_spaces.space import Genomes
from search_spaces.spec import BlockSpec, chosen_sizes

Values = npt.NDArray[np.float64]

_BANDS = 6
_PER_BAND = 24
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "pentagon", "cross")
_KINDS = ("operator", "kernel", "expansion")


def likes_section(held: Holdings) -> Section:
    """Return the section of all devices with a table."""
    parts: list[Part] = []
    for number, (name, latency) in enumerate(held.latencies.items()):
        known = held.accuracies[latency.table.precision]
        if known.predictor is None:
            search = held.command(f"nas search --budget-ms 50% --device {name}")
            parts.append(Missing(what=f"Accuracies to learn from, for {name}", command=search, device=name))
        else:
            parts += _shares(held, latency, known, number, name)
        parts += _stairs(latency, number, name)
    if not held.latencies:
        parts.append(Missing(what="A latency table", command=held.command("nas build-lut --device cpu")))
    return Section(
        name="likes",
        title="What the device likes",
        about="What the most accurate networks are made of, from the fastest to the slowest, as predicted: of the "
        "front of predicted accuracy and predicted latency.",
        parts=tuple(parts),
    )


def _shares(held: Holdings, latency: LatencyPredictor, known: Accuracies, number: int, name: str) -> list[Part]:
    genomes, latency_ms = _predicted_front(held, latency, known)
    bands = np.array_split(np.arange(len(genomes)), min(_BANDS, len(genomes)))
    middle_ms = [float(np.median(latency_ms[band])) for band in bands]
    charts: list[Part] = []
    for kind in _KINDS:
        counts = [_counted(held, genomes[band], kind) for band in bands]
        options = sorted({option for count in counts for option in count}, key=lambda each: (len(each), each))
        if len(options) == 1:
            charts.append(Line(text=f"On {name} every block of these networks has {kind} {options[0]}.", device=name))
        if len(options) < 2:
            continue
        charts.append(_share_chart(kind, options, counts, middle_ms, number, name))
    widths = [[_width(held, genome) for genome in genomes[band]] for band in bands]
    depths = [[len(held.space.lower(genome).blocks) for genome in genomes[band]] for band in bands]
    charts.append(_mean_chart("width", "mean channels of blocks", widths, middle_ms, number, name))
    charts.append(_mean_chart("depth", "blocks", depths, middle_ms, number, name))
    return charts


def _predicted_front(held: Holdings, latency: LatencyPredictor, known: Accuracies) -> tuple[Genomes, Values]:
    """Return networks of the front of predicted accuracy and predicted latency, and theirs, fastest first."""
    predictor = known.predictor
    assert predictor is not None

    def score(genomes: Genomes) -> tuple[Values, Values]:
        minimised = np.column_stack([-predictor.predict(genomes)[0], latency.predict(genomes)])
        return minimised, np.zeros(len(genomes))

    rng = np.random.default_rng(0)
    start = held.space.unique(np.concatenate([held.space.sample(256, rng), known.genomes]))
    genomes, minimised, _ = evolve(held.space, score, start, Evolution(population=_BANDS * _PER_BAND), rng)
    rows = front_rows(minimised)
    rows = rows[np.argsort(minimised[rows, 1], kind="stable")]
    return genomes[rows], minimised[rows, 1]


def _counted(held: Holdings, genomes: Genomes, kind: str) -> Counter[str]:
    """Return how many blocks of stages have each option."""
    count: Counter[str] = Counter()
    for genome in genomes:
        for placed in held.space.lower(genome):
            if ".block" in placed.slot:
                count[_option(placed.block, kind)] += 1
    return count


def _option(block: BlockSpec, kind: str) -> str:
    return block.family if kind == "operator" else str(chosen_sizes(block).get(kind, "none"))


def _width(held: Holdings, genome: Genomes) -> float:
    return float(np.mean([placed.block.out_channels for placed in held.space.lower(genome) if "." in placed.slot]))


def _share_chart(
    kind: str,
    options: Sequence[str],
    counts: Sequence[Counter[str]],
    middle_ms: Sequence[float],
    number: int,
    name: str,
) -> Chart:
    shares = {
        option: [100.0 * count[option] / total if (total := count.total()) else 0.0 for count in counts]
        for option in options
    }
    traces = [
        _line(f"{kind} {option}", middle_ms, share, position) for position, (option, share) in enumerate(shares.items())
    ]
    first, last = ({each: share[at] for each, share in shares.items()} for at in (0, -1))
    return Chart(
        name=f"likes-{kind}-{number}",
        title=f"Share of blocks by {kind} on {name}",
        alt=f"Lines over latency. {_said(kind, 'The fastest', first)}; {_said(kind, 'the slowest', last)}.",
        traces=tuple(traces),
        layout=_layout("share of blocks %"),
        table=Table(
            name=f"likes-{kind}-{number}",
            title=f"Share of blocks by {kind} on {name}",
            columns=("latency ms", *(f"{option} %" for option in options)),
            rows=tuple(
                (rounded([ms])[0], *(rounded([share[at]])[0] for share in shares.values()))
                for at, ms in enumerate(middle_ms)
            ),
            shown=False,
            device=name,
        ),
        device=name,
    )


def _said(kind: str, which: str, shares: dict[str, float]) -> str:
    most = sorted(shares.items(), key=lambda each: -each[1])[:3]
    return f"{which} networks have " + ", ".join(f"{share:.0f} % {kind} {option}" for option, share in most)


def _mean_chart(
    kind: str, title: str, values: Sequence[Sequence[float]], middle_ms: Sequence[float], number: int, name: str
) -> Chart:
    means = [float(np.mean(each)) for each in values]
    return Chart(
        name=f"likes-{kind}-{number}",
        title=f"{title[0].upper()}{title[1:]} on {name}",
        alt=f"A line over latency, from {means[0]:.3g} in the fastest networks to {means[-1]:.3g} in the slowest.",
        traces=(_line(title, middle_ms, means, 0),),
        layout=_layout(title),
        table=Table(
            name=f"likes-{kind}-{number}",
            title=f"{title[0].upper()}{title[1:]} on {name}",
            columns=("latency ms", title),
            rows=tuple((rounded([ms])[0], rounded([mean])[0]) for ms, mean in zip(middle_ms, means, strict=True)),
            shown=False,
            device=name,
        ),
        device=name,
    )


def _stairs(latency: LatencyPredictor, number: int, name: str) -> list[Part]:
    found: list[Staircase] = staircases(table_frame(latency))
    if not found:
        return [Line(text="No kind of block comes in three widths or more.", device=name)]
    rows = tuple(
        (each.block, width, rounded([ms])[0], rounded([1000.0 * ms / width])[0])
        for each in found
        for width, ms in each.steps
    )
    return [
        Chart(
            name=f"stairs-{number}",
            title=f"Latency of blocks over channels on {name}",
            alt="Lines of what one block costs at all its widths: "
            + "; ".join(f"{each.block} from {each.steps[0][1]:.4f} to {each.steps[-1][1]:.4f} ms" for each in found),
            traces=tuple(
                _line(each.block, [width for width, _ in each.steps], [ms for _, ms in each.steps], position)
                for position, each in enumerate(found)
            ),
            layout={
                "xaxis": {"title": {"text": "channels"}},
                "yaxis": {"title": {"text": "block ms"}, "rangemode": "tozero"},
            },
            table=Table(
                name=f"stairs-{number}",
                title=f"Latency of blocks over channels on {name}",
                columns=("block", "channels", "ms", "µs per channel"),
                rows=rows,
                shown=False,
                device=name,
            ),
            device=name,
        )
    ]


def _line(title: str, x: Sequence[float], y: Sequence[float], position: int) -> dict[str, Any]:
    colour = f"var(--c{position % 6 + 1})"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": title,
        "x": rounded(list(x)),
        "y": rounded(list(y)),
        "line": {"color": colour, "dash": ("solid", "dash", "dot", "dashdot")[position % 4]},
        "marker": {"color": colour, "symbol": _SYMBOLS[position % len(_SYMBOLS)], "size": 8},
    }


def _layout(title: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": "predicted latency ms"}},
        "yaxis": {"title": {"text": title}, "rangemode": "tozero"},
    }
