"""``nas space``: what can be searched, and whether a space of one's own is sound."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.terminal import command_group

app = command_group("List, show, check and count search spaces.")

SpaceArgument = Annotated[str, typer.Argument(metavar="SPACE", help="A name, or a TOML file.")]
FileArgument = Annotated[str, typer.Argument(metavar="FILE.toml", help="The file to check.")]
ChannelsOption = Annotated[int, typer.Option("--channels", min=1, help="Of the images.")]
ClassesOption = Annotated[int, typer.Option("--classes", min=1, help="Number of labels.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command("list")
def list_spaces(*, as_json: JsonOption = False) -> None:
    """List the named spaces."""
    from nas import present_spaces
    from search_spaces.catalogue import SPACES

    present_spaces.names({name: entry.about for name, entry in SPACES.items()}, as_json=as_json)


@app.command("show")
def show(
    space: SpaceArgument, *, channels: ChannelsOption = 3, classes: ClassesOption = 10, as_json: JsonOption = False
) -> None:
    """Show a space: its stages, how many networks it has, and how small and large they are."""
    from nas import present_spaces
    from predictors.space_summary import summarise
    from search_spaces.catalogue import find_space

    built = find_space(space, channels=channels, classes=classes)
    present_spaces.summary(built, summarise(built), as_json=as_json)


@app.command("check")
def check(
    file: FileArgument, *, channels: ChannelsOption = 3, classes: ClassesOption = 10, as_json: JsonOption = False
) -> None:
    """Check a space's file: builds its supernet and runs networks with every operator, small and large."""
    import numpy as np

    from nas import present_spaces
    from nas.sandwich import Sandwich
    from nas.supernet import Supernet, check_forward
    from predictors.space_summary import summarise
    from search_spaces.catalogue import find_space

    built = find_space(file, channels=channels, classes=classes)
    # What a training goes through until every operator of every block has had its turn.
    sandwich = Sandwich(built, seed=0)
    genomes = built.unique(np.concatenate([sandwich.subnets(step) for step in range(sandwich.cycle)]))
    check_forward(Supernet(built, seed=0), [built.lower(genome) for genome in genomes])
    present_spaces.checked(file, built, summarise(built), len(genomes), as_json=as_json)


@app.command("count")
def count(
    space: SpaceArgument, *, channels: ChannelsOption = 3, classes: ClassesOption = 10, as_json: JsonOption = False
) -> None:
    """Print the exact number of distinct networks."""
    from nas import present_spaces
    from search_spaces.catalogue import find_space

    present_spaces.count(find_space(space, channels=channels, classes=classes), as_json=as_json)
