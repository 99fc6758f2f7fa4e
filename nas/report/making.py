"""From a run to its report."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable
from pathlib import Path

from nas.data import ImageData
from nas.files import make_folder, write_atomic
from nas.progress import Progress, no_progress
from nas.report.efficiency import efficiency_section
from nas.report.front import front_section
from nas.report.holdings import Holdings, one_thread
from nas.report.likes import likes_section
from nas.report.network import network_section
from nas.report.page import devices_of, page
from nas.report.parts import Cell, Report, Section, Table
from nas.report.provenance import provenance_section
from nas.report.training import training_section
from nas.report.trust import trust_section
from nas.run import Run
from nas.training_record import find_record
from nas.wording import in_words
from search_spaces.errors import InputError, MachineError


def make_report(run: Run, *, progress: Progress = no_progress) -> Report:
    """Return the report of a run, in whatever state it is.

    Args:
        run: as opened.
        progress: told of sections.

    Raises:
        InputError: a file that everything rests on is damaged.
        MachineError: the run cannot be read.
    """
    held = Holdings(run)
    makers: tuple[Callable[[Holdings], Section], ...] = (
        front_section,
        network_section,
        likes_section,
        trust_section,
        efficiency_section,
        functools.partial(training_section, images=_images(run)),
        provenance_section,
    )
    sections = []
    with one_thread():
        for done, make in enumerate(makers):
            progress(done, len(makers))
            sections.append(make(held))
    progress(len(makers), len(makers))
    networks = in_words(held.status.architectures)
    alone = [name for name in held.latencies if not any(name in devices_of(front) for front in held.fronts)]
    return Report(
        title=f"Network search in {run.path.resolve().name}",
        subtitle=f"Space {run.settings.space} ({networks} networks), data {run.settings.data}.",
        devices=tuple(dict.fromkeys([*held.fronts, *alone])),
        sections=tuple(sections),
    )


def write_report(report: Report, path: Path) -> tuple[Path, ...]:
    """Write a report as HTML, and its tables as CSV files in a folder beside it; return these.

    Raises:
        MachineError: the disk refuses.
    """
    folder = path.with_name(f"{path.stem}-tables")
    make_folder(folder)
    files = {folder / f"{table.name}.csv": _csv(table) for table in report.tables}
    for file, content in files.items():
        write_atomic(file, content)
    for file in set(folder.glob("*.csv")) - set(files):
        file.unlink(missing_ok=True)  # of what an earlier report had
    write_atomic(path, page(report, csv=folder.name))
    return tuple(files)


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_cell(cell) for cell in row] for row in table.rows)
    return text.getvalue()


def _cell(cell: Cell) -> Cell:
    """Return a cell as no spreadsheet takes for a formula."""
    if isinstance(cell, str) and len(cell) > 1 and cell[0] in "=+-@\t\r":
        return f"'{cell}"
    return "" if cell is None else cell


def _images(run: Run) -> ImageData | str:
    """Return the run's images, or why they cannot be shown."""
    try:
        images = run.load_data()
    except (InputError, MachineError) as error:
        return str(error)
    record = find_record(run.supernet_dir)
    if record is not None and record.data_hash != images.content_hash:
        return f"{images.name} has changed since the supernet was trained"
    return images
