"""The contract of accuracy predictors: every regression through `LearnedPredictor`, and the choice among all."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from predictors.accuracy import AccuracyPredictor, LearnedPredictor, network_costs
from predictors.quality import kendall_tau
from predictors.regression.chosen import REGRESSIONS
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes, SearchSpace
from search_spaces.tiny import tiny

Values = npt.NDArray[np.float64]

Known = Callable[[Genomes], Values]
Make = Callable[[SearchSpace, Known | None], AccuracyPredictor]

PREDICTORS: dict[str, Make] = {
    name: functools.partial(LearnedPredictor, regressions=(name,)) for name in REGRESSIONS
} | {"chosen": LearnedPredictor}
each_predictor = pytest.mark.parametrize("make", PREDICTORS.values(), ids=PREDICTORS)

SPACE = tiny(3, 10)
COSTS = network_costs(SPACE)


def synthetic_accuracy(space: NetworkSpace, genomes: Genomes, *, noise: float, seed: int) -> Values:
    """Return values that grow with the logarithm of cost, prefer some operators and have noise, as true ones do."""
    rng = np.random.default_rng(seed)
    effect = np.random.default_rng(0).normal(0, 0.01, int(space.n_options.sum()))
    macs = np.array([space.lower(genome).macs() for genome in genomes], dtype=np.float64)
    structure = space.encode(genomes).astype(np.float64) @ effect
    return np.asarray(0.5 + 0.1 * np.log(macs / 1e6) + structure + rng.normal(0, noise, len(genomes)))


@pytest.fixture(scope="module")
def known() -> tuple[Genomes, Values]:
    genomes = SPACE.sample(80, np.random.default_rng(1))
    return genomes, synthetic_accuracy(SPACE, genomes, noise=0.01, seed=1)


@pytest.fixture(scope="module")
def unseen() -> tuple[Genomes, Values]:
    genomes = SPACE.sample(600, np.random.default_rng(2))
    return genomes, synthetic_accuracy(SPACE, genomes, noise=0.01, seed=2)


def relative_error(
    predictor: AccuracyPredictor, known: tuple[Genomes, Values], unseen: tuple[Genomes, Values]
) -> float:
    """Return the mean squared error on the test networks, relative to that of the mean of the training values."""
    predictor.fit(*known)
    mean, _ = predictor.predict(unseen[0])
    return float(((mean - unseen[1]) ** 2).mean() / ((known[1].mean() - unseen[1]) ** 2).mean())


@each_predictor
def test_mean_and_deviation_have_one_value_per_network(make: Make, known: tuple[Genomes, Values]) -> None:
    predictor = make(SPACE, COSTS)
    predictor.fit(*known)
    for n in (1, 7):
        mean, std = predictor.predict(known[0][:n])
        assert mean.shape == std.shape == (n,)
        assert mean.dtype == std.dtype == np.float64
        assert np.isfinite(mean).all()
        assert (std > 0).all()


@each_predictor
@pytest.mark.slow
def test_the_same_rows_give_the_same_predictions(
    make: Make, known: tuple[Genomes, Values], unseen: tuple[Genomes, Values]
) -> None:
    first, second = make(SPACE, COSTS), make(SPACE, COSTS)
    first.fit(*known)
    # Fitting again starts anew: nothing is left of what was learned before.
    second.fit(known[0][:20], -known[1][:20])
    second.fit(*known)
    together = first.predict(unseen[0])
    assert np.array_equal(together, second.predict(unseen[0]))
    alone = np.concatenate([first.predict(unseen[0][i : i + 1]) for i in range(10)], axis=1)
    np.testing.assert_allclose(alone, np.array(together)[:, :10], rtol=1e-9)


@each_predictor
def test_inputs_are_not_changed(make: Make, known: tuple[Genomes, Values]) -> None:
    genomes, y = known[0].copy(), known[1].copy()
    predictor = make(SPACE, COSTS)
    predictor.fit(genomes, y)
    predictor.predict(genomes)
    assert np.array_equal(genomes, known[0])
    assert np.array_equal(y, known[1])


@each_predictor
def test_structure_is_learned(make: Make, known: tuple[Genomes, Values], unseen: tuple[Genomes, Values]) -> None:
    for costs in (None, COSTS):
        assert relative_error(make(SPACE, costs), known, unseen) < 0.35


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.slow
def test_little_is_learned_from_noise(name: str) -> None:
    errors = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        genomes, noise = SPACE.sample(680, rng), rng.normal(size=680)
        errors.append(
            relative_error(PREDICTORS[name](SPACE, COSTS), (genomes[:80], noise[:80]), (genomes[80:], noise[80:]))
        )
    # Trees and networks take more of it; an ordinary regression on more features than rows would take all: 2 and above.
    assert 0.95 < np.mean(errors) < (1.3 if name in {"ridge", "gaussian-process"} else 1.9)


@each_predictor
def test_the_deviation_covers_the_error(
    make: Make, known: tuple[Genomes, Values], unseen: tuple[Genomes, Values]
) -> None:
    predictor = make(SPACE, COSTS)
    predictor.fit(*known)
    mean, std = predictor.predict(unseen[0])
    within = np.mean(np.abs(mean - unseen[1]) <= 2 * std)
    assert 0.88 < within <= 1.0
    # A deviation far above the error would cover everything.
    assert np.sqrt(((mean - unseen[1]) ** 2).mean()) > 0.5 * std.mean()


@each_predictor
def test_few_rows_and_equal_values_are_enough(make: Make) -> None:
    genomes = SPACE.sample(6, np.random.default_rng(5))
    predictor = make(SPACE, COSTS)
    predictor.fit(genomes[:2], np.array([0.1, 0.2]))
    assert np.isfinite(predictor.predict(genomes)).all()
    predictor.fit(genomes, np.full(6, 0.3))
    assert predictor.predict(genomes)[0] == pytest.approx([0.3] * 6)


@each_predictor
def test_a_single_network_is_too_few(make: Make) -> None:
    with pytest.raises(InputError, match="at least 2 evaluated networks, got 1"):
        make(SPACE, COSTS).fit(SPACE.sample(1, np.random.default_rng(0)), np.array([0.5]))


def test_costs_are_macs_and_parameters_of_the_networks() -> None:
    genomes = SPACE.sample(20, np.random.default_rng(0))
    networks = [SPACE.lower(genome) for genome in genomes]
    assert COSTS(genomes).tolist() == [[network.macs(), network.params()] for network in networks]


def test_knowing_the_cost_helps_when_few_networks_are_known(unseen: tuple[Genomes, Values]) -> None:
    errors = []
    for seed in range(5):
        genomes = SPACE.sample(20, np.random.default_rng(seed + 10))
        y = synthetic_accuracy(SPACE, genomes, noise=0.01, seed=seed)
        errors.append([relative_error(LearnedPredictor(SPACE, costs), (genomes, y), unseen) for costs in (COSTS, None)])
    with_cost, without = np.mean(errors, axis=0)
    assert with_cost < 0.9 * without


# NAS-Bench-Macro (arXiv:2103.11922): 8 layers in stages of 2, 3 and 3. An identity is no layer, save at the start of a
# stage, where it still changes the resolution; so some codes are the same network.
MACRO = SearchSpace.from_choices({f"layer{i}": ["identity", "mb3_k3", "mb6_k5"] for i in range(8)})


def macro_network(code: str) -> tuple[str, ...]:
    return tuple(code[start] + code[start + 1 : end].replace("0", "") for start, end in ((0, 2), (2, 5), (5, 8)))


@pytest.fixture(scope="module")
def macro(shared_data: Path) -> tuple[Genomes, Values, Values]:
    """Return one genome of every distinct network, its accuracy in percent and its FLOPs."""
    with (shared_data / "nas_bench_macro" / "nas_bench_macro_flat.csv").open(newline="") as file:
        rows = {macro_network(row["arch"]): row for row in csv.DictReader(file)}
    assert len(rows) == 3969
    genomes = MACRO.check([[int(option) for option in row["arch"]] for row in rows.values()])
    return (
        genomes,
        np.array([float(row["mean"]) for row in rows.values()]),
        np.array([float(row["flops"]) for row in rows.values()]),
    )


@each_predictor
@pytest.mark.slow
def test_real_networks_are_ranked_better_than_by_cost(make: Make, macro: tuple[Genomes, Values, Values]) -> None:
    genomes, true, flops = macro
    taus = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(genomes))
        chosen, others = order[:100], order[100:]
        predictor = make(MACRO, None)
        predictor.fit(genomes[chosen], true[chosen])
        mean, std = predictor.predict(genomes[others])
        taus.append(kendall_tau(mean, true[others]))
        assert taus[-1] > kendall_tau(flops[others], true[others]) + 0.15
        assert 0.85 < np.mean(np.abs(mean - true[others]) <= 2 * std) < 0.995
    # Measured with Bayesian ridge on one-hots: 0.78 to 0.86, median 0.85; cost alone 0.55.
    assert np.median(taus) > 0.8


@each_predictor
def test_figures_that_are_no_numbers_are_refused(make: Make, known: tuple[Genomes, Values]) -> None:
    y = known[1].copy()
    y[3] = np.nan
    with pytest.raises(InputError, match="finite figures only"):
        make(SPACE, COSTS).fit(known[0], y)
    with pytest.raises(InputError, match="finite figures only"):
        make(SPACE, lambda genomes: np.full((len(genomes), 1), np.inf)).fit(*known)


@pytest.mark.slow
def test_what_was_learned_before_does_not_matter(known: tuple[Genomes, Values]) -> None:
    fresh, used = LearnedPredictor(SPACE, COSTS), LearnedPredictor(SPACE, COSTS)
    used.fit(known[0], -np.exp(8.0 * known[1]))
    for predictor in (fresh, used):
        predictor.fit(known[0][:50], known[1][:50])
    np.testing.assert_array_equal(fresh.predict(known[0]), used.predict(known[0]))
