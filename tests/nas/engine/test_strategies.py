"""The contract that every strategy keeps. A new one in `STRATEGIES` joins by its name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nas.engine.objectives import Constraint, Objective
from nas.engine.pareto import hypervolume
from nas.engine.problem import Problem
from nas.engine.strategies import STRATEGIES, make_strategy
from nas.engine.strategy import Strategy
from search_spaces.errors import InputError
from search_spaces.space import Genomes, SearchSpace
from tests.nas.engine.toy_problem import LARGE, MEDIUM, SMALL, Toy

SLOW_TO_ASK = {"gp"}
"""Strategies that take a second per network, and so are asked for few here."""


def ask_and_tell(strategy: Strategy, toy: Toy, n: int) -> list[Genomes]:
    """Ask and tell until `n` networks were asked for or none come; returns what came each time."""
    asked: list[Genomes] = []
    while (left := n - sum(map(len, asked))) > 0:
        genomes = strategy.ask(left).genomes
        if not len(genomes):
            break
        asked.append(genomes)
        strategy.tell(genomes, toy.values(genomes))
    return asked


def keys(genomes: Genomes) -> list[bytes]:
    return [row.tobytes() for row in genomes]


def joined(asked: Sequence[Genomes]) -> Genomes:
    return np.concatenate(asked)


SLOW = {"gp", "linas", "random-predictor", "tpe"}


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in sorted(STRATEGIES)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_asked_genomes_are_new_canonical_feasible_and_no_more_than_allowed(name: str) -> None:
    toy = Toy(LARGE, limit=0.4)
    strategy = make_strategy(name, toy.problem, 0)
    # Told, but never asked: some feasible, some not.
    given = LARGE.unique(np.concatenate([toy.cheapest[None], LARGE.sample(8, np.random.default_rng(0))]))
    assert 1 < toy.problem.keeps_bounds(given).sum() < len(given)
    strategy.tell(given, toy.values(given))
    seen = set(keys(given))
    sizes = (4, 1, 3) if name in SLOW_TO_ASK else (40, 1, 30, 7, 20)
    for size in sizes:
        proposal = strategy.ask(size)
        genomes = proposal.genomes
        assert 1 <= len(genomes) <= size, "there is no lack of feasible genomes here"
        assert len(proposal.why) == len(genomes)
        assert all(proposal.why)
        assert genomes.dtype == np.int16
        np.testing.assert_array_equal(LARGE.check(genomes), genomes)
        assert toy.problem.keeps_bounds(genomes).all()
        assert len(set(keys(genomes))) == len(genomes)
        assert not seen & set(keys(genomes))
        seen |= set(keys(genomes))
        strategy.tell(genomes, toy.values(genomes))


def test_what_is_out_for_evaluation_is_not_asked_again(name: str) -> None:
    # In a space this small, what is best would come again and again.
    toy = Toy(MEDIUM, limit=0.9)
    strategy = make_strategy(name, toy.problem, 0)
    rounds = 6 if name in SLOW_TO_ASK else 16
    asked = []
    for turn in range(rounds):
        genomes = strategy.ask(5).genomes
        asked.append(genomes)
        if turn % 2:
            strategy.tell(genomes, toy.values(genomes))
    taken = keys(joined(asked))
    assert len(set(taken)) == len(taken) >= rounds


@pytest.mark.parametrize(("space", "limit"), [(SMALL, 1.0), (SMALL, 0.7), (MEDIUM, 0.9)], ids=["all", "few", "many"])
def test_a_space_is_asked_to_its_end_and_then_nothing_comes(name: str, space: SearchSpace, limit: float) -> None:
    if name in {*SLOW_TO_ASK, "linas"} and space is MEDIUM:
        pytest.skip("seconds per network, near the end of a space")
    toy = Toy(space, limit=limit)
    feasible = toy.all_feasible()
    assert 10 < len(feasible) <= (space.count() if limit == 1 else space.count() - 1)
    strategy = make_strategy(name, toy.problem, 0)
    taken = keys(joined(ask_and_tell(strategy, toy, space.count() + 1)))
    assert len(taken) == len(set(taken))
    assert set(taken) == feasible
    assert strategy.ask(3).genomes.shape == (0, space.n_genes)


def test_one_seed_gives_one_run_and_another_seed_another(name: str) -> None:
    toy = Toy(LARGE, limit=0.4)
    n = 16 if name in SLOW_TO_ASK else 60 if name in {"nsga2", "regularized-evolution"} else 36
    first, again, other = (joined(ask_and_tell(make_strategy(name, toy.problem, s), toy, n)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert set(keys(first)) != set(keys(other))


def test_rare_feasible_genomes_are_found_from_known_ones(name: str) -> None:
    toy = Toy(LARGE, limit=0.06)
    drawn = LARGE.sample(200_000, np.random.default_rng(0))
    assert not toy.problem.keeps_bounds(drawn).any(), "sampling alone should find nothing"
    n = 14 if name in SLOW_TO_ASK else 60
    asked = joined(ask_and_tell(make_strategy(name, toy.problem, 0), toy, n))
    assert len(asked) == n
    assert toy.problem.keeps_bounds(asked).all()


def test_a_known_genome_that_is_all_there_is_comes_once_after_a_bounded_search(name: str) -> None:
    toy = Toy(LARGE, limit=0.0)
    strategy = make_strategy(name, toy.problem, 0)
    assert [len(genomes) for genomes in ask_and_tell(strategy, toy, 5)] == [1]
    toy.scored = 0
    assert len(strategy.ask(5).genomes) == 0
    assert toy.scored < 600_000


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_any_number_of_objectives_costly_or_cheap(name: str, n_objectives: int) -> None:
    toy = Toy(LARGE, limit=0.5)
    objectives = [
        Objective("worth", toy.worth, maximize=True, costly=True),
        Objective("genes", lambda genomes: genomes.sum(axis=1)),
        Objective("noise", lambda genomes: np.sin(genomes @ np.arange(24)), costly=True),
    ][:n_objectives]
    cost = Constraint("cost", upper=toy.limit, evaluate=toy.cost)
    problem = Problem(LARGE, objectives, [cost])
    strategy = make_strategy(name, problem, 0)
    n, total = (13, 0) if name in SLOW_TO_ASK else (60 if name in {"nsga2", "regularized-evolution"} else 36, 0)
    while total < n:
        genomes = strategy.ask(n - total).genomes
        assert len(genomes)
        assert (toy.cost(genomes) <= toy.limit).all()
        values = problem.cheap(genomes)
        for column, objective in enumerate(objectives):
            assert objective.evaluate is not None
            values[:, column] = objective.evaluate(genomes)
        strategy.tell(genomes, values)
        total += len(genomes)


@pytest.mark.parametrize("learns", ["predictor", "local", "regularized-evolution", "nsga2"])
def test_costly_constraints_are_learned(learns: str) -> None:
    # Three of ten networks keep the bound; who learns that asks for more of those.
    toy = Toy(LARGE, limit=0.5)
    upper = float(np.quantile(toy.worth(LARGE.sample(4000, np.random.default_rng(0))), 0.3))
    objective = Objective("genes", lambda genomes: -genomes.sum(axis=1))
    problem = Problem(LARGE, [objective], [Constraint("worth", upper=upper, evaluate=toy.worth, costly=True)])
    strategy = make_strategy(learns, problem, 0)
    kept: list[bool] = []
    for _ in range(20):
        genomes = strategy.ask(8).genomes
        values = problem.cheap(genomes)
        values[:, 1] = toy.worth(genomes)
        strategy.tell(genomes, values)
        kept += (values[:, 1] <= upper).tolist()
    assert np.mean(kept[len(kept) // 2 :]) > 0.5


def test_an_unknown_strategy_is_refused_naming_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown strategy 'nsga3'; did you mean 'nsga2'"):
        make_strategy("nsga3", Toy(SMALL, limit=1.0).problem, 0)


def reached(name: str, *, seed: int, n: int) -> float:
    """Return the hypervolume of `n` evaluations, as a share of the box from the cheapest genome to the limit."""
    toy = Toy(LARGE, limit=0.5, seed=seed)
    found = toy.minimised(joined(ask_and_tell(make_strategy(name, toy.problem, seed), toy, n)))
    typical = toy.minimised(LARGE.sample(4000, np.random.default_rng(0)))[:, 0]
    low, high = np.array([typical.min(), toy.cost(toy.cheapest[None])[0]]), np.array([typical.max(), toy.limit])
    return hypervolume((found - low) / (high - low), np.ones(2))


@pytest.mark.parametrize(
    ("better", "n"),
    [
        pytest.param("predictor", 60, marks=pytest.mark.slow),
        pytest.param("random-predictor", 80, marks=pytest.mark.slow),
        pytest.param("linas", 100, marks=pytest.mark.slow),
        ("local", 80),
        ("regularized-evolution", 400),
        ("nsga2", 400),
    ],
)
def test_strategies_that_learn_beat_chance(better: str, n: int) -> None:
    ratios = [reached(better, seed=seed, n=n) / reached("random", seed=seed, n=n) for seed in range(3)]
    assert np.median(ratios) > 1.05


@pytest.mark.slow
def test_the_inner_search_is_worth_its_time() -> None:
    ratios = [reached("predictor", seed=seed, n=60) / reached("random-predictor", seed=seed, n=60) for seed in range(3)]
    assert np.median(ratios) > 1.05


def test_the_first_sample_of_the_default_is_spread_over_the_range_of_costs() -> None:
    toy = Toy(LARGE, limit=0.9)
    pool = LARGE.sample(4000, np.random.default_rng(1))
    cost = toy.cost(pool[toy.problem.keeps_bounds(pool)])
    asked = make_strategy("predictor", toy.problem, 0).ask(12).genomes
    assert keys(asked)[0] == toy.cheapest.tobytes(), "what is known comes first"
    sample = toy.cost(asked[1:])
    assert sample.min() < np.quantile(cost, 0.02)
    assert sample.max() > np.quantile(cost, 0.98)
    assert np.histogram(sample, np.linspace(cost.min(), cost.max(), 7))[0].min() > 0


def test_the_default_expects_less_gain_the_more_it_knows() -> None:
    toy = Toy(MEDIUM, limit=1.0)
    strategy = make_strategy("predictor", toy.problem, 0)
    gains = []
    for _ in range(20):
        proposal = strategy.ask(8)
        strategy.tell(proposal.genomes, toy.values(proposal.genomes))
        gains += [proposal.gain] if proposal.gain is not None else []
    assert gains[0] > 10 * gains[-1] >= 0.0
