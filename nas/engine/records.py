"""What a search keeps in a ledger: every costly figure of every network, with the round and the reason it was asked.

A search is known by its space, its request, its strategy and its seed. Its own rows are replayed when it is started
again, so that one that was killed goes on where it stopped and ends as it would have ended; rows that were there
before its first one are what it starts from; and no row that was there is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.engine.problem import Problem, Values
from nas.ledger import Genes, Ledger, LedgerFailure, LedgerRow
from search_spaces.documents import content_hash
from search_spaces.space import Genomes


@dataclass(slots=True)
class Outcome:
    """What became of one network's costly evaluation.

    Attributes:
        values: by metric; those that are missing were not evaluated.
        failure: why there is no result, or None.
    """

    values: dict[int, float] = field(default_factory=dict)
    failure: str | None = None


class Records:
    """A ledger as one search sees it.

    Args:
        place: a SQLite file, or the URL of a database.
        problem: what is searched.
        strategy: name of the strategy.
        seed: of the search.

    Raises:
        InputError: the ledger holds evaluations of another space, or is none.
        MachineError: it cannot be read.
    """

    def __init__(self, place: Path | str, problem: Problem, *, strategy: str, seed: int) -> None:
        self._ledger = Ledger(place)
        self._problem = problem
        self._space_hash = problem.space.hash
        self._search = content_hash(_request(problem, strategy, seed))
        self._metrics = [int(metric) for metric in problem.costly.nonzero()[0]]
        self._known: dict[Genes, Outcome] = {}
        self._before: dict[Genes, Outcome] = {}
        self._own: dict[Genes, None] = {}
        for metric in self._metrics:
            self._load(metric)

    def earlier(self) -> tuple[Genomes, Values]:
        """Return networks that were wholly evaluated before this search began, and their metrics."""
        whole = {genes: outcome for genes, outcome in self._before.items() if self._is_whole(outcome)}
        genomes = np.array(list(whole), dtype=np.int16).reshape(-1, self._problem.space.n_genes)
        values = self._problem.cheap(genomes)
        for metric in self._metrics:
            values[:, metric] = [outcome.values[metric] for outcome in whole.values()]
        return genomes, values

    def own(self) -> list[Genes]:
        """Return the networks that this search itself has scored so far as the ledger knew when it was opened."""
        return list(self._own)

    def find(self, genes: Genes) -> Outcome:
        """Return what is known of a network's costly metrics."""
        return self._known.get(genes, Outcome())

    def keep(self, metric: int, genes: Genes, value: float, *, round_number: int, why: str) -> None:
        """Store one figure; it is on the disk when this returns."""
        self._ledger.record(self._name(metric), self._space_hash, genes, value, self._details(round_number, why))

    def keep_failure(self, metric: int, genes: Genes, reason: str, *, round_number: int, why: str) -> None:
        """Store that there is no figure, and why."""
        self._ledger.record_failure(
            self._name(metric), self._space_hash, genes, reason, self._details(round_number, why)
        )

    def _load(self, metric: int) -> None:
        name = self._name(metric)
        rows = self._ledger.rows(name, self._space_hash)
        failures = self._ledger.failures(name, self._space_hash)
        everything: list[LedgerRow | LedgerFailure] = [*rows, *failures]
        own = [row.number for row in everything if self._is_own(row)]
        began = min(own, default=None)
        # A network that another search evaluated too has the value that this one saw: else it could not be replayed.
        for row in sorted(rows, key=lambda row: not self._is_own(row)):
            self._known.setdefault(row.genes, Outcome()).values.setdefault(metric, row.value)
            if self._is_own(row):
                self._own[row.genes] = None
            if began is None or row.number < began:
                self._before.setdefault(row.genes, Outcome()).values.setdefault(metric, row.value)
        for failure in failures:
            # Another search's failure may have been of its machine; it is no reason not to try.
            if self._is_own(failure):
                self._own[failure.genes] = None
                self._known.setdefault(failure.genes, Outcome()).failure = failure.reason

    def _is_whole(self, outcome: Outcome) -> bool:
        return len(outcome.values) == len(self._metrics)

    def _is_own(self, row: LedgerRow | LedgerFailure) -> bool:
        return row.details.get("search") == self._search

    def _details(self, round_number: int, why: str) -> dict[str, str | int]:
        return {"search": self._search, "round": round_number, "why": why}

    def _name(self, metric: int) -> str:
        """Return the evaluator's name in the ledger, which begins with what is better."""
        objectives = self._problem.objectives
        large_is_good = metric < len(objectives) and objectives[metric].maximize
        return f"{'maximize' if large_is_good else 'minimize'}:{self._problem.metrics[metric]}"


def _request(problem: Problem, strategy: str, seed: int) -> dict[str, object]:
    """Return what makes two searches the same one, as far as it can be compared: functions cannot."""
    return {
        "space": problem.space.hash,
        "objectives": [(each.name, each.maximize, each.costly) for each in problem.objectives],
        "constraints": [(each.name, each.lower, each.upper, each.costly) for each in problem.constraints],
        "known": problem.known.tolist(),
        "strategy": strategy,
        "seed": seed,
    }
