"""From a run to its report."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable
from pathlib import Path

from threadpoolctl import ThreadpoolController

from nas.data import ImageData
from nas.files import make_folder, write_atomic
from nas.progress import Progress, no_progress
from nas.report.efficiency import efficiency_section
from nas.report.front import front_section
from nas.report.holdings import Holdings
from nas.report.likes import likes_section
from nas.report.network import network_section
from nas.report.page import page
from nas.report.parts import Report, Section, Table
from nas.report.provenance import provenance_section
from nas.report.training import training_section
from nas.report.trust import trust_section
from nas.run import Run
from nas.terminal import in_words
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
    # Threads that wait for each other take longer for matrices this small, much longer on a busy machine.
    with ThreadpoolController().limit(limits=1):
        for done, make in enumerate(makers):
            progress(done, len(makers))
            sections.append(make(held))
    progress(len(makers), len(makers))
    networks = in_words(held.status.architectures)
    return Report(
        title=f"Network search in {run.path.resolve().name}",
        subtitle=f"Space {run.settings.space} ({networks} networks), data {run.settings.data}.",
        devices=tuple(dict.fromkeys([*held.fronts, *held.latencies])),
        sections=tuple(sections),
    )


def write_report(report: Report, path: Path) -> tuple[Path, ...]:
    """Write a report as HTML, and its tables as CSV files in a folder beside it; return these.

    Raises:
        MachineError: the disk refuses.
    """
    folder = path.with_suffix("")
    folder = folder if folder != path else path.with_name(f"{path.name}-tables")
    make_folder(folder)
    files = []
    for table in report.tables:
        files.append(folder / f"{table.name}.csv")
        write_atomic(files[-1], _csv(table))
    write_atomic(path, page(report, csv=folder.name))
    return tuple(files)


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(["" if cell is None else cell for cell in row] for row in table.rows)
    return text.getvalue()


def _images(run: Run) -> ImageData | str:
    """Return the run's images, or why they cannot be shown."""
    try:
        return run.load_data()
    except (InputError, MachineError) as error:
        return str(error)
