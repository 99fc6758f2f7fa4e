"""What can be asked for, and what is refused with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nas.engine.objectives import Constraint, Objective
from nas.engine.problem import Problem
from search_spaces.errors import InputError
from search_spaces.space import Genomes
from tests.nas.engine.toy_problem import SMALL


def size(genomes: Genomes) -> Any:
    return genomes.sum(axis=1)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no name": (lambda: Objective(" ", size), "a word such as 'latency_ms'"),
    "a name that is no text": (lambda: Objective(3, size), "got 3"),  # type: ignore[arg-type]
    "a column of the history": (lambda: Objective("round", size), "'round' is a column of the history"),
    "a cheap objective to be told": (lambda: Objective("size"), "needs `evaluate`"),
    "no function": (lambda: Objective("size", 3.0), "a function of genomes, got float"),  # type: ignore[arg-type]
    "no bound": (lambda: Constraint("size"), "needs a finite `upper` or `lower`, got lower=None, upper=None"),
    "NaN as a bound": (lambda: Constraint("size", upper=float("nan")), "got lower=None, upper=nan"),
    "text as a bound": (lambda: Constraint("size", upper="10"), "upper=10"),  # type: ignore[arg-type]
    "bounds that cross": (lambda: Constraint("size", lower=3, upper=2), "at least 3 and at most 2; swap the bounds"),
    "no objectives": (lambda: Problem(SMALL, []), "at least one objective"),
    "one name twice": (lambda: Problem(SMALL, [Objective("a", size), Objective("a", size)]), "'a' is given more than"),
    "a function for an objective's bound": (
        lambda: Problem(SMALL, [Objective("a", size)], [Constraint("a", upper=1, evaluate=size)]),
        "takes its name and no `evaluate`",
    ),
    "a bound on nothing": (
        lambda: Problem(SMALL, [Objective("latency_ms", size)], [Constraint("latncy_ms", upper=1)]),
        "did you mean 'latency_ms'",
    ),
    "a bound that costs on its own": (
        lambda: Problem(SMALL, [Objective("a", size)], [Constraint("a", upper=1, costly=True)]),
        "as costly as its objective",
    ),
    "known genomes of another space": (lambda: Problem(SMALL, [Objective("a", size)], known=[[0, 1]]), "(n, 4)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_makes_no_sense_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_a_constraint_reads_as_people_write_it() -> None:
    assert str(Constraint("latency_ms", upper=10)) == "latency_ms <= 10"
    assert str(Constraint("params", lower=1e3, upper=5e6)) == "1000 <= params <= 5e+06"


PROBLEM = Problem(
    SMALL,
    [Objective("accuracy", maximize=True, costly=True), Objective("size", size)],
    [
        Constraint("size", upper=4.0),
        Constraint("accuracy", lower=0.5),
        Constraint("depth", lower=1, upper=1, evaluate=lambda genomes: genomes[:, 1]),
    ],
)


def test_metrics_are_the_objectives_and_then_the_own_figures_of_constraints() -> None:
    assert PROBLEM.metrics == ("accuracy", "size", "depth")
    assert PROBLEM.costly.tolist() == [True, False, False]
    assert [PROBLEM.sign(metric) for metric in range(3)] == [-1.0, 1.0, 0.0]
    genomes = SMALL.sample(5, np.random.default_rng(0))
    values = PROBLEM.cheap(genomes)
    assert np.isnan(values[:, 0]).all()
    np.testing.assert_array_equal(values[:, 1:], np.stack([size(genomes), genomes[:, 1]], axis=1))


def test_objectives_are_minimised_and_bounds_measured_relative_to_themselves() -> None:
    values = np.array([[0.75, 4.0, 1.0], [0.25, 6.0, 0.0], [np.nan, 2.0, 3.0], [0.75, np.nan, 1.0]])
    np.testing.assert_array_equal(PROBLEM.minimised(values)[:2], [[-0.75, 4.0], [-0.25, 6.0]])
    # What is costly and not known yet breaks nothing; what is cheap and not known can never be kept.
    expected = [[0, 0, 0], [0.5, 0.5, 1], [0, 0, 2], [np.inf, 0, 0]]
    np.testing.assert_array_equal(PROBLEM.violations(values), expected)
    assert PROBLEM.feasible(values).tolist() == [True, False, False, False]


def test_a_small_space_is_listed_with_what_keeps_the_cheap_bounds() -> None:
    everything = PROBLEM.everything
    assert everything is not None
    every = SMALL.enumerate()
    kept = every[(size(every) <= 4) & (every[:, 1] == 1)]
    assert {row.tobytes() for row in everything} == {row.tobytes() for row in kept}
