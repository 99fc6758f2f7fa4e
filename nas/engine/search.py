"""The search loop: `search` runs it, `Search` opens it to ask and tell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from nas.defaults import STRATEGY
from nas.engine.objectives import Constraint, Evaluate, Objective
from nas.engine.pool import refuse_empty
from nas.engine.problem import Problem, call_costly
from nas.engine.records import Outcome, Records
from nas.engine.result import Evaluation, SearchResult, make_result
from nas.engine.strategies import make_strategy
from nas.engine.strategy import LearnsFromFailures
from nas.ledger import Genes
from nas.progress import Progress, no_progress
from search_spaces.errors import CheckError, InputError, unknown_name
from search_spaces.space import Genomes, SearchSpace

Told = tuple[npt.ArrayLike, Mapping[str, npt.ArrayLike]]
"""Genomes ``int16[n, n_genes]``, and ``float[n]`` per costly objective or constraint, by name."""

TIME_IS_OVER = "the time limit is over"
"""Why a search has stopped, where it is that."""

_FAILURES_ALLOWED = 5  # and always as many as there are successes
# So many of the networks still to come may yet succeed: failures in a row must not end a batch that is mostly well, nor
# may a large batch of nothing but failures be evaluated to its end.
_HOPE = 16
_ROUNDS_WITHOUT_GAIN = 3
_EMPTY_ROUNDS = 100_000  # of a strategy that asks for what is known; a replay takes one per round


def search(
    space: SearchSpace,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    *,
    evaluations: int = 200,
    strategy: str = STRATEGY,
    seed: int = 0,
    ledger: Path | str | None = None,
    known: npt.ArrayLike | None = None,
    features: Evaluate | None = None,
    before: Told | None = None,
    min_gain: float = 0.0,
    time_limit_s: float | None = None,
    progress: Progress = no_progress,
) -> SearchResult:
    """Find the networks that trade off the objectives best and keep the constraints, with few costly evaluations.

    A network whose evaluation raises, or gives something that is no number, is marked as failed and the search goes on.

    Args:
        space: what is searched.
        objectives: one or more; cheap ones are computed in bulk, costly ones for the networks that are chosen.
        constraints: what every returned network keeps; a bound on a cheap figure costs no evaluations.
        evaluations: at most so many networks are scored by the costly functions, failed ones included, none twice.
        strategy: name of the way in which networks are chosen.
        seed: of all draws. Same seed, same functions, same ledger: same result.
        ledger: a SQLite file or the URL of a database that keeps every costly figure as soon as it is there. The same
            search started again goes on where it was stopped; another one starts from what is known.
        known: genomes ``int16[k, g]`` that keep the cheap constraints, for where random ones hardly ever do.
        features: more that is known about genomes, ``f(genomes int16[n, g]) -> float[n, k]``; helps to predict.
        before: networks that are evaluated already, as `Search.tell` takes them; they count for nothing.
        min_gain: end when the strategy expects less relative gain in hypervolume from its best candidate, three rounds
            in a row; strategies that expect nothing never end so.
        time_limit_s: end after the evaluation during which so many seconds have passed.
        progress: told of evaluations.

    Raises:
        InputError: a request that cannot be searched: unknown names, bounds that nothing keeps (with what can be
            reached), a cheap function that does not work, a ledger of another space.
        CheckError: more evaluations fail than succeed. What is known stays in the ledger.
        MachineError: the ledger cannot be read or written.
    """
    if evaluations < 1:
        raise InputError(f"evaluations must be at least 1, got {evaluations}")
    if time_limit_s is not None and not time_limit_s >= 0.0:
        raise InputError(f"time_limit_s must be a number of seconds, got {time_limit_s}")
    loop = Search(
        space,
        objectives,
        constraints,
        strategy=strategy,
        seed=seed,
        ledger=ledger,
        known=known,
        features=features,
        before=before,
    )
    stopped = "all evaluations are spent"
    deadline_s = math.inf if time_limit_s is None else time.monotonic() + time_limit_s
    progress(0, evaluations)
    while loop.evaluations < evaluations:
        genomes = loop.ask(evaluations - loop.evaluations)
        if loop.stalled(min_gain):
            stopped = f"the expected gain is below {min_gain:g}"
            break
        done = loop.evaluations
        loop.evaluate(
            genomes,
            until=lambda: time.monotonic() >= deadline_s,
            progress=lambda part, _, done=done: progress(done + part, evaluations),  # type: ignore[misc]
        )
        if time.monotonic() >= deadline_s:
            stopped = TIME_IS_OVER
            break
        if not len(genomes) and loop.evaluations < evaluations:
            stopped = "no new networks are left"
            break
    progress(evaluations, evaluations)
    return loop.result(stopped=stopped)


class Search:
    """The loop of `search`, opened: whoever evaluates asks for networks and tells what they are worth.

    Asked networks may be told in any order and number, together or apart, and so may networks that were never asked.

    Args:
        space, objectives, constraints, strategy, seed, ledger, known, features, before: as of `search`.

    Raises:
        InputError, MachineError: as `search`.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        *,
        strategy: str = STRATEGY,
        seed: int = 0,
        ledger: Path | str | None = None,
        known: npt.ArrayLike | None = None,
        features: Evaluate | None = None,
        before: Told | None = None,
    ) -> None:
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise InputError(f"seed must be a whole number from 0 on, got {seed!r}")
        seed = int(seed)
        problem = Problem(space, objectives, constraints, known=known, features=features)
        self._strategy = make_strategy(strategy, problem, seed)
        # Strategies fit matrices of hundreds of rows: too little for threads, which wait for each other where something
        # else is running.
        self._threads = ThreadpoolController()
        refuse_empty(problem, np.random.default_rng(seed))
        self._problem = problem
        self._records = None if ledger is None else Records(ledger, problem, strategy=strategy, seed=seed)
        self._metrics = [int(metric) for metric in problem.costly.nonzero()[0]]
        self._asked: dict[Genes, tuple[int, str]] = {}
        self._held: dict[Genes, Outcome] = {}
        self._rows: dict[Genes, Evaluation] = {}
        self._round = 0
        self._replayed = False
        self._queue: list[Genes] = []
        self._gains: list[float] = []
        if self._records is not None:
            self._start_from(*self._records.earlier())
        if before is not None:
            self._start_from(*self._valued(*before))

    @property
    def evaluations(self) -> int:
        """How many networks this search has scored, failed ones included."""
        return sum(row.round > 0 for row in self._rows.values())

    def ask(self, n: int) -> Genomes:
        """Return at most `n` networks to evaluate, ``int16[k, n_genes]``: canonical, new, inside the cheap constraints.

        A strategy may ask for fewer than it could, such as one generation. Networks that the ledger knows already are
        not handed out; they count, and the search goes over them by itself.

        Returns:
            None at all when the strategy has exhausted what it finds, or the ledger knew all `n`.
        """
        if self._queue:
            return self._from_queue(n)
        for _ in range(_EMPTY_ROUNDS):
            if n <= 0:
                break
            with self._threads.limit(limits=1, user_api="blas"):
                proposal = self._strategy.ask(n)
            if not len(proposal.genomes):
                break
            self._round += 1
            if proposal.gain is not None:
                self._gains.append(proposal.gain)
            # Not all strategies know of networks whose evaluation failed without their asking.
            asked = {
                genes: (self._round, why)
                for genes, why in zip(_genes(proposal.genomes), proposal.why, strict=True)
                if genes not in self._rows
            }
            self._asked |= asked
            found = {genes: self._find(genes) for genes in asked}
            known = {genes: outcome for genes, outcome in found.items() if self._is_complete(outcome)}
            self._held |= known
            new = [genes for genes in asked if genes not in known]
            if new:
                n -= len(known) + self._take_leftovers(new)
                self._queue = new
                return self._from_queue(n)
            self._absorb({})
            n -= len(asked)
        return np.empty((0, self._problem.space.n_genes), dtype=np.int16)

    def tell(self, genomes: npt.ArrayLike, values: Mapping[str, npt.ArrayLike]) -> None:
        """Take the costly figures of networks.

        Args:
            genomes: ``int16[n, n_genes]``, none of them told before.
            values: ``float[n]`` per costly objective or constraint, by name, in the user's own sign; NaN marks a
                network whose evaluation failed.

        Raises:
            InputError: not the names, shapes or genomes of this search, or a network was told before; nothing is kept.
            CheckError: more evaluations fail than succeed.
            MachineError: the ledger cannot be written.
        """
        told = self._new(genomes)
        columns = self._columns(values, len(told))
        outcomes: dict[Genes, Outcome] = {}
        for row, genes in enumerate(told):
            outcomes[genes] = outcome = Outcome()
            for metric in self._metrics:
                value = float(columns[metric][row])
                if np.isfinite(value):
                    self._keep(outcome, metric, genes, value)
                else:
                    self._fail(outcome, metric, genes, f"{self._problem.metrics[metric]} was told as {value}")
        self._absorb(outcomes)

    def evaluate(
        self, genomes: npt.ArrayLike, *, until: Callable[[], bool] = lambda: False, progress: Progress = no_progress
    ) -> None:
        """Evaluate networks by the functions that the objectives and constraints have, and tell them.

        One at a time: each figure is in the ledger as soon as it is there, and a failure is one network's own. What
        can work at several at once is told before of all that come.

        Args:
            genomes: ``int16[n, n_genes]``, none of them told before.
            until: asked after each; the others are left out once it says so.
            progress: told of each.

        Raises:
            InputError: a costly objective has no function, or a network was told before.
            CheckError: more evaluations fail than succeed.
            MachineError: the ledger cannot be written.
        """
        asked = self._new(genomes)
        outcomes: dict[Genes, Outcome] = {}
        self._announce(asked)
        try:
            for done, genes in enumerate(asked, start=1):
                outcomes[genes] = self._evaluated(genes)
                self._refuse_failures(outcomes, hope=min(len(asked) - done, _HOPE))
                progress(done, len(asked))
                if until():
                    break
        finally:
            # Also when it is interrupted: what is finished is known.
            self._absorb(outcomes)

    def result(self, *, stopped: str = "not yet") -> SearchResult:
        """Return the search as far as it has come."""
        return make_result(self._problem, list(self._rows.values()), stopped=stopped)

    def stalled(self, min_gain: float) -> bool:
        """Return whether the strategy expected less relative gain than this in the last three rounds."""
        last = self._gains[-_ROUNDS_WITHOUT_GAIN:]
        return len(last) == _ROUNDS_WITHOUT_GAIN and max(last) < min_gain

    def _from_queue(self, n: int) -> Genomes:
        """Hand out at most `n` of the networks that the strategy has asked for; the others come next."""
        waiting = [genes for genes in self._queue if genes not in self._rows]
        handed, self._queue = waiting[: max(n, 0)], waiting[max(n, 0) :]
        return np.array(handed, dtype=np.int16).reshape(-1, self._problem.space.n_genes)

    def _new(self, genomes: npt.ArrayLike) -> list[Genes]:
        """Return genomes that are canonical, distinct and not told yet, or refuse them."""
        told = _genes(self._problem.space.check(genomes))
        seen: set[Genes] = set()
        for genes in told:
            if genes in self._rows or genes in seen:
                raise InputError(f"network {list(genes)} was told before; a network is evaluated once")
            seen.add(genes)
        return told

    def _announce(self, asked: list[Genes]) -> None:
        """Tell those who want to know which networks their function is going to be called with."""
        for metric in self._metrics:
            upcoming = self._problem.upcoming(metric)
            missing = [genes for genes in asked if metric not in self._find(genes).values]
            if upcoming is not None and missing:
                upcoming(np.array(missing, dtype=np.int16))

    def _evaluated(self, genes: Genes) -> Outcome:
        """Return what the ledger has of a network, with what it lacks computed and kept."""
        outcome = self._find(genes)
        for metric in self._metrics:
            if metric in outcome.values or outcome.failure:
                continue
            name, function = self._problem.metrics[metric], self._problem.function(metric)
            if function is None:
                raise InputError(f"objective {name!r} has no `evaluate`; evaluate the network and tell its value")
            value = call_costly(name, function, np.array([genes], dtype=np.int16))
            if isinstance(value, float):
                self._keep(outcome, metric, genes, value)
            else:
                self._fail(outcome, metric, genes, value)
        return outcome

    def _take_leftovers(self, asked: list[Genes]) -> int:
        """Take own networks from the ledger that the replay, which ends here, did not come to; returns how many.

        They were told without being asked for, or in another order than they were asked in.
        """
        if self._records is None or self._replayed:
            return 0
        self._replayed = True
        passed = {*self._rows, *self._held, *asked}
        left = {genes: self._find(genes) for genes in self._records.own() if genes not in passed}
        left = {genes: outcome for genes, outcome in left.items() if self._is_complete(outcome)}
        if left:
            self._absorb(left)
        return len(left)

    def _absorb(self, outcomes: dict[Genes, Outcome]) -> None:
        """Take finished networks into the history, with those that the ledger knew, and tell the strategy."""
        both = self._held | outcomes
        self._held = {}
        if not both:
            return
        # In the order of asking: a search that is replayed from its ledger must tell its strategy the same.
        position = {genes: place for place, genes in enumerate(self._asked) if genes in both}
        finished = sorted(both, key=lambda genes: position.get(genes, len(self._asked)))
        genomes = np.array(finished, dtype=np.int16)
        values = self._problem.cheap(genomes)
        for row, genes in enumerate(finished):
            if both[genes].failure is None:
                for metric, value in both[genes].values.items():
                    values[row, metric] = value
            asked_in, why = self._asked.get(genes, (max(self._round, 1), "told"))
            self._rows[genes] = Evaluation(genes, asked_in, why, values[row], both[genes].failure)
        self._tell_strategy(genomes, values)
        failed = np.array([both[genes].failure is not None for genes in finished])
        if failed.any() and isinstance(self._strategy, LearnsFromFailures):
            self._strategy.tell_failed(genomes[failed])
        self._refuse_failures({})

    def _tell_strategy(self, genomes: Genomes, values: npt.NDArray[np.float64]) -> None:
        """Tell what has all figures: nobody learns worth from what failed, or whose cheap figures are unknown."""
        complete = np.isfinite(values).all(axis=1)
        if complete.any():
            self._strategy.tell(genomes[complete], values[complete])

    def _valued(
        self, genomes: npt.ArrayLike, figures: Mapping[str, npt.ArrayLike]
    ) -> tuple[Genomes, npt.NDArray[np.float64]]:
        """Return networks with all their metrics from those that are told of them."""
        told = self._new(genomes)
        rows = np.array(told, dtype=np.int16).reshape(-1, self._problem.space.n_genes)
        values = self._problem.cheap(rows)
        for metric, column in self._columns(figures, len(told)).items():
            values[:, metric] = column
        return rows, values

    def _start_from(self, genomes: Genomes, values: npt.NDArray[np.float64]) -> None:
        for genes, row in zip(_genes(genomes), values, strict=True):
            self._rows[genes] = Evaluation(genes, 0, "known before", row, None)
        self._tell_strategy(genomes, values)

    def _refuse_failures(self, also: Mapping[Genes, Outcome], *, hope: int = 0) -> None:
        """Raise if most have failed, and would have even if as many as `hope` succeeded next."""
        own = [row.failure for row in self._rows.values() if row.round > 0]
        own += [outcome.failure for outcome in also.values()]
        failures = [failure for failure in own if failure is not None]
        if len(failures) >= _FAILURES_ALLOWED and 2 * len(failures) > len(own) + hope:
            raise CheckError(
                f"{len(failures)} of {len(own)} evaluations failed, the last one with: {failures[-1]}; "
                "what succeeded is kept; mend the function and search again with another seed or an empty ledger"
            )

    def _columns(self, values: Mapping[str, npt.ArrayLike], n: int) -> dict[int, npt.NDArray[np.float64]]:
        names = {self._problem.metrics[metric]: metric for metric in self._metrics}
        for name in values:
            if name not in names:
                raise unknown_name("costly objective or constraint", name, names)
        columns = {}
        for name, metric in names.items():
            if name not in values:
                raise InputError(f"values of {name!r} are missing; tell all of {', '.join(names)}")
            column = np.asarray(values[name], dtype=np.float64)
            if column.shape != (n,):
                raise InputError(f"values of {name!r} have shape {column.shape} for {n} networks; give ({n},)")
            columns[metric] = column
        return columns

    def _find(self, genes: Genes) -> Outcome:
        return self._records.find(genes) if self._records is not None else Outcome()

    def _is_complete(self, outcome: Outcome) -> bool:
        return outcome.failure is not None or len(outcome.values) == len(self._metrics) > 0

    def _keep(self, outcome: Outcome, metric: int, genes: Genes, value: float) -> None:
        outcome.values[metric] = value
        if self._records is not None:
            asked_in, why = self._asked.get(genes, (self._round, "told"))
            self._records.keep(metric, genes, value, round_number=asked_in, why=why)

    def _fail(self, outcome: Outcome, metric: int, genes: Genes, reason: str) -> None:
        outcome.failure = reason
        if self._records is not None:
            asked_in, why = self._asked.get(genes, (self._round, "told"))
            self._records.keep_failure(metric, genes, reason, round_number=asked_in, why=why)


def _genes(genomes: Genomes) -> list[Genes]:
    return [tuple(row) for row in genomes.tolist()]
