"""Text, tables and JSON on standard output."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import typer


def command_group(text: str) -> typer.Typer:
    """Return a group of commands that shows its help where no command is given."""
    group = typer.Typer(help=text)

    @group.callback(invoke_without_command=True, help=text)
    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return group


def say(text: str) -> None:
    """Print a line."""
    typer.echo(text)


def warn(text: str) -> None:
    """Print a line on standard error: what the user should know, and what does not end the command."""
    typer.echo(f"nas: warning: {text}", err=True)


def in_words(count: int) -> str:
    """Return a number of any size: 5,872 or 1.26e+21."""
    if count < 10**6:
        return f"{count:,}"
    exponent = len(str(count)) - 1
    return f"{count // 10 ** (exponent - 2) / 100:.2f}e+{exponent:02}"


def ms_text(value: float) -> str:
    """Return milliseconds with the digits that a measurement can carry."""
    return f"{value:.3f}" if value >= 1 else f"{value:.4f}"


def accuracy_text(value: float, standard_error: float) -> str:
    """Return an accuracy in percent, with its standard error."""
    return f"{100 * value:.1f} ± {100 * standard_error:.1f} %"


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

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(
            column, justify="left" if position < left else "right", overflow="fold", no_wrap=position < whole
        )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


def print_json(value: dict[str, object]) -> None:
    """Print one JSON object; dataclasses among its values become objects."""
    plain = {
        key: dataclasses.asdict(item) if dataclasses.is_dataclass(item) and not isinstance(item, type) else item
        for key, item in value.items()
    }
    typer.echo(json.dumps(plain, allow_nan=False))
