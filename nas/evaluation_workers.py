"""Worker processes of this machine: each makes one judge, and evaluates what waits in a ledger until it is told to end.

They are started and ended by whoever searches; `nas work` is the same loop, started by a person.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from nas.ledger import Genes, Ledger
from nas.ledger_queue import LedgerQueue
from nas.ledger_storage import RETRIES
from nas.memory import keep_freed_memory
from search_spaces.errors import CheckError, MachineError, ToolError

Judge = Callable[[Genes], float]
"""Returns the figure of a network."""

POLL_S, MOST_POLL_S = 0.05, 0.25
"""How often processes look into the ledger for what is new, and when there has been nothing for a while."""

_LAST_NETWORK_S = 600.0  # that a worker gets for the network that it is at
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Work:
    """What workers evaluate; it travels to them.

    Attributes:
        make: makes the judge, there; it must be picklable.
        place: of the ledger, as `Ledger` takes it.
        evaluator: name of the figure in it.
        space_hash: of the space.
    """

    make: Callable[[], Judge]
    place: Path | str
    evaluator: str
    space_hash: str


class EvaluationWorkers:
    """What evaluates networks through a ledger: processes of this machine, and whoever else works on it.

    The processes start at once, which takes some seconds, and end with `close` or with this one, however that ends. One
    that is killed is replaced; what it was at waits again once it has been silent for a while.

    Args:
        work: what they do.
        workers: how many; the threads of this process are shared out among them. With 0, others do all the work.
    """

    def __init__(self, work: Work, workers: int) -> None:
        self._work = work
        self._queue = LedgerQueue(Ledger(work.place), work.evaluator, work.space_hash)
        self._threads = max(1, torch.get_num_threads() // max(1, workers))
        self._killed_at_start = 0
        self._workers = [self._start() for _ in range(workers)]

    def add(self, genomes: Iterable[Genes]) -> None:
        """Let networks be evaluated; raises as `Ledger.record`."""
        self._queue.add(genomes)

    def figures(self, genomes: Sequence[Genes]) -> Iterator[tuple[Genes, float]]:
        """Yield each of some distinct networks with its figure, as soon as it is there.

        Raises:
            CheckError: what went wrong with a network.
            MachineError: a process could not evaluate, or nobody does.
        """
        self._queue.add(genomes)
        left, seen_s = dict.fromkeys(genomes), time.monotonic()
        try:
            while left:
                finished = self._queue.take(left)
                for genes, verdict in finished.items():
                    del left[genes]
                    if verdict.reason is not None:
                        raise CheckError(verdict.reason)
                    yield genes, verdict.value
                if finished or self._queue.claimed():
                    seen_s = time.monotonic()
                if not finished:
                    self._watch()
                    _refuse_silence(time.monotonic() - seen_s)
                    time.sleep(POLL_S)
        finally:
            with suppress(ToolError):  # what is under way is more telling
                self._queue.withdraw(left)

    def close(self) -> None:
        """End the processes; the network that each is at is finished first."""
        with suppress(ToolError):
            self._queue.withdraw()
        workers = [self._workers.pop() for _ in range(len(self._workers))]
        for worker in workers:
            worker.line.close()
        for worker in workers:
            worker.process.join(_LAST_NETWORK_S)
            worker.process.kill()
            worker.process.join()
            worker.process.close()

    def _watch(self) -> None:
        """Replace processes that were killed.

        Raises:
            MachineError: one has ended by itself, or several before they began to work.
        """
        for position, worker in enumerate(self._workers):
            while worker.line.poll():
                try:
                    message = worker.line.recv()
                except (EOFError, OSError):
                    break
                if message:
                    raise MachineError(message)
                self._killed_at_start = 0
                worker.ready.set()
            if worker.process.exitcode is None:
                continue
            self._killed_at_start += not worker.ready.is_set()
            # One that was killed has a negative code; one that ended by itself would end again.
            if worker.process.exitcode > 0 or self._killed_at_start > RETRIES:
                raise MachineError(
                    "a process that evaluates networks has ended or could not start; if the memory is short, use fewer "
                    'workers; a script needs `if __name__ == "__main__":` around what it does'
                )
            worker.line.close()
            worker.process.close()
            self._workers[position] = self._start()

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._work, self._threads, theirs), daemon=True)
        with _uninterrupted():
            process.start()
        theirs.close()
        return _Worker(process, ours, threading.Event())


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process, the end of a line to it that it works as long as it is open, and whether it has begun to work."""

    process: BaseProcess
    line: Connection
    ready: threading.Event


def _refuse_silence(seconds: float) -> None:
    if seconds > _PATIENCE_S:
        raise MachineError(
            f"nobody has claimed a network for {_PATIENCE_S:.0f} s: start `nas work`, or give --workers N; what was "
            "evaluated is kept"
        )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let processes that are started in the block ignore Ctrl-C: the one that a user sees ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(work: Work, threads: int, line: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        judge = work.make()
        line.send("")
        serve([(LedgerQueue(Ledger(work.place), work.evaluator, work.space_hash), judge)], line.poll)
    except ToolError as error:
        line.send(str(error))


def serve(tasks: Sequence[tuple[LedgerQueue, Judge]], told_to_end: Callable[[float], bool]) -> None:
    """Evaluate what waits.

    Args:
        tasks: where networks wait, and what evaluates them.
        told_to_end: waits for at most so many seconds; true ends.

    Raises:
        InputError, MachineError: a ledger cannot be used, or this machine cannot evaluate.
    """
    pause_s = 0.0
    while not told_to_end(pause_s):
        worked = [queue.work(judge) for queue, judge in tasks]
        pause_s = 0.0 if any(worked) else min(MOST_POLL_S, max(POLL_S, 1.5 * pause_s))


def _end_with_parent() -> None:
    """End this process with the one that started it: what is killed cannot tell its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
