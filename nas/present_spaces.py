"""What ``nas space`` prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from nas.terminal import print_json, print_table, say
from nas.wording import in_words
from predictors.space_summary import Range, SpaceSummary
from search_spaces.language import NetworkSpace
from search_spaces.layout import Operator, Stage


def names(about: Mapping[str, str], *, as_json: bool) -> None:
    """Print the named spaces, each with a line about it."""
    if as_json:
        print_json(dict(about))
        return
    print_table(["space", "what for"], [[name, text] for name, text in about.items()], title="Named spaces", left=2)
    say("Next: nas space show NAME")


def summary(space: NetworkSpace, figures: SpaceSummary, *, as_json: bool) -> None:
    """Print a space's stages and figures."""
    if as_json:
        print_json(dataclasses.asdict(figures) | {"layout": space.layout})
        return
    layout = space.layout
    say(
        f"{space.name}: {in_words(space.count())} networks of {figures.genes} choices, {figures.blocks} distinct "
        f"blocks; images of {_listed(layout.input.resolutions)} pixels."
    )
    sides = layout.sides(layout.input.resolution)
    print_table(
        ["stage", "pixels", "width", "blocks", "operators"],
        [
            [str(number), str(side), _listed(stage.width), _listed(stage.depth), _operators(stage)]
            for number, (stage, side) in enumerate(zip(layout.stages, sides[1:], strict=True), start=1)
        ],
        title=f"Stages at {layout.input.resolution} pixels",
        left=5,
    )
    print_table(
        ["", "smallest", "median", "largest"],
        [
            _row("parameters, M", figures.params, 1e6),
            _row("MACs, M", figures.macs, 1e6),
            _row("weights in fp32, MB", figures.weight_bytes, 1e6),
        ],
        title="Sizes (medians of networks drawn uniformly)",
    )


def checked(file: str, space: NetworkSpace, figures: SpaceSummary, n_built: int, *, as_json: bool) -> None:
    """Print that a space's file is sound."""
    if as_json:
        print_json({"file": file, "networks_run": n_built} | dataclasses.asdict(figures))
        return
    say(
        f"{file}: sound. {in_words(space.count())} networks of {figures.genes} choices, {figures.blocks} distinct "
        f"blocks; {n_built} networks were run: every operator of every block, at the smallest and largest sizes too."
    )
    say(f"Next: nas space show {file}; nas train --space {file}")


def count(space: NetworkSpace, *, as_json: bool) -> None:
    """Print how many networks a space has."""
    if as_json:
        print_json({"space": space.name, "architectures": space.count()})
        return
    say(str(space.count()))


def _row(name: str, values: Range, unit: float) -> list[str]:
    return [name, *(f"{value / unit:.3g}" for value in (values.smallest, values.median, values.largest))]


def _listed(options: tuple[int | float, ...]) -> str:
    return "/".join(f"{option:g}" for option in options)


def _operators(stage: Stage) -> str:
    first = stage.operators_at(1)
    marked = [
        _operator(operator) + ("" if operator in first else " (not in the first block)") for operator in stage.operators
    ]
    return "; ".join(marked)


def _operator(operator: Operator) -> str:
    choices = [f"{name} {_listed(options)}" for name, options in operator.sizes]
    settings = [
        str(value) if name == "activation" else f"{name} {value}"
        for name, value in operator.settings
        if value != "none"
    ]
    return " ".join([operator.family, *choices, *settings])
