"""What a search hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nas.engine.pareto import front_rows
from nas.engine.problem import Problem, Values
from search_spaces.space import Genomes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One network that was evaluated, or failed.

    Attributes:
        genes: canonical.
        round: in which it was asked for; 0 if it was known before.
        why: it was chosen.
        values: its metrics, in the user's own sign; NaN where there is none.
        failure: why it has no costly metrics, or None.
    """

    genes: tuple[int, ...]
    round: int
    why: str
    values: Values
    failure: str | None


@dataclass(frozen=True, slots=True)
class SearchFront:
    """Evaluated networks that keep all constraints, none of them worse than another in everything.

    Attributes:
        genomes: option indices ``int16[n, g]``, canonical and distinct.
        values: a column per objective and per constraint's own figure, in the user's own sign, a row per genome; sorted
            by the first objective, best first.
    """

    genomes: Genomes
    values: pd.DataFrame

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self.genomes)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A search as far as it has come.

    Attributes:
        front: empty if no evaluated network keeps all constraints.
        history: every costly evaluation in order: ``round``, ``why`` it was chosen, its figures, ``failure``,
            ``genome``.
        evaluations: networks that this search scored, failed ones included.
        stopped: why it ended.
    """

    front: SearchFront
    history: pd.DataFrame
    evaluations: int
    stopped: str


def make_result(problem: Problem, rows: Sequence[Evaluation], *, stopped: str) -> SearchResult:
    """Return the result of what was evaluated so far."""
    import pandas as pd

    values = np.array([row.values for row in rows]).reshape(-1, len(problem.metrics))
    genomes = np.array([row.genes for row in rows], dtype=np.int16).reshape(-1, problem.space.n_genes)
    failures = [row.failure for row in rows]
    history = pd.DataFrame(
        {"round": [row.round for row in rows], "why": [row.why for row in rows]}
        | dict(zip(problem.metrics, values.T, strict=True))
        | {"failure": pd.Series(failures, dtype=object), "genome": pd.Series([row.genes for row in rows], dtype=object)}
    )
    valued = np.isfinite(values).all(axis=1)
    kept = np.flatnonzero(valued & problem.feasible(values))
    best = kept[front_rows(problem.minimised(values[kept]))]
    best = best[np.argsort(problem.minimised(values[best])[:, 0], kind="stable")]
    front = SearchFront(genomes[best], pd.DataFrame(values[best], columns=list(problem.metrics)))
    own = sum(row.round > 0 for row in rows)
    return SearchResult(front=front, history=history, evaluations=own, stopped=stopped)
