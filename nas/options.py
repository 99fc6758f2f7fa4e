"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas import completion, defaults

RunOption = Annotated[Path, typer.Option("--run", metavar="DIR", help="Run directory.")]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of all random draws.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="Target device, see nas devices.", autocompletion=completion.devices),
]
SpaceOption = Annotated[
    str | None,
    typer.Option(
        "--space",
        metavar="NAME",
        help=f"Name or TOML file; fixed by a run's first command.  [default: {defaults.SPACE}]",
        autocompletion=completion.spaces,
    ),
]
MismatchOption = Annotated[
    bool,
    typer.Option("--allow-mismatch", help="Take a table of other conditions, such as an older kernel, with a warning."),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        autocompletion=completion.data,
        help=f"clutter, digits, folder:PATH, npz:FILE, idx:DIR or MODULE:FUNCTION; fixed by a run's first command.  "
        f"[default: {defaults.DATA}]",
    ),
]
