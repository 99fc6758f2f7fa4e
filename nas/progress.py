"""Progress of long work: library code calls a plain function, the command line draws a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each unit of work."""


def no_progress(done: int, total: int) -> None:
    """Report to nobody: the default of library functions."""


Notice = Callable[[str], None]
"""Called with a sentence that a user should see, and that does not end the work."""


def ignore(notice: str) -> None:
    """Tell nobody: the default of library functions."""


_WARM_UP, _TOLD_AFTER = 10, 50  # units of work: the first ones are slower
_LONG_S = 60.0


def tell_pace(tell: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> Progress:
    """Return a `Progress` that says once, 50 units after the first report, how long the rest will take.

    Nothing is said of what takes less than a minute more; every 50 units are looked at until then, since the first may
    only be looked up.

    Args:
        tell: called with a sentence without its subject, such as "1,950 of 2,000 to go, ...".
        now: seconds of a clock.
    """
    first: int | None = None
    since: tuple[int, float] | None = None
    told = False

    def update(done: int, total: int) -> None:
        nonlocal first, since, told
        if told:
            return
        first = done if first is None else first
        if since is None and done - first >= _WARM_UP:
            since = (done, now())
        if since is None or done - first < _TOLD_AFTER or done == since[0]:
            return
        each_s = (now() - since[1]) / (done - since[0])
        first, since = done, None
        left = timedelta(seconds=round(each_s * (total - done)))
        if told := left.total_seconds() >= _LONG_S:
            until = datetime.now().astimezone() + left
            tell(f"{total - done:,} of {total:,} to go, {each_s:.2g} s each: about {left}, until {until:%a %H:%M}")

    return update


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
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
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
        begun: set[TaskID] = set()

        def stage(position: int, title: str) -> Progress:
            task = bar.add_task(title, total=None, start=position == 0, visible=position == 0)
            pace = tell_pace(lambda told: console.print(f"{title}: {told}", highlight=False, markup=False))

            def update(done: int, total: int) -> None:
                pace(done, total)
                begun.add(task)
                bar.start_task(task)
                bar.update(task, completed=done, total=total, visible=True)

            return update

        try:
            yield tuple(stage(position, title) for position, title in enumerate(titles))
        finally:
            for task in bar.task_ids:
                if task not in begun:  # nothing was to be done: no bar is left standing at the start
                    bar.update(task, visible=False)
