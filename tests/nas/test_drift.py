"""Figures of models that were visited in turn, on a machine that is now faster, now slower."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from nas.devices.drift import LEAST_MODELS, slowness

MODELS, ROUNDS = 100, 16
Values = npt.NDArray[np.float64]


def visited(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the models of visits: every round in another order."""
    return np.concatenate([rng.permutation(MODELS) for _ in range(ROUNDS)])


def figures(models: npt.NDArray[np.int64], times: Values) -> Values:
    """Return the lower quartile of every model."""
    return np.array([np.quantile(times[models == each], 0.25) for each in range(MODELS)])


def drifting(visits: int, rng: np.random.Generator) -> Values:
    """Return a machine's slowness: it wanders by a tenth within some hundred visits."""
    steps = np.interp(np.arange(visits), np.arange(0, visits, 50), rng.normal(0.0, 0.1, len(range(0, visits, 50))))
    return np.asarray(np.exp(steps), dtype=np.float64)


@pytest.mark.parametrize("seed", range(3))
def test_what_all_models_share_is_taken_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = visited(rng)
    own = rng.uniform(0.1, 10.0, MODELS)
    times = own[models] * drifting(len(models), rng) * np.exp(rng.normal(0.0, 0.01, len(models)))
    raw, steady = figures(models, times), figures(models, times / slowness(models, times))

    def spread(found: Values) -> float:
        return float(np.std(np.log(found / own)))

    assert spread(steady) < 0.4 * spread(raw)
    # What is reported stays the lower quartile of what was seen, in the middle of all models.
    assert np.median(steady / raw) == pytest.approx(1.0, abs=1e-3)


def test_what_a_model_does_alone_stays() -> None:
    rng = np.random.default_rng(0)
    models = visited(rng)
    times = rng.uniform(0.1, 10.0, MODELS)[models]
    odd = (models == 7) & (np.arange(len(models)) // MODELS % 2 == 1)
    times[odd] *= 1.5
    steady = times / slowness(models, times)
    assert steady[odd] / steady[(models == 7) & ~odd].mean() == pytest.approx(1.5)
    assert steady[models == 8] == pytest.approx(times[models == 8])


def test_few_models_are_left_as_they_are() -> None:
    rng = np.random.default_rng(0)
    models = np.tile(np.arange(LEAST_MODELS - 1), 8)
    assert slowness(models, rng.uniform(1.0, 2.0, len(models))).tolist() == [1.0] * len(models)
    assert slowness(np.zeros(1, dtype=np.int64), np.ones(1)).tolist() == [1.0]
