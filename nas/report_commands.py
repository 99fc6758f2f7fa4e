"""The command that shows what a run holds to people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas import defaults
from nas.options import JsonOption, RunOption
from nas.progress import progress_bar
from search_spaces.errors import InputError


def report_command(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN] [RUN]", help="Run directories: one, or two to compare.")
    ] = None,
    *,
    run: RunOption = defaults.RUN,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="Where to write it.  [default: report.html in the run]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a page of what a run holds, whatever its state, or of two runs side by side; and print its figures."""
    from nas import present_report
    from nas.files import make_folder, require_writable
    from nas.report.comparison import make_comparison
    from nas.report.making import make_report, write_report
    from nas.run import Run

    named = runs or [run]
    if runs and run != defaults.RUN:
        raise InputError("name the run once: as an argument or with --run")
    if len(named) > 2:
        raise InputError(f"a report is of one run, or compares two; got {len(named)}")
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out is an HTML file, such as report.html, not {out}")
    opened = [Run.existing(each, first="nas train") for each in named]
    path = out or (Path("comparison.html") if len(opened) == 2 else opened[0].path / "report.html")
    make_folder(path.parent)
    require_writable(path.parent)  # before it is made for nothing
    with progress_bar("making the report", quiet=as_json) as progress:
        made = make_comparison(*opened) if len(opened) == 2 else make_report(*opened, progress=progress)
    tables = write_report(made, path)
    present_report.report(made, path, tables, as_json=as_json)
