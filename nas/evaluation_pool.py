"""Evaluation by several processes at once: what each needs is shared, and each network is one task."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch
from torch import multiprocessing

from search_spaces.errors import MachineError
from search_spaces.spec import NetworkSpec

Judge = Callable[[NetworkSpec], float]
"""Returns a figure of a network."""

_held: list[Judge] = []
"""What a worker was started with: a process is told once, not with every task."""


class EvaluationPool:
    """Worker processes that hold one judge, and share its tensors.

    Workers start with the first networks, which takes some seconds, and end with `close` or with this process.

    Args:
        judge: what is called there; it must be picklable.
        workers: how many; the threads of this process are shared out among them.
    """

    def __init__(self, judge: Judge, workers: int) -> None:
        threads = max(1, torch.get_num_threads() // workers)
        self._workers = workers
        self._executor = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(judge, threads)
        )

    def figures(self, networks: Sequence[NetworkSpec]) -> Iterator[tuple[int, float]]:
        """Yield each network's number and figure, as soon as it is there.

        Raises:
            MachineError: a worker was killed.
            CheckError: what a judge raises.
        """
        tasks: dict[Future[float], int] = {}
        try:
            tasks = {self._executor.submit(_judged, network): number for number, network in enumerate(networks)}
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BrokenProcessPool:
            raise MachineError(
                f"one of {self._workers} processes that evaluate networks was killed; if the memory is short, "
                "try fewer --workers"
            ) from None
        finally:
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """End the workers; the network that each is at is finished first."""
        self._executor.shutdown(cancel_futures=True)


def _begin(judge: Judge, threads: int) -> None:
    # Ctrl-C is for the process that a user sees; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _held.append(judge)


def _judged(network: NetworkSpec) -> float:
    return _held[0](network)
