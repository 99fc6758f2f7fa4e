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
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from nas.ledger import Genes, Ledger
from nas.ledger_queue import LedgerQueue
from nas.ledger_storage import RETRIES
from nas.memory import keep_freed_memory
from search_spaces.errors import CheckError, MachineError

Judge = Callable[[Genes], float]
"""Returns the figure of a network."""

POLL_S = 0.05
"""How often processes look into the ledger for what is new."""


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
        self._ended_in_a_row = 0
        self._processes = [self._start() for _ in range(workers)]

    def add(self, genomes: Iterable[Genes]) -> None:
        """Let networks be evaluated; raises as `Ledger.record`."""
        self._queue.add(genomes)

    def figures(self, genomes: Sequence[Genes]) -> Iterator[tuple[Genes, float]]:
        """Yield each of some distinct networks with its figure, as soon as it is there.

        Raises:
            CheckError: what went wrong with a network.
            MachineError: the processes end again and again, or could not start.
        """
        self._queue.add(genomes)
        left = dict.fromkeys(genomes)
        try:
            while left:
                finished = self._queue.take(left)
                for genes, verdict in finished.items():
                    del left[genes]
                    self._ended_in_a_row = 0
                    if verdict.reason is not None:
                        raise CheckError(verdict.reason)
                    yield genes, verdict.value
                if not finished:
                    self._replace_ended()
                    time.sleep(POLL_S)
        finally:
            self._queue.withdraw(left)

    def close(self) -> None:
        """End the processes; the network that each is at is finished first."""
        self._queue.withdraw()
        for worker in self._processes:
            worker.alive.close()
        for worker in self._processes:
            worker.process.join()
            worker.process.close()
        self._processes.clear()

    def _replace_ended(self) -> None:
        for position, worker in enumerate(self._processes):
            if worker.process.exitcode is None:
                continue
            self._ended_in_a_row += 1
            # One that was killed has a negative code; one that ended by itself would end again.
            if worker.process.exitcode > 0 or self._ended_in_a_row > RETRIES:
                raise MachineError(
                    "a process that evaluates networks has ended or could not start; if the memory is short, use fewer "
                    'workers; a script needs `if __name__ == "__main__":` around what it does'
                )
            worker.alive.close()
            worker.process.close()
            self._processes[position] = self._start()

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(self._work, self._threads, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process, and the end of a pipe that it works as long as it is open."""

    process: BaseProcess
    alive: Connection


def _serve(work: Work, threads: int, alive: Connection) -> None:
    # Ctrl-C is for the process that a user sees; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_freed_memory()
    judge = work.make()
    queue = LedgerQueue(Ledger(work.place), work.evaluator, work.space_hash)
    # Nothing is ever sent: what there is to read is the end.
    while not alive.poll(0.0 if queue.work(judge) else POLL_S):
        pass


def _end_with_parent() -> None:
    """End this process with the one that started it: what is killed cannot tell its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
