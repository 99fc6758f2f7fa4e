"""Evaluation by several processes at once: each reads what it needs from a folder, and each network is one task."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from nas.memory import keep_freed_memory
from search_spaces.errors import MachineError
from search_spaces.spec import NetworkSpec

Judge = Callable[[NetworkSpec], float]
"""Returns a figure of a network."""

_held: list[Judge] = []
"""What a worker made when it started: once, not for every network."""


class EvaluationPool:
    """Worker processes that hold one judge each.

    Workers start with the first networks, which takes some seconds, and end with `close` or with this process, however
    that ends.

    Args:
        make: makes the judge, there; it must be picklable.
        workers: how many; the threads of this process are shared out among them.
    """

    def __init__(self, make: Callable[[], Judge], workers: int) -> None:
        threads = max(1, torch.get_num_threads() // workers)
        self._workers = workers
        self._executor = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(make, threads)
        )

    def figures(self, networks: Sequence[NetworkSpec]) -> Iterator[tuple[int, float]]:
        """Yield each network's number and figure, as soon as it is there.

        Raises:
            MachineError: a worker has ended, or could not start.
            CheckError: what a judge raises.
        """
        tasks: dict[Future[float], int] = {}
        try:
            for number, network in enumerate(networks):
                tasks[self._executor.submit(_judged, network)] = number
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BrokenProcessPool:
            raise MachineError(
                f"one of {self._workers} processes that evaluate networks has ended or could not start; if the memory "
                'is short, use fewer workers; a script needs `if __name__ == "__main__":` around what it does'
            ) from None
        finally:
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """End the workers; the network that each is at is finished first."""
        self._executor.shutdown(cancel_futures=True)


def _begin(make: Callable[[], Judge], threads: int) -> None:
    # Ctrl-C is for the process that a user sees; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_freed_memory()
    _held.append(make())


def _end_with_parent() -> None:
    """End this process with the one that started it: what is killed cannot tell its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _judged(network: NetworkSpec) -> float:
    return _held[0](network)
