"""Fronts and NSGA-II's order against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nas.engine.pareto import best_rows, front_rows, hypervolume, ranked

Values = npt.NDArray[np.float64]


def ranks_of(objectives: Values) -> npt.NDArray[np.int64]:
    """Return non-dominated ranks by comparing every pair."""
    no_worse = (objectives[:, None] <= objectives[None]).all(axis=2)
    better = (objectives[:, None] < objectives[None]).any(axis=2)
    dominates = no_worse & better
    ranks = np.full(len(objectives), -1)
    for rank in itertools.count():
        left = ranks < 0
        if not left.any():
            return ranks
        ranks[left & ~(dominates & left[:, None]).any(axis=0)] = rank
    raise AssertionError


def crowding_of(objectives: Values) -> Values:
    """Return crowding distances of one front by the definition (Deb et al. 2002); no objective may have ties."""
    distance: Values = np.zeros(len(objectives))
    for values in objectives.T:
        order = np.argsort(values)
        gaps = (values[order][2:] - values[order][:-2]) / (values.max() - values.min())
        distance[order[1:-1]] += gaps
        distance[order[[0, -1]]] = np.inf
    return distance


@pytest.mark.parametrize("seed", range(20))
def test_the_best_rows_are_those_of_the_first_ranks_and_then_the_least_crowded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objectives = rng.random((int(rng.integers(5, 80)), int(rng.integers(2, 4))))
    ranks = ranks_of(objectives)
    for n in rng.integers(1, len(objectives) + 1, size=5):
        chosen = best_rows(objectives, n=int(n))
        assert len(set(chosen)) == len(chosen) == n
        assert (np.diff(ranks[chosen]) >= 0).all()
        split = ranks[chosen].max()
        assert set(np.flatnonzero(ranks < split)) <= set(chosen)
        front = np.flatnonzero(ranks == split)
        crowding = dict(zip(front.tolist(), crowding_of(objectives[front]), strict=True))
        kept = [crowding[row] for row in chosen if row in crowding]
        left = [crowding[row] for row in crowding if row not in chosen]
        assert not left or min(kept) >= max(left) - 1e-12


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_best_rows_of_equal_merit_are_always_the_same(n: int) -> None:
    steps = np.arange(7.0)
    for values in (steps, steps % 2, steps * 0):
        objectives = np.stack([values, -values], axis=1)
        assert len({tuple(best_rows(objectives, n=n)) for _ in range(12)}) == 1


def test_fewer_rows_than_wanted_are_all_kept() -> None:
    assert sorted(best_rows(np.random.default_rng(0).random((3, 2)), n=10)) == [0, 1, 2]


def test_what_breaks_a_bound_comes_last_by_how_much_it_does() -> None:
    objectives = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0], [3.0, 3.0], [0.0, 0.0]])
    violation = np.array([0.5, 0.0, 0.0, 0.0, 0.1])
    order, places = ranked(objectives, violation, n=5)
    assert order.tolist() == [1, 2, 3, 4, 0]
    assert places.tolist() == [0, 0, 2, 3, 4], "the two ends of a front are equals"
    assert ranked(objectives, np.ones(5), n=2)[0].tolist() == [0, 1]
    assert ranked(objectives[:0], violation[:0], n=2)[0].tolist() == []


@given(arrays(np.float64, st.tuples(st.integers(0, 30), st.integers(1, 4)), elements=st.integers(0, 4).map(float)))
def test_the_front_is_every_value_that_nothing_dominates_once(values: Values) -> None:
    rows = front_rows(values)
    assert (np.diff(rows) > 0).all()
    best = ranks_of(values) == 0 if len(values) else np.zeros(0, dtype=bool)
    found = [tuple(row) for row in values[rows]]
    assert set(found) == {tuple(row) for row in values[best]}
    assert len(set(found)) == len(found)


def test_hypervolume_is_the_area_up_to_the_reference() -> None:
    values = np.array([[0.0, 0.5], [0.5, 0.0], [0.9, 0.9], [2.0, -1.0]])
    assert hypervolume(values, np.ones(2)) == pytest.approx(0.75)
    assert hypervolume(values[:0], np.ones(2)) == 0.0
