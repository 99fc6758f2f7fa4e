"""``nas status`` and ``nas work``: where a run stands, and evaluating for a search that runs elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from nas import defaults
from nas.options import JsonOption, RunOption
from nas.progress import progress_bar


def work_command(
    *,
    run: RunOption = defaults.RUN,
    idle: Annotated[
        float | None,
        typer.Option("--idle", min=0.0, metavar="S", help="End when nothing has come for so long.  [default: never]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate networks for a search that runs elsewhere; as many of these as there are processors."""
    import math

    from nas.memory import keep_freed_memory
    from nas.run import Run
    from nas.terminal import print_json, say

    opened = Run.existing(run, first="nas train")
    opened.require_supernet()
    keep_freed_memory()
    evaluator = opened.evaluator()
    with progress_bar("evaluating what waits", quiet=as_json) as progress:
        evaluated = evaluator.work(idle_s=math.inf if idle is None else idle, progress=progress)
    if as_json:
        print_json({"run": str(opened.path), "evaluated": evaluated})
    else:
        say(f"evaluated {evaluated:,} networks of {opened.path}")


def status_command(*, run: RunOption = defaults.RUN, as_json: JsonOption = False) -> None:
    """Show where a run stands, and the next command to type."""
    from nas import present_status
    from nas.run import Run
    from nas.status import run_status

    present_status.status(run_status(Run.existing(run, first="nas train")), as_json=as_json)
