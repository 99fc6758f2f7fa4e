"""Feasible networks in bounded time."""

from __future__ import annotations

import numpy as np
import pytest

from nas.engine.objectives import Constraint, Objective
from nas.engine.pool import feasible_pool, reachable, refuse_empty
from nas.engine.problem import Problem
from search_spaces.errors import InputError
from tests.nas.engine.toy_problem import LARGE, SMALL, Toy


@pytest.mark.parametrize("limit", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("size", [1, 100, 3000])
def test_a_pool_is_what_it_says_in_bounded_time(limit: float, size: int) -> None:
    toy = Toy(LARGE, limit=limit)
    pool = feasible_pool(toy.problem, size, np.random.default_rng(0))
    assert toy.scored <= 24 * 2048 + 1
    np.testing.assert_array_equal(LARGE.check(pool), pool)
    assert len({row.tobytes() for row in pool}) == len(pool)
    assert toy.problem.keeps_bounds(pool).all()
    assert pool[0].tobytes() == toy.cheapest.tobytes()
    assert len(pool) < size + 2048 + 1
    if limit > 0.1:
        assert len(pool) >= size
    np.testing.assert_array_equal(pool, feasible_pool(toy.problem, size, np.random.default_rng(0)))


def test_an_easy_pool_is_drawn_at_once() -> None:
    toy = Toy(LARGE, limit=1.0)
    feasible_pool(toy.problem, 500, np.random.default_rng(0))
    assert toy.scored == 2048 + 1


def test_rare_networks_are_found_with_nothing_known() -> None:
    toy = Toy(LARGE, limit=0.06)
    problem = Problem(LARGE, toy.objectives, toy.constraints)
    assert not problem.keeps_bounds(LARGE.sample(200_000, np.random.default_rng(0))).any()
    pool = feasible_pool(problem, 50, np.random.default_rng(0))
    assert len(pool) >= 50
    assert problem.keeps_bounds(pool).all()


def test_several_bounds_at_once_are_met_from_nothing() -> None:
    toy = Toy(LARGE, limit=0.3)
    narrow = Constraint("sum", lower=22, upper=23, evaluate=lambda genomes: genomes.sum(axis=1))
    problem = Problem(LARGE, toy.objectives, [*toy.constraints, narrow])
    refuse_empty(problem, np.random.default_rng(0))
    assert len(feasible_pool(problem, 20, np.random.default_rng(0))) >= 20


def test_known_networks_outside_the_bounds_are_not_in_the_pool() -> None:
    toy = Toy(LARGE, limit=0.1)
    wrong = LARGE.sample(20, np.random.default_rng(0))
    problem = Problem(LARGE, toy.objectives, toy.constraints, known=wrong)
    assert not problem.keeps_bounds(wrong).any()
    assert problem.keeps_bounds(feasible_pool(problem, 10, np.random.default_rng(0))).all()


def test_the_pool_of_a_small_space_is_all_of_it() -> None:
    toy = Toy(SMALL, limit=0.7)
    pool = feasible_pool(toy.problem, 1000, np.random.default_rng(0))
    assert {row.tobytes() for row in pool} == toy.all_feasible()


@pytest.mark.parametrize("space", [SMALL, LARGE], ids=["listed", "searched"])
def test_the_reachable_range_is_found(space: Toy) -> None:
    toy = Toy(space, limit=1.0)  # type: ignore[arg-type]
    low, high = reachable(toy.problem, 1, np.random.default_rng(0))
    assert low == pytest.approx(toy.cost(toy.cheapest[None])[0])
    assert high == pytest.approx(toy.limit)


def test_bounds_that_nothing_keeps_are_refused_in_bounded_time() -> None:
    toy = Toy(LARGE, limit=1.0)
    problem = Problem(LARGE, [Objective("cost", toy._counted_cost)], [Constraint("cost", upper=-1.0)])
    with pytest.raises(InputError, match="no network keeps the bound cost <= -1 "):
        refuse_empty(problem, np.random.default_rng(0))
    assert toy.scored < 500_000
