"""The inner loop and the choice among what it finds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from nas.engine.acquisition import choose_batch
from nas.engine.evolution import Evolution, evolve
from nas.engine.pareto import front_rows, hypervolume
from search_spaces.space import Genomes
from tests.nas.engine.toy_problem import LARGE, Toy

Values = npt.NDArray[np.float64]


def run(toy: Toy, settings: Evolution, start: Genomes) -> tuple[Genomes, Values, Values, list[Genomes]]:
    asked: list[Genomes] = []

    def score(genomes: Genomes) -> tuple[Values, Values]:
        asked.append(genomes)
        values = toy.values(genomes)
        return toy.problem.minimised(values), toy.problem.violations(values).sum(axis=1)

    return *evolve(toy.space, score, start, settings, np.random.default_rng(0)), asked


def test_the_true_front_of_a_problem_of_sums_is_approached() -> None:
    # Worth and cost are sums over genes, so that weighted sums of them are minimised gene by gene.
    toy = Toy(LARGE, limit=1.0)
    start = LARGE.unique(LARGE.sample(200, np.random.default_rng(1)))
    _, minimised, _, _ = run(toy, Evolution(population=256, generations=60), start)
    reference = toy.minimised(start).max(axis=0)
    best = [toy.minimised(genome[None])[0] for genome in weighted_optima(toy)]
    share = hypervolume(minimised, reference) / hypervolume(np.array(best), reference)
    assert share > 0.97


def weighted_optima(toy: Toy) -> list[Genomes]:
    """Return genomes that are optimal for weights of worth and cost, found gene by gene, dependants with their gene."""
    found = []
    for weight in np.linspace(0.02, 0.98, 49):
        genome = LARGE.sample(1, np.random.default_rng(0))[0]
        for _ in range(3):
            for position in range(LARGE.n_genes):
                options = np.repeat(genome[None], LARGE.n_options[position], axis=0)
                options[:, position] = np.arange(LARGE.n_options[position])
                options = LARGE.canonical(options)
                genome = options[(toy.minimised(options) @ [weight, 1 - weight]).argmin()]
        found.append(genome)
    return found


def test_every_proposal_is_canonical_and_new_to_its_population() -> None:
    toy = Toy(LARGE, limit=0.5)
    start = LARGE.unique(LARGE.sample(64, np.random.default_rng(1)))
    genomes, minimised, violation, asked = run(toy, Evolution(population=64, generations=12), start)
    assert len(asked) == 13
    for children in asked:
        np.testing.assert_array_equal(LARGE.check(children), children)
        assert len({row.tobytes() for row in children}) == len(children)
    assert len({row.tobytes() for row in genomes}) == len(genomes) == 64
    np.testing.assert_array_equal(minimised, toy.minimised(genomes))
    assert (violation <= 0).all()
    assert min(len(children) for children in asked[1:]) > 48


def test_infeasible_starts_move_towards_the_bounds() -> None:
    toy = Toy(LARGE, limit=0.06)
    start = LARGE.unique(LARGE.sample(64, np.random.default_rng(1)))
    assert not toy.problem.keeps_bounds(start).any()
    genomes, _, violation, _ = run(toy, Evolution(population=64, generations=40), start)
    assert (violation <= 0).all()
    assert toy.problem.keeps_bounds(genomes).all()


def test_a_population_of_one_can_grow() -> None:
    toy = Toy(LARGE, limit=0.5)
    genomes, *_ = run(toy, Evolution(population=32, generations=5), toy.cheapest[None])
    assert len(genomes) == 32


def chosen(draws: Values, front: Values, n: int, possible: Values | None = None) -> list[int]:
    allowed = np.ones(draws.shape[:2]) if possible is None else possible
    scale = np.concatenate([draws.reshape(-1, draws.shape[-1]), front])
    batch = choose_batch(draws, allowed, front, scale, n, np.random.default_rng(0))
    return [int(row) for row in batch.rows]


def test_the_candidate_that_adds_the_most_hypervolume_is_chosen_first() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        front = rng.random((4, 2)) + 0.5
        candidates = rng.random((12, 2))
        reference = np.maximum(front.max(axis=0), candidates.max(axis=0))
        low = np.minimum(front.min(axis=0), candidates.min(axis=0))
        reference = reference + 0.1 * (reference - low)
        true = [hypervolume(np.concatenate([front, one[None]]), reference) for one in candidates]
        first = chosen(candidates[None], front, 1)[0]
        # The directions are a sample, so near ties may be settled either way.
        gain = np.array(true) - hypervolume(front, reference)
        assert gain[first] > 0.9 * gain.max()


def test_a_second_choice_is_not_like_the_first() -> None:
    candidates = np.array([[0.10, 0.50], [0.11, 0.49], [0.50, 0.10], [0.9, 0.9]])
    front = np.array([[0.6, 0.6]])
    assert set(chosen(candidates[None], front, 2)) in ({0, 2}, {1, 2})
    assert sorted(chosen(candidates[None], front, 9)) == [0, 1, 2, 3]


def test_uncertainty_is_worth_something_and_impossible_draws_are_worth_nothing() -> None:
    front = np.array([[0.5]])
    sure, open_minded = np.full((8, 1), 0.5), np.linspace(0.0, 1.0, 8)[:, None]
    draws = np.stack([sure, open_minded], axis=1)
    assert chosen(draws, front, 1) == [1]
    possible = np.ones((8, 2))
    possible[:4, 1] = 0.0
    assert choose_batch(draws, possible, front, draws.reshape(-1, 1), 1, np.random.default_rng(0)).gain == 0.0


def test_with_no_front_yet_anything_possible_is_a_gain() -> None:
    draws = np.array([[[0.3, 0.4], [0.2, 0.3]]])
    batch = choose_batch(draws, np.ones((1, 2)), np.empty((0, 2)), draws[0], 1, np.random.default_rng(0))
    assert batch.rows.tolist() == [1]
    assert batch.gain == np.inf


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_the_expected_gain_is_relative_to_the_fronts_own_hypervolume(m: int) -> None:
    rng = np.random.default_rng(m)
    front = rng.random((6, m))
    front = front[front_rows(front)]
    candidate = front.min(axis=0) + 0.1
    draws = candidate[None, None]
    scale = np.concatenate([front, candidate[None]])
    batch = choose_batch(draws, np.ones((1, 1)), front, scale, 1, rng)
    span = scale.max(axis=0) - scale.min(axis=0)
    reference = scale.max(axis=0) + 0.1 * np.where(span > 0, span, 1)
    before = hypervolume(front, reference)
    expected = hypervolume(np.concatenate([front, candidate[None]]), reference) / before - 1
    assert batch.gain == pytest.approx(expected, abs=0.12 * m * max(expected, 0.1))
