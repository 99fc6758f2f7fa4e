"""Text, tables and JSON on standard output."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

import typer


def command_group(text: str) -> typer.Typer:
    """Return a group of commands that shows its help where no command is given."""
    group = typer.Typer(help=text)

    @group.callback(invoke_without_command=True, help=text)
    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return group


def say(text: str, *, indent: int = 0) -> None:
    """Print a line; on a terminal, with breaks between words where it is too long, and `indent` after them."""
    typer.echo(_broken(text, sys.stdout, indent))


def say_error(text: str) -> None:
    """Print why a command has ended, on standard error."""
    typer.echo(_broken(f"nas: {text}", sys.stderr, 0), err=True)


def warn(text: str) -> None:
    """Print a line on standard error: what the user should know, and what does not end the command."""
    typer.echo(_broken(f"nas: warning: {text}", sys.stderr, 0), err=True)


def _broken(text: str, stream: TextIO, indent: int) -> str:
    """Return a text with line breaks for a terminal; commands in it stay whole, so that they can be copied."""
    if not stream.isatty() or text.startswith(_COMMAND):
        return text
    whole = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", _GLUE), text)
    width = shutil.get_terminal_size().columns
    lines = [
        textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
        for line in whole.split("\n")
    ]
    return "\n".join(lines).replace(_GLUE, " ")


_COMMAND = "Next: "
_GLUE = "\0"


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str, left: int = 1, whole: int = 0
) -> None:
    """Print a table, its first columns aligned to the left and the others, which are figures, to the right.

    Args:
        columns: their titles.
        rows: a text for each.
        title: of the table.
        left: how many columns are aligned to the left.
        whole: how many of the first columns have no line breaks, however narrow the terminal is.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    narrow = console.is_terminal  # figures are short: their titles take two lines where there is not all the room
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        is_figure = position >= left
        table.add_column(
            column.replace(" ", "\n", 1) if is_figure and narrow else column,
            justify="right" if is_figure else "left",
            overflow="fold",
            no_wrap=is_figure or position < whole,
        )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    if not narrow:
        # Nobody is to read around breaks that no terminal asked for.
        console = Console(width=_WIDEST)
    # Figures are never broken: a terminal that is too narrow for them breaks whole lines.
    needed = table.__rich_measure__(console, console.options).minimum
    console = Console(width=max(console.width, needed)) if needed > console.width else console
    with console.capture() as printed:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in printed.get().rstrip("\n").split("\n")))


_WIDEST = 500


def print_json(value: dict[str, object]) -> None:
    """Print one JSON object; dataclasses among its values become objects."""
    plain = {
        key: dataclasses.asdict(item) if dataclasses.is_dataclass(item) and not isinstance(item, type) else item
        for key, item in value.items()
    }
    typer.echo(json.dumps(plain, allow_nan=False))
