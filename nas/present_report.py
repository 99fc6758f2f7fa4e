"""What ``nas report`` prints: the figures of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.report.parts import Cell, Chart, Choice, Drawing, Line, Missing, Part, Report, Section, Table
from nas.terminal import print_json, print_table, say

_LONGEST = 12
"""Rows of a table that a terminal shows; the page and the CSV files have all."""


def report(made: Report, path: Path, tables: Sequence[Path], *, as_json: bool) -> None:
    """Print a report's lines and tables, and where it lies."""
    if as_json:
        print_json(
            {
                "file": str(path),
                "tables": [str(each) for each in tables],
                "sections": {section.name: _plain(section) for section in made.sections},
                "missing": [{"what": each.what, "command": each.command} for each in made.missing],
            }
        )
        return
    say(made.title)
    say(made.subtitle)
    for section in made.sections:
        say(f"\n{section.title.upper()}")
        for part in section.parts:
            _part(part)
    folder = f", all figures in {tables[0].parent}" if tables else ""
    say(f"\nReport: {path}{folder}")


def _part(part: Part) -> None:
    match part:
        case Line():
            say(part.text)
        case Missing():
            say(f"Not here yet: {part.what}." + (f" Run `{part.command}`" if part.command else ""))
        case Table() if part.shown:
            _table(part)
        case Chart():
            say(f"{part.title}: {part.alt}")
        case Choice():
            print_table(["network", *part.columns], [[name, *cells] for name, cells in part.rows], title=part.title)
        case Drawing() if part.chosen:
            _drawing(part)
        case _:
            pass  # what a terminal does not show: pictures, what is for spreadsheets, networks that are not chosen


def _drawing(part: Drawing) -> None:
    print_table(
        ["slot", "block", "channels", "ms", "MMACs"],
        [
            [
                each.slot,
                f"{each.family} {each.sizes}".strip(),
                f"{each.channels[0]} to {each.channels[2]}",
                "-" if each.latency_ms is None else f"{each.latency_ms:.4f}",
                f"{each.macs / 1e6:.3g}",
            ]
            for each in part.blocks
        ],
        title=part.title,
        left=2,
    )


def _plain(section: Section) -> dict[str, object]:
    return {
        "title": section.title,
        "lines": [part.text for part in section.parts if isinstance(part, Line)],
        "tables": {
            part.name: {"title": part.title, "columns": list(part.columns), "rows": [list(row) for row in part.rows]}
            for part in section.parts
            if isinstance(part, Table)
        },
    }


def _table(part: Table) -> None:
    shown = part.rows[:_LONGEST]
    more = f" (the first {_LONGEST} of {len(part.rows)} rows)" if len(part.rows) > _LONGEST else ""
    left = next((position for position, numeric in enumerate(part.numeric) if numeric), len(part.columns))
    print_table(
        list(part.columns), [[_text(cell) for cell in row] for row in shown], title=part.title + more, left=left
    )


def _text(cell: Cell) -> str:
    return "-" if cell is None else f"{cell:.5g}" if isinstance(cell, float) else str(cell)
