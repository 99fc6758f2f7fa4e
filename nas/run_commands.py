"""``nas status`` and ``nas work``: where a run stands, and evaluating for a search that runs elsewhere."""

from __future__ import annotations

import functools
import math
import time
from typing import TYPE_CHECKING, Annotated

import typer

from nas import defaults
from nas.options import JsonOption, RunOption
from nas.progress import Progress, progress_bar

if TYPE_CHECKING:
    from nas.devices import Precision
    from nas.run import Run


def work_command(
    *,
    run: RunOption = defaults.RUN,
    idle: Annotated[
        float | None,
        typer.Option("--idle", min=0.0, metavar="S", help="End when nothing has come for so long.  [default: never]"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of PyTorch.  [default: all processors]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate networks for a search that runs in another terminal or on another machine."""
    from nas.run import Run
    from nas.terminal import print_json, say

    opened = Run.existing(run, first="nas train")
    opened.require_supernet()
    with progress_bar("evaluating what waits", quiet=as_json) as progress:
        evaluated = _work(opened, math.inf if idle is None else idle, threads, progress)
    if as_json:
        print_json({"run": str(opened.path), "evaluated": evaluated})
    else:
        say(f"Evaluated {evaluated:,} networks of {opened.path}.")


def _work(opened: Run, idle_s: float, threads: int | None, progress: Progress) -> int:
    """Evaluate what waits until nothing has come for so long, in every precision; return how many networks."""
    import torch

    from nas.devices import PRECISIONS
    from nas.evaluation_workers import Judge, serve
    from nas.ledger import Genes, accuracy_evaluator
    from nas.ledger_queue import LedgerQueue
    from nas.memory import keep_freed_memory

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    evaluator = functools.cache(lambda precision: opened.evaluator(precision=precision))
    evaluator(PRECISIONS[0])  # what is wrong with the run is told at once
    done, last_s = 0, time.monotonic()

    def judge(precision: Precision, genes: Genes) -> float:
        nonlocal done, last_s
        value = evaluator(precision).judge(genes)
        done, last_s = done + 1, time.monotonic()
        progress(done, done)
        return value

    def told_to_end(pause_s: float) -> bool:
        time.sleep(pause_s)
        return time.monotonic() - last_s > idle_s

    supernet_hash = opened.require_supernet().supernet_hash
    tasks: list[tuple[LedgerQueue, Judge]] = [
        (
            LedgerQueue(opened.ledger, accuracy_evaluator(supernet_hash, "validation", each), opened.space.hash),
            functools.partial(judge, each),
        )
        for each in PRECISIONS
    ]
    serve(tasks, told_to_end)
    return done


def status_command(*, run: RunOption = defaults.RUN, as_json: JsonOption = False) -> None:
    """Show where a run stands, and the next command to type."""
    from nas import present_status
    from nas.run import Run
    from nas.status import run_status

    present_status.status(run_status(Run.existing(run, first="nas train")), as_json=as_json)
