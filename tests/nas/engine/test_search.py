"""`search` and `Search`: what is evaluated, kept, handed back and refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from nas import CheckError, Constraint, InputError, Objective, Search, SearchResult, SearchSpace, search
from nas.engine.pareto import hypervolume
from search_spaces.space import Genomes
from tests.nas.engine.toy_problem import LARGE, MEDIUM, SMALL, Toy

Values = npt.NDArray[np.float64]


class Counted:
    """The worth of a toy problem, evaluated one network at a time and remembered.

    Args:
        toy: the problem.
        broken: from the number of the call and the genome to what is raised or returned instead of the true value.
    """

    def __init__(self, toy: Toy, broken: Callable[[int, Genomes], Any] = lambda call, genome: None) -> None:
        self.toy = toy
        self.broken = broken
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, genomes: Genomes) -> Any:
        assert genomes.shape == (1, self.toy.space.n_genes)
        assert genomes.dtype == np.int16
        self.seen.append(tuple(genomes[0].tolist()))
        instead = self.broken(len(self.seen), genomes[0])
        if isinstance(instead, Exception):
            raise instead
        return self.toy.worth(genomes) if instead is None else instead


def run(toy: Toy, worth: Counted, **options: Any) -> SearchResult:
    objectives = [Objective("worth", worth, maximize=True, costly=True), Objective("cost", toy.cost)]
    return search(toy.space, objectives, [Constraint("cost", upper=toy.limit)], known=toy.cheapest[None], **options)


def test_the_front_is_evaluated_feasible_and_not_dominated_in_the_users_own_sign() -> None:
    toy = Toy(LARGE, limit=0.5)
    result = run(toy, Counted(toy), evaluations=60)
    front = result.front
    assert list(front.values.columns) == ["worth", "cost"]
    assert front.genomes.dtype == np.int16
    np.testing.assert_array_equal(LARGE.check(front.genomes), front.genomes)
    np.testing.assert_array_equal(front.values["worth"], toy.worth(front.genomes))
    np.testing.assert_array_equal(front.values["cost"], toy.cost(front.genomes))
    assert (front.values["cost"] <= toy.limit).all()
    # Best first by the first objective, and then each one is cheaper than the one before.
    assert front.values["worth"].is_monotonic_decreasing
    assert front.values["cost"].is_monotonic_decreasing
    assert len(set(map(bytes, front.genomes))) == len(front) > 3
    everything = result.history[["worth", "cost"]].to_numpy()
    for worth, cost in front.values.to_numpy():
        better = (everything[:, 0] >= worth) & (everything[:, 1] <= cost)
        assert (everything[better] == [worth, cost]).all()


def test_the_history_tells_every_evaluation_in_order() -> None:
    toy = Toy(LARGE, limit=0.5)
    worth = Counted(toy)
    result = run(toy, worth, evaluations=40)
    history = result.history
    assert list(history.columns) == ["round", "why", "worth", "cost", "failure", "genome"]
    assert history["genome"].tolist() == worth.seen
    assert len(history) == result.evaluations == 40 == len(set(worth.seen))
    assert history["round"].is_monotonic_increasing
    assert history["round"].iloc[0] == 1
    assert set(history["why"]) == {"first sample", "expected gain"}
    assert history["failure"].isna().all()
    np.testing.assert_array_equal(history["worth"], toy.worth(np.array(worth.seen, dtype=np.int16)))


@pytest.mark.parametrize("strategy", ["predictor", "nsga2", "random"])
@pytest.mark.parametrize("evaluations", [1, 7, 61])
def test_no_more_is_evaluated_than_was_said(strategy: str, evaluations: int) -> None:
    toy = Toy(LARGE, limit=0.5)
    worth = Counted(toy)
    told: list[tuple[int, int]] = []
    result = run(toy, worth, evaluations=evaluations, strategy=strategy, progress=lambda *each: told.append(each))
    assert len(worth.seen) == result.evaluations == evaluations
    assert [done for done, _ in dict.fromkeys(told)] == list(range(evaluations + 1))
    assert result.stopped == "all evaluations are spent"


def test_a_space_that_ends_before_the_evaluations_is_wholly_known() -> None:
    toy = Toy(SMALL, limit=0.7)
    worth = Counted(toy)
    result = run(toy, worth, evaluations=500)
    assert {np.array(genes, dtype=np.int16).tobytes() for genes in worth.seen} == toy.all_feasible()
    assert result.stopped == "no new networks are left"


def test_the_example_of_the_documentation() -> None:
    space = SearchSpace.from_choices(
        {"op1": ["mb3", "mb6", "skip"], "k1": [3, 5, 7]}, when={"k1": {"op1": ["mb3", "mb6"]}}
    )
    result = search(
        space,
        objectives=[
            Objective("accuracy", evaluate=lambda genomes: 0.7 + 0.01 * genomes[:, 0], maximize=True, costly=True),
            Objective("latency_ms", evaluate=lambda genomes: 8.0 + genomes.sum(axis=1)),
        ],
        constraints=[Constraint("latency_ms", upper=10.0)],
        evaluations=200,
        strategy="predictor",
        seed=0,
    )
    assert result.front.values.to_numpy().tolist() == [[0.72, 10.0], [0.71, 9.0], [0.7, 8.0]]
    assert [space.decode(genome) for genome in result.front.genomes] == [
        {"op1": "skip"},
        {"op1": "mb6", "k1": 3},
        {"op1": "mb3", "k1": 3},
    ]


def test_a_single_objective_and_all_cheap_objectives() -> None:
    toy = Toy(MEDIUM, limit=1.0)
    best = toy.worth(MEDIUM.enumerate()).max()
    single = search(MEDIUM, [Objective("worth", toy.worth, maximize=True, costly=True)], evaluations=60)
    assert single.front.values["worth"].tolist() == [best]
    cheap = search(LARGE, [Objective("cost", toy_cost := Toy(LARGE, limit=1.0).cost)], evaluations=40)
    assert cheap.front.values["cost"].tolist() == [pytest.approx(toy_cost(Toy(LARGE, limit=1.0).cheapest[None])[0])]


@pytest.mark.slow
def test_several_constraints_with_functions_of_their_own() -> None:
    toy = Toy(LARGE, limit=0.6)
    result = search(
        LARGE,
        [Objective("worth", toy.worth, maximize=True, costly=True)],
        [
            Constraint("cost", upper=toy.limit, evaluate=toy.cost),
            Constraint("sum", lower=10, upper=20, evaluate=lambda genomes: genomes.sum(axis=1)),
            Constraint("worth", lower=3.0),
        ],
        evaluations=50,
    )
    assert list(result.front.values.columns) == ["worth", "cost", "sum"]
    assert result.history["cost"].max() <= toy.limit
    assert result.history["sum"].between(10, 20).all()
    assert len(result.front) == 1


def test_a_costly_bound_that_nothing_keeps_leaves_an_empty_front_and_the_history() -> None:
    toy = Toy(MEDIUM, limit=1.0)
    worth = Objective("worth", toy.worth, maximize=True, costly=True)
    result = search(MEDIUM, [worth], [Constraint("worth", lower=1e6)], evaluations=30)
    assert len(result.front) == 0
    assert len(result.history) == 30


BREAKAGES: dict[str, tuple[Any, str]] = {
    "raises": (ValueError("no memory\nfor this"), "worth raised ValueError: no memory for this"),
    "nan": (np.array([np.nan]), "worth returned nan"),
    "infinite": (np.array([np.inf]), "worth returned inf"),
    "shape": (np.ones(2), "worth returned shape (2,) for 1 network instead of (1,)"),
    "scalar": (0.5, "worth returned shape () for 1 network instead of (1,)"),
    "text": (np.array(["good"]), "worth returned dtype <U4 instead of a number"),
    "nothing": (np.array([None]), "worth returned dtype object instead of a number"),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_a_failed_evaluation_is_marked_and_the_search_goes_on(case: str, tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    instead, reason = BREAKAGES[case]
    worth = Counted(toy, lambda call, genome: instead if call % 4 == 0 else None)
    result = run(toy, worth, evaluations=30, ledger=tmp_path / "ledger.db")
    assert len(worth.seen) == len(set(worth.seen)) == result.evaluations == 30
    failed = result.history[result.history["failure"].notna()]
    assert failed["failure"].tolist() == [reason] * 7
    assert failed["worth"].isna().all()
    assert np.isfinite(result.front.values.to_numpy()).all()
    # Nothing is tried again when the same search is started again.
    again = Counted(toy)
    repeated = run(toy, again, evaluations=30, ledger=tmp_path / "ledger.db")
    assert again.seen == []
    pd.testing.assert_frame_equal(repeated.history, result.history)


def test_too_many_failures_end_the_search_with_the_last_reason(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    worth = Counted(toy, lambda call, genome: RuntimeError("no such device") if call > 3 else None)
    with pytest.raises(CheckError, match="the last one with: worth raised RuntimeError: no such device"):
        run(toy, worth, evaluations=200, ledger=tmp_path / "ledger.db")
    assert len(worth.seen) < 30
    # What succeeded is still there, for a search of another kind.
    other = run(toy, Counted(toy), evaluations=5, seed=1, ledger=tmp_path / "ledger.db")
    assert (other.history["round"] == 0).sum() == 3


def test_bad_input_of_our_own_kind_is_not_blamed_on_a_network() -> None:
    toy = Toy(LARGE, limit=0.5)
    with pytest.raises(InputError, match="the ledger is locked"):
        run(toy, Counted(toy, lambda call, genome: InputError("the ledger is locked")), evaluations=10)


@pytest.mark.slow
def test_a_search_that_was_cut_short_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    whole = run(toy, first := Counted(toy), evaluations=36, ledger=tmp_path / "whole.db")
    for cut in (1, 11, 30, 35):
        ledger = tmp_path / f"cut-{cut}.db"
        with pytest.raises(KeyboardInterrupt):
            run(toy, Counted(toy, _interrupt_after(cut)), evaluations=36, ledger=ledger)
        rest = Counted(toy)
        resumed = run(toy, rest, evaluations=36, ledger=ledger)
        assert rest.seen == first.seen[cut:]
        pd.testing.assert_frame_equal(resumed.history, whole.history)
        np.testing.assert_array_equal(resumed.front.genomes, whole.front.genomes)


def _interrupt_after(cut: int) -> Callable[[int, Genomes], None]:
    def broken(call: int, genome: Genomes) -> None:
        if call > cut:
            raise KeyboardInterrupt

    return broken


@pytest.mark.slow
def test_more_evaluations_go_on_from_the_same_ledger(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    run(toy, Counted(toy), evaluations=20, ledger=tmp_path / "ledger.db")
    more = Counted(toy)
    result = run(toy, more, evaluations=50, ledger=tmp_path / "ledger.db")
    assert len(more.seen) == 30
    assert result.evaluations == 50


@pytest.mark.slow
def test_another_search_starts_from_what_the_ledger_knows_and_resumes_too(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    ledger = tmp_path / "ledger.db"
    run(toy, first := Counted(toy), evaluations=24, seed=0, ledger=ledger)
    with pytest.raises(KeyboardInterrupt):
        run(toy, cut := Counted(toy, _interrupt_after(5)), evaluations=12, seed=1, ledger=ledger)
    assert not set(cut.seen) & set(first.seen)
    run(toy, Counted(toy), evaluations=30, seed=2, ledger=ledger)  # what comes later must not change the second one
    result = run(toy, rest := Counted(toy), evaluations=12, seed=1, ledger=ledger)
    history = result.history
    assert (history["round"] == 0).sum() == 24
    assert set(history[history["round"] == 0]["why"]) == {"known before"}
    assert result.evaluations == 12
    assert history["genome"].tolist()[24:29] == cut.seen[:5]
    assert not set(rest.seen) & {*first.seen, *cut.seen[:5]}
    assert set(history["why"][24:]) == {"expected gain"}, "there is no need of a first sample"


KILLED = """
    import time, sys
    import numpy as np
    from nas import Constraint, Objective, search
    from tests.nas.engine.toy_problem import LARGE, Toy
    toy = Toy(LARGE, limit=0.5)
    def worth(genomes):
        time.sleep(0.02)
        print(genomes[0].tolist(), flush=True)
        return toy.worth(genomes)
    search(LARGE, [Objective("worth", worth, maximize=True, costly=True), Objective("cost", toy.cost)],
           [Constraint("cost", upper=toy.limit)], known=toy.cheapest[None], evaluations=38, ledger=sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_process_loses_at_most_the_evaluation_it_was_in(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    ledger = tmp_path / "ledger.db"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(ledger)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        seen += process.stdout.readlines()
    rest = Counted(toy)
    resumed = run(toy, rest, evaluations=38, ledger=ledger)
    assert 38 - len(seen) <= len(rest.seen) <= 38 - len(seen) + 1
    pd.testing.assert_frame_equal(resumed.history, run(toy, Counted(toy), evaluations=38).history)


def test_a_ledger_of_another_space_is_refused(tmp_path: Path) -> None:
    run(Toy(LARGE, limit=0.5), Counted(Toy(LARGE, limit=0.5)), evaluations=3, ledger=tmp_path / "ledger.db")
    toy = Toy(MEDIUM, limit=0.5)
    with pytest.raises(InputError, match=f"holds evaluations of the space {LARGE.hash}, not of {MEDIUM.hash}"):
        run(toy, Counted(toy), evaluations=3, ledger=tmp_path / "ledger.db")


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database, but long enough to be taken for one" * 20)
    toy = Toy(MEDIUM, limit=0.5)
    with pytest.raises(InputError, match="is not a ledger of this tool"):
        run(toy, Counted(toy), evaluations=3, ledger=tmp_path / "ledger.db")


def test_an_empty_feasible_set_is_answered_with_what_can_be_reached() -> None:
    toy = Toy(LARGE, limit=0.5)
    low = float(toy.cost(toy.cheapest[None])[0])
    with pytest.raises(InputError, match=r"no network keeps the bound cost <= 0.1 \(reachable: ") as caught:
        search(LARGE, [Objective("cost", toy.cost)], [Constraint("cost", upper=0.1)])
    assert f"reachable: {low:g} to " in str(caught.value)
    with pytest.raises(
        InputError, match=r"no network keeps all bounds at once: cost <= .*, 40 <= sum \(reachable: 0 to 40"
    ):
        search(
            LARGE,
            [Objective("cost", toy.cost)],
            [
                Constraint("cost", upper=low * 1.01),
                Constraint("sum", lower=40, evaluate=lambda genomes: genomes.sum(axis=1)),
            ],
        )


def test_it_stops_when_little_is_left_to_gain() -> None:
    toy = Toy(MEDIUM, limit=1.0)
    worth = Counted(toy)
    result = run(toy, worth, evaluations=240, min_gain=1e-3)
    assert result.stopped == "the expected gain is below 0.001"
    assert 20 < len(worth.seen) < 200
    # And little was left: all true values are known here.
    every = toy.minimised(MEDIUM.enumerate())
    best = every[:, 0].min()
    assert -result.front.values["worth"].iloc[0] == pytest.approx(best, rel=0.02)


def test_asking_and_telling_by_hand_is_the_same_search() -> None:
    toy = Toy(LARGE, limit=0.5)
    objectives = [Objective("worth", maximize=True, costly=True), Objective("cost", toy.cost)]
    opened = Search(LARGE, objectives, [Constraint("cost", upper=toy.limit)], known=toy.cheapest[None])
    while opened.evaluations < 40:
        genomes = opened.ask(40 - opened.evaluations)
        opened.tell(genomes, {"worth": toy.worth(genomes)})
    pd.testing.assert_frame_equal(opened.result().history, run(toy, Counted(toy), evaluations=40).history)


def test_networks_that_were_not_asked_for_can_be_told_and_asked_ones_later() -> None:
    toy = Toy(LARGE, limit=0.5)
    opened = Search(LARGE, [Objective("worth", maximize=True, costly=True), Objective("cost", toy.cost)])
    mine = LARGE.unique(LARGE.sample(30, np.random.default_rng(9)))
    first = opened.ask(4)
    opened.tell(mine, {"worth": toy.worth(mine)})
    second = opened.ask(4)
    opened.tell(second, {"worth": toy.worth(second)})
    opened.tell(first, {"worth": [1.0, np.nan, 2.0, 3.0]})
    history = opened.result().history
    assert history["why"].tolist().count("told") == len(mine)
    assert history["failure"].notna().sum() == 1
    everything = set(history["genome"])
    assert len(everything) == len(history) == len(mine) + len(first) + len(second)


def test_what_is_told_wrongly_is_refused_and_nothing_of_it_is_kept() -> None:
    toy = Toy(LARGE, limit=0.5)
    opened = Search(LARGE, [Objective("worth", maximize=True, costly=True), Objective("cost", toy.cost)])
    genomes = opened.ask(3)
    good = toy.worth(genomes)
    cases: list[tuple[npt.ArrayLike, dict[str, Any], str]] = [
        (genomes, {"wroth": good}, "unknown costly objective or constraint 'wroth'; did you mean 'worth'"),
        (genomes, {"cost": good}, "unknown costly objective or constraint 'cost'"),
        (genomes, {}, "values of 'worth' are missing"),
        (genomes, {"worth": good[:2]}, r"shape \(2,\) for 3 networks"),
        (genomes[[0, 0]], {"worth": good[:2]}, "was told before"),
        (genomes[:, :3], {"worth": good}, "have shape"),
        (genomes + 99, {"worth": good}, "allowed are 0 to"),
    ]
    for rows, values, message in cases:
        with pytest.raises(InputError, match=message):
            opened.tell(rows, values)
    opened.tell(genomes, {"worth": good})
    with pytest.raises(InputError, match="was told before"):
        opened.tell(genomes[:1], {"worth": good[:1]})
    assert len(opened.result().history) == 3


def test_an_objective_without_a_function_cannot_be_evaluated() -> None:
    with pytest.raises(InputError, match="objective 'worth' has no `evaluate`"):
        search(LARGE, [Objective("worth", costly=True)], evaluations=3)


def test_no_evaluations_are_too_few() -> None:
    with pytest.raises(InputError, match="at least 1, got 0"):
        search(LARGE, [Objective("worth", costly=True)], evaluations=0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda genomes: 1 / 0, "cost: evaluate raised ZeroDivisionError: division by zero"),
        (lambda genomes: genomes, r"cost: evaluate must return shape \(\d+,\) for \d+ networks, got"),
        (lambda genomes: 3.0, r"got \(\)"),
        (lambda genomes: np.array(["x"] * len(genomes)), "cost: evaluate must return numbers"),
    ],
)
def test_a_cheap_function_that_does_not_work_is_one_clear_error(function: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(LARGE, [Objective("cost", function)], evaluations=3)


def test_networks_without_a_cheap_figure_are_left_out() -> None:
    toy = Toy(LARGE, limit=0.5)

    def cost(genomes: Genomes) -> Values:
        return np.where(genomes[:, 0] == 0, np.nan, toy.cost(genomes))

    worth = Objective("worth", toy.worth, maximize=True, costly=True)
    result = search(LARGE, [worth, Objective("cost", cost)], evaluations=60)
    assert not (np.array(result.history["genome"].tolist())[:, 0] == 0).any()
    assert np.isfinite(result.history["cost"]).all()


def test_a_function_that_changes_its_genomes_changes_nothing_else() -> None:
    toy = Toy(LARGE, limit=0.5)

    def spoiling(genomes: Genomes) -> Values:
        values = toy.worth(genomes)
        genomes[:] = 0
        return values

    worth = Objective("worth", spoiling, maximize=True, costly=True)
    spoiled = search(LARGE, [worth, Objective("cost", toy.cost)], evaluations=40)
    genomes = np.array(spoiled.history["genome"].tolist(), dtype=np.int16)
    np.testing.assert_array_equal(spoiled.history["worth"], toy.worth(genomes))


def test_known_features_are_used_and_checked() -> None:
    toy = Toy(LARGE, limit=0.5)
    worth = Objective("worth", toy.worth, maximize=True, costly=True)
    helped = search(LARGE, [worth], evaluations=24, features=lambda genomes: toy.worth(genomes)[:, None])
    alone = search(LARGE, [worth], evaluations=24)
    assert helped.front.values["worth"][0] > alone.front.values["worth"][0]
    with pytest.raises(InputError, match=r"features: evaluate must return shape \(\d+, k\)"):
        search(LARGE, [worth], evaluations=24, features=toy.worth)


# What reviewers broke


def test_functions_are_never_called_with_no_networks(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)

    def at_least_one(genomes: Genomes) -> Values:
        assert len(genomes)
        return np.stack([toy.cost(genome[None])[0] for genome in genomes])

    for strategy in ("predictor", "local", "nsga2"):
        result = search(
            LARGE,
            [Objective("worth", toy.worth, maximize=True, costly=True), Objective("cost", at_least_one)],
            evaluations=16,
            strategy=strategy,
            features=lambda genomes: at_least_one(genomes)[:, None],
            ledger=tmp_path / f"{strategy}.db",
        )
        assert result.evaluations == 16


@pytest.mark.slow
def test_a_costly_bound_that_no_network_is_predicted_to_keep_is_approached() -> None:
    toy = Toy(LARGE, limit=1.0)
    sampled = toy.worth(LARGE.sample(20_000, np.random.default_rng(0)))
    objectives = [Objective("worth", toy.worth, maximize=True, costly=True), Objective("cost", toy.cost)]
    for constraint, objective in (
        (Constraint("worth", lower=float(sampled.max()) + 0.5), objectives),
        (Constraint("own", lower=float(sampled.max()) + 0.5, evaluate=toy.worth, costly=True), objectives[1:]),
    ):
        result = search(LARGE, objective, [constraint], evaluations=44)
        assert "random" not in set(result.history["why"])
        assert result.history[constraint.name].tail(8).max() > sampled.max(), "random networks stay far below"


def test_unasked_networks_of_a_search_are_not_lost_when_it_is_opened_again(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    objectives = [Objective("worth", toy.worth, maximize=True, costly=True), Objective("cost", toy.cost)]

    def opened() -> Search:
        return Search(LARGE, objectives, strategy="random", ledger=tmp_path / "ledger.db")

    first = opened()
    own = LARGE.sample(3, np.random.default_rng(5))
    first.tell(own, {"worth": [1.0, np.nan, 3.0]})
    asked = first.ask(4)
    first.evaluate(asked)
    again = opened()
    new = again.ask(6)
    assert again.evaluations == 7
    assert not {tuple(row) for row in new.tolist()} & {tuple(row) for row in np.concatenate([own, asked]).tolist()}
    assert set(again.result().history["genome"]) == set(first.result().history["genome"])
    assert again.result().history["failure"].notna().sum() == 1


@pytest.mark.parametrize("strategy", ["random", "nsga2", "predictor"])
def test_more_evaluations_than_before_pay_for_the_difference_only(strategy: str, tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.25)
    run(toy, before := Counted(toy), evaluations=20, strategy=strategy, ledger=tmp_path / "ledger.db")
    result = run(toy, after := Counted(toy), evaluations=33, strategy=strategy, ledger=tmp_path / "ledger.db")
    assert result.evaluations == 33
    assert len(after.seen) == 13
    assert set(result.history["genome"]) == {*before.seen, *after.seen}


def test_networks_are_evaluated_once_by_hand_too() -> None:
    toy = Toy(LARGE, limit=0.5)
    worth = Counted(toy)
    loop = Search(LARGE, [Objective("worth", worth, maximize=True, costly=True)])
    genomes = loop.ask(3)
    loop.evaluate(genomes)
    for repeated in (genomes[:1], np.repeat(LARGE.sample(1, np.random.default_rng(9)), 2, axis=0)):
        with pytest.raises(InputError, match="was told before; a network is evaluated once"):
            loop.evaluate(repeated)
    assert len(worth.seen) == 3


def test_a_network_that_failed_without_being_asked_for_is_not_asked_for() -> None:
    toy = Toy(SMALL, limit=1.0)
    everything = SMALL.enumerate()
    loop = Search(SMALL, [Objective("worth", toy.worth, costly=True)], strategy="random")
    loop.tell(everything[:2], {"worth": [np.nan, np.nan]})
    asked: list[tuple[int, ...]] = []
    while len(genomes := loop.ask(7)):
        asked += [tuple(row) for row in genomes.tolist()]
        loop.evaluate(genomes)
    assert set(asked) == {tuple(row) for row in everything[2:].tolist()}


def test_failures_end_the_search_before_the_batch_does() -> None:
    toy = Toy(LARGE, limit=0.5)
    with pytest.raises(CheckError, match="17 of 17 evaluations failed"):
        run(toy, worth := Counted(toy, lambda call, genome: ValueError("no")), evaluations=200, strategy="random")
    assert len(worth.seen) == 17


def test_networks_of_a_kind_that_fails_are_avoided() -> None:
    toy = Toy(LARGE, limit=1.0)
    # Of all first operators, that cannot be run of which there are most in what a search looks for.
    whole = run(toy, Counted(toy), evaluations=40).history
    preferred = int(np.bincount([genome[0] for genome in whole["genome"][20:]]).argmax())
    assert sum(genome[0] == preferred for genome in whole["genome"][20:]) > 8
    fails = Counted(toy, lambda call, genome: ValueError("no such operator") if genome[0] == preferred else None)
    history = run(toy, fails, evaluations=40).history
    failed = history["failure"].notna()
    assert failed.sum() > 2
    assert len(history) == 40
    assert failed[20:].sum() <= 4


def test_failures_of_no_kind_cost_a_search_little() -> None:
    toy = Toy(LARGE, limit=1.0)
    whole = run(toy, Counted(toy), evaluations=48)
    fails = Counted(toy, lambda call, genome: ValueError("lost") if call % 8 == 3 else None)
    result = run(toy, fails, evaluations=48)
    assert result.history["failure"].notna().sum() == 6
    best, found = (toy.minimised(each.front.genomes) for each in (whole, result))
    worst = np.concatenate([best, found]).max(axis=0)
    assert hypervolume(found, worst) > 0.9 * hypervolume(best, worst)


def test_another_search_s_success_does_not_undo_a_failure(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    ledger = tmp_path / "ledger.db"
    first = run(
        toy, Counted(toy, lambda call, genome: ValueError("no") if call == 3 else None), evaluations=8, ledger=ledger
    )
    failed = first.history["genome"][first.history["failure"].notna()].tolist()
    other = Search(LARGE, [Objective("worth", toy.worth, maximize=True, costly=True)], seed=9, ledger=ledger)
    other.evaluate(failed)
    again = run(toy, unused := Counted(toy), evaluations=8, ledger=ledger)
    pd.testing.assert_frame_equal(again.history, first.history)
    assert not unused.seen


def test_what_was_finished_before_an_interruption_is_known() -> None:
    toy = Toy(LARGE, limit=0.5)
    loop = Search(LARGE, [Objective("worth", Counted(toy, _interrupt_after(4)), costly=True)], strategy="random")
    with pytest.raises(KeyboardInterrupt):
        loop.evaluate(loop.ask(9))
    assert loop.evaluations == len(loop.result().history) == 4


@pytest.mark.slow
def test_figures_that_are_no_numbers_stay_out_of_front_and_learning() -> None:
    toy = Toy(LARGE, limit=0.5)
    # The cheap figure is unknown for a third of all networks, the best ones among them; some features are, too.
    unknown = float(np.quantile(toy.cost(LARGE.sample(4000, np.random.default_rng(0))), 0.33))
    for strategy in ("predictor", "local", "regularized-evolution", "nsga2"):
        result = search(
            LARGE,
            [
                Objective("worth", toy.worth, maximize=True, costly=True),
                Objective("cost", lambda genomes: np.where(toy.cost(genomes) < unknown, np.nan, toy.cost(genomes))),
            ],
            evaluations=48,
            strategy=strategy,
            features=lambda genomes: np.where(genomes[:, :1] == 0, np.inf, 1.0),
        )
        assert np.isfinite(result.history["cost"]).all()
        assert len(result.front)


def test_a_cheap_figure_that_nothing_has_is_said_so() -> None:
    with pytest.raises(InputError, match="cost: evaluate gives no network a finite value"):
        search(LARGE, [Objective("cost", lambda genomes: np.full(len(genomes), np.nan))])


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    toy = Toy(LARGE, limit=0.5)
    bounds = Constraint("cost", upper=np.float32(toy.limit), lower=np.int64(0))  # type: ignore[arg-type]
    objectives = [Objective("worth", toy.worth, maximize=True, costly=True), Objective("cost", toy.cost)]
    result = search(LARGE, objectives, [bounds], evaluations=4, seed=np.int64(3), ledger=tmp_path / "ledger.db")  # type: ignore[arg-type]
    assert result.evaluations == 4
    with pytest.raises(InputError, match="seed must be a whole number from 0 on, got -1"):
        search(LARGE, objectives, evaluations=4, seed=-1)


def test_what_is_told_before_counts_for_nothing_and_is_learnt_from() -> None:
    toy = Toy(LARGE, limit=0.5)
    first = run(toy, Counted(toy), evaluations=24)
    genomes = first.history["genome"].tolist()
    told = (genomes, {"worth": first.history["worth"].to_numpy()})
    result = run(toy, more := Counted(toy), evaluations=8, before=told)
    assert len(more.seen) == result.evaluations == 8
    assert not set(more.seen) & set(genomes)
    assert result.history["genome"].tolist()[:24] == genomes
    assert set(result.history["why"][24:]) == {"expected gain"}
    with pytest.raises(InputError, match="values of 'worth' are missing"):
        run(toy, Counted(toy), evaluations=8, before=(genomes, {}))


def test_who_wants_to_know_is_told_what_comes() -> None:
    toy = Toy(LARGE, limit=0.5)
    seen, rounds = Counted(toy), []

    def upcoming(genomes: Genomes) -> None:
        rounds.append([tuple(row) for row in genomes.tolist()])
        assert len(seen.seen) == sum(map(len, rounds[:-1])), "told before the first of a round, and after the last"

    result = search(
        LARGE,
        [
            Objective("worth", seen, maximize=True, costly=True, upcoming=upcoming),
            Objective("cost", toy.cost),
        ],
        [Constraint("cost", upper=toy.limit)],
        known=toy.cheapest[None],
        evaluations=30,
    )
    assert [genes for told in rounds for genes in told] == seen.seen == result.history["genome"].tolist()
    assert max(map(len, rounds)) > 1
    with pytest.raises(InputError, match="`upcoming` of objective 'cost'"):
        Objective("cost", toy.cost, upcoming=upcoming)
