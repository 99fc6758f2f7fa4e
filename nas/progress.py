"""Progress of long work: library code calls a plain function, the command line draws a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each unit of work."""


def no_progress(done: int, total: int) -> None:
    """Report to nobody: the default of library functions."""


@contextmanager
def progress_bar(title: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show a bar on standard error while the block runs; silent when that is not a terminal.

    Args:
        title: what is being done, in the present participle.
        quiet: show nothing even on a terminal.
    """
    with progress_bars(title, quiet=quiet) as (progress,):
        yield progress


@contextmanager
def progress_bars(*titles: str, quiet: bool = False) -> Iterator[tuple[Progress, ...]]:
    """Show the bars of several stages in one display, each from its first report on; the first one at once."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield (no_progress,) * len(titles)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:

        def stage(position: int, title: str) -> Progress:
            task = bar.add_task(title, total=None, start=position == 0, visible=position == 0)

            def update(done: int, total: int) -> None:
                bar.start_task(task)
                bar.update(task, completed=done, total=total, visible=True)

            return update

        yield tuple(stage(position, title) for position, title in enumerate(titles))
