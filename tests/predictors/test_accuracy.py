"""The contract of accuracy predictors. A new class in `predictors.accuracy` is added to `PREDICTORS`."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from predictors import accuracy
from predictors.accuracy import AccuracyPredictor, Features, RidgePredictor, structure_features
from predictors.quality import kendall_tau
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes, SearchSpace
from search_spaces.tiny import tiny

Values = npt.NDArray[np.float64]

PREDICTORS: dict[str, Callable[[Features], AccuracyPredictor]] = {"RidgePredictor": RidgePredictor}
each_predictor = pytest.mark.parametrize("make", PREDICTORS.values(), ids=PREDICTORS)

SPACE = tiny(3, 10)
FEATURES = structure_features(SPACE)


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


def test_every_predictor_joins_the_contract() -> None:
    classes = inspect.getmembers(accuracy, inspect.isclass)
    own = {name for name, kind in classes if kind.__module__ == accuracy.__name__ and hasattr(kind, "predict")}
    assert own - {AccuracyPredictor.__name__} == set(PREDICTORS)


@each_predictor
def test_mean_and_deviation_have_one_value_per_network(
    make: Callable[[Features], AccuracyPredictor], known: tuple[Genomes, Values]
) -> None:
    predictor = make(FEATURES)
    predictor.fit(*known)
    for n in (1, 7):
        mean, std = predictor.predict(known[0][:n])
        assert mean.shape == std.shape == (n,)
        assert mean.dtype == std.dtype == np.float64
        assert np.isfinite(mean).all()
        assert (std > 0).all()


@each_predictor
def test_the_same_rows_give_the_same_predictions(
    make: Callable[[Features], AccuracyPredictor], known: tuple[Genomes, Values], unseen: tuple[Genomes, Values]
) -> None:
    first, second = make(FEATURES), make(FEATURES)
    first.fit(*known)
    # Fitting again starts anew: nothing is left of what was learned before.
    second.fit(known[0][:20], -known[1][:20])
    second.fit(*known)
    together = first.predict(unseen[0])
    assert np.array_equal(together, second.predict(unseen[0]))
    alone = np.concatenate([first.predict(unseen[0][i : i + 1]) for i in range(10)], axis=1)
    np.testing.assert_allclose(alone, np.array(together)[:, :10], rtol=1e-9)


@each_predictor
def test_inputs_are_not_changed(make: Callable[[Features], AccuracyPredictor], known: tuple[Genomes, Values]) -> None:
    genomes, y = known[0].copy(), known[1].copy()
    predictor = make(FEATURES)
    predictor.fit(genomes, y)
    predictor.predict(genomes)
    assert np.array_equal(genomes, known[0])
    assert np.array_equal(y, known[1])


@each_predictor
def test_structure_is_learned(
    make: Callable[[Features], AccuracyPredictor], known: tuple[Genomes, Values], unseen: tuple[Genomes, Values]
) -> None:
    for features in (SPACE.encode, FEATURES):
        assert relative_error(make(features), known, unseen) < 0.35


@each_predictor
def test_nothing_is_learned_from_noise(make: Callable[[Features], AccuracyPredictor]) -> None:
    genomes = SPACE.sample(680, np.random.default_rng(3))
    noise = np.random.default_rng(4).normal(size=680)
    error = relative_error(make(FEATURES), (genomes[:80], noise[:80]), (genomes[80:], noise[80:]))
    assert 0.95 < error < 1.15


@each_predictor
def test_the_deviation_covers_the_error(
    make: Callable[[Features], AccuracyPredictor], known: tuple[Genomes, Values], unseen: tuple[Genomes, Values]
) -> None:
    predictor = make(FEATURES)
    predictor.fit(*known)
    mean, std = predictor.predict(unseen[0])
    within = np.mean(np.abs(mean - unseen[1]) <= 2 * std)
    assert 0.88 < within <= 1.0
    # A deviation far above the error would cover everything.
    assert np.sqrt(((mean - unseen[1]) ** 2).mean()) > 0.5 * std.mean()


@each_predictor
def test_few_rows_and_equal_values_are_enough(make: Callable[[Features], AccuracyPredictor]) -> None:
    genomes = SPACE.sample(6, np.random.default_rng(5))
    predictor = make(FEATURES)
    predictor.fit(genomes[:2], np.array([0.1, 0.2]))
    assert np.isfinite(predictor.predict(genomes)).all()
    predictor.fit(genomes, np.full(6, 0.3))
    assert predictor.predict(genomes)[0] == pytest.approx([0.3] * 6)


@each_predictor
def test_a_single_network_is_too_few(make: Callable[[Features], AccuracyPredictor]) -> None:
    with pytest.raises(ValueError, match="at least 2 evaluated networks, got 1"):
        make(FEATURES).fit(SPACE.sample(1, np.random.default_rng(0)), np.array([0.5]))


def test_structure_features_are_the_one_hots_and_the_logarithms_of_costs() -> None:
    genomes = SPACE.sample(20, np.random.default_rng(0))
    features = FEATURES(genomes)
    networks = [SPACE.lower(genome) for genome in genomes]
    assert features.dtype == np.float32
    assert np.array_equal(features[:, :-2], SPACE.encode(genomes))
    assert features[:, -2] == pytest.approx(np.log([network.macs() for network in networks]), rel=1e-6)
    assert features[:, -1] == pytest.approx(np.log([network.params() for network in networks]), rel=1e-6)


def test_knowing_the_cost_helps_when_few_networks_are_known(unseen: tuple[Genomes, Values]) -> None:
    errors = []
    for seed in range(5):
        genomes = SPACE.sample(20, np.random.default_rng(seed + 10))
        y = synthetic_accuracy(SPACE, genomes, noise=0.01, seed=seed)
        errors.append([relative_error(RidgePredictor(f), (genomes, y), unseen) for f in (FEATURES, SPACE.encode)])
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
def test_real_networks_are_ranked_better_than_by_cost(
    make: Callable[[Features], AccuracyPredictor], macro: tuple[Genomes, Values, Values]
) -> None:
    genomes, true, flops = macro
    taus = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(genomes))
        chosen, others = order[:100], order[100:]
        predictor = make(MACRO.encode)
        predictor.fit(genomes[chosen], true[chosen])
        mean, std = predictor.predict(genomes[others])
        taus.append(kendall_tau(mean, true[others]))
        assert taus[-1] > kendall_tau(flops[others], true[others]) + 0.15
        assert 0.85 < np.mean(np.abs(mean - true[others]) <= 2 * std) < 0.99
    # Measured with Bayesian ridge on one-hots: 0.78 to 0.86, median 0.85; cost alone 0.55.
    assert np.median(taus) > 0.8
