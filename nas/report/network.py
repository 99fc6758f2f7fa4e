"""Networks as pictures: stages and blocks with what was chosen for each, and what each costs."""

from __future__ import annotations

import dataclasses
import itertools

from nas.front import Candidate, Front
from nas.report.holdings import Holdings, ratio_of
from nas.report.parts import Drawing, DrawnBlock, Line, Missing, Part, Section, Table, escaped
from nas.wording import accuracy_text, ms_text
from predictors.latency import LatencyPredictor
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock, chosen_sizes

_SAME = 1e-6  # relative difference of predictions by one table


def network_section(held: Holdings) -> Section:
    """Return the section of the networks of all fronts; one of each is chosen."""
    parts: list[Part] = []
    for name, front in held.fronts.items():
        latency = held.latency_of(front)
        drawings = [_drawing(held, name, front, each, latency) for each in front.candidates]
        chosen = next(each for each in drawings if each.chosen)
        parts += [*drawings, _table(name, chosen, list(held.fronts).index(name))]
        if latency is not None:
            if latency.table.fingerprint_hash != front.fingerprint_hash or _differ(chosen, front.best):
                text = "The latency table is not the one of the search: what blocks cost is by the table as it is now."
                parts.append(Line(text=text, device=name))
            continue
        build = held.command(f"nas build-lut --device {front.device}")
        parts.append(Missing(what=f"What blocks cost on {front.device}", command=build, device=name))
    if not held.fronts:
        parts.append(Missing(what="A network to draw", command=held.status.next))
    return Section(
        name="network",
        title="The chosen network",
        about="What the selected network is made of, and where its time goes: the best of the front, until another is "
        "selected above. The shape of each block shows channels going in, the most inside, and coming out.",
        parts=tuple(parts),
    )


def _differ(drawing: Drawing, candidate: Candidate) -> bool:
    return abs(drawing.predicted_ms / candidate.predicted_latency_ms - 1.0) > _SAME


def network_words(network: NetworkSpec) -> str:
    """Return a network in words, a line per stage, as plots show it."""
    lines = []
    for stage, placed in itertools.groupby(network, key=_stage):
        blocks = [each.block for each in placed]
        runs = [(len(list(same)), words) for words, same in itertools.groupby(map(_block_words, blocks))]
        said = ", ".join(f"{count} x {words}" if count > 1 else words for count, words in runs)
        lines.append(f"{escaped(f'{stage}: {said}')} → {blocks[-1].out_channels} channels")
    return "<br>".join(lines)


def _block_words(block: BlockSpec) -> str:
    sizes = chosen_sizes(block)
    said = [f"{short}{sizes[name]}" for name, short in (("kernel", "k"), ("expansion", "e")) if name in sizes]
    return " ".join([block.family, *said])


def _stage(placed: PlacedBlock) -> str:
    return placed.slot.partition(".")[0]


def _drawing(
    held: Holdings, name: str, front: Front, candidate: Candidate, latency: LatencyPredictor | None
) -> Drawing:
    network = held.space.lower(held.space.check([candidate.genes])[0])
    ratio = None if latency is None else ratio_of(front, latency)
    usable = None if ratio is None else latency
    blocks = tuple(_drawn(placed, usable, ratio or 1.0) for placed in network)
    told, predicted_ms = sum(each.latency_ms or 0.0 for each in blocks), candidate.predicted_latency_ms
    if usable is not None:
        predicted_ms = float(usable.predict(held.space.check([candidate.genes]))[0]) * (ratio or 1.0)
    measured = candidate.measured_latency_ms
    figures = [
        accuracy_text(candidate.validation_accuracy, candidate.validation_standard_error),
        f"{ms_text(candidate.predicted_latency_ms)} ms predicted",
        "not measured" if measured is None else f"{ms_text(measured)} ms measured",
        f"{candidate.macs / 1e6:.2f} MMACs",
        f"{candidate.params:,} parameters",
    ]
    return Drawing(
        name=candidate.id,
        title=f"{candidate.id}: {', '.join(figures)}",
        blocks=blocks,
        rest_ms=predicted_ms - told,
        predicted_ms=predicted_ms,
        device=name,
        chosen=candidate == front.best,
    )


def _drawn(placed: PlacedBlock, latency: LatencyPredictor | None, ratio: float) -> DrawnBlock:
    block = placed.block
    inside = max((layer.channels for layer in block.layers()), default=0)
    return DrawnBlock(
        slot=placed.slot,
        stage=_stage(placed),
        family=block.family,
        sizes=_unusual(block),
        kernel=kernel if isinstance(kernel := chosen_sizes(block).get("kernel"), int) else 0,
        channels=(block.in_channels, inside, block.out_channels),
        resolution=(block.resolution, block.out_resolution),
        latency_ms=None if latency is None else ratio * latency.block_ms(block),
        macs=block.macs(),
        params=block.params(),
    )


def _unusual(block: BlockSpec) -> str:
    """Return the sizes of a block in words, without those that a family has where nothing is said."""
    usual = {each.name: each.default for each in dataclasses.fields(block)}
    return ", ".join(f"{name} {value}" for name, value in chosen_sizes(block).items() if value != usual[name])


def _table(name: str, drawing: Drawing, number: int) -> Table:
    return Table(
        name=f"network-{number}",
        title=f"Blocks of {drawing.name} on {name}",
        columns=("slot", "block", "sizes", "in", "out", "pixels in", "pixels out", "ms", "MMACs", "params"),
        rows=tuple(
            (
                each.slot,
                each.family,
                each.sizes,
                each.channels[0],
                each.channels[2],
                *each.resolution,
                None if each.latency_ms is None else round(each.latency_ms, 5),
                round(each.macs / 1e6, 4),
                each.params,
            )
            for each in drawing.blocks
        ),
        shown=False,
        device=name,
    )
