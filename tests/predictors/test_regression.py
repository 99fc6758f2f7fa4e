"""The contract of regressions. A new one in `REGRESSIONS` joins by its name."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.regression.base import FeatureGroup, Regression, Scaling
from predictors.regression.chosen import REGRESSIONS, ChosenRegression
from predictors.regression.warp import Warp, fit_warp
from search_spaces.errors import InputError

Values = npt.NDArray[np.float64]


def data(n: int, *, seed: int, bend: float, noise: float = 0.05) -> tuple[Values, Values]:
    """Return features ``float64[n, 12]`` and values: a plane, bent by `bend`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12))
    y = x[:, :4] @ [1.0, -0.5, 0.3, 0.2] + bend * np.abs(x[:, 0] + x[:, 1]) + rng.normal(0, noise, n)
    return x, 70.0 + 3.0 * y


@pytest.fixture(params=sorted(REGRESSIONS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fitted(name: str, x: Values, y: Values) -> Regression:
    scaling = Scaling.of(x)
    return REGRESSIONS[name](scaling(x), y, scaling, 0)


def test_shapes_and_equal_results_for_equal_seeds(name: str) -> None:
    x, y = data(60, seed=0, bend=0.5)
    scaling = Scaling.of(x)
    first, second = fitted(name, x, y), fitted(name, x, y)
    unseen = scaling(data(30, seed=1, bend=0.5)[0])
    assert first.mean(unseen).shape == first.std(unseen).shape == (30,)
    assert first.draw(unseen, 7, np.random.default_rng(0)).shape == (7, 30)
    assert (first.std(unseen) >= 0).all()
    assert first.noise > 0
    np.testing.assert_array_equal(first.mean(unseen), second.mean(unseen))
    one, other = (each.draw(unseen, 3, np.random.default_rng(0)) for each in (first, second))
    np.testing.assert_array_equal(one, other)


def test_draws_have_the_mean_and_the_deviation_that_are_told(name: str) -> None:
    x, y = data(40, seed=0, bend=0.5)
    regression = fitted(name, x, y)
    unseen = Scaling.of(x)(data(50, seed=1, bend=0.5)[0])
    draws = regression.draw(unseen, 4000, np.random.default_rng(0))
    std = regression.std(unseen)
    np.testing.assert_allclose(draws.mean(axis=0), regression.mean(unseen), atol=0.1 * std.max())
    np.testing.assert_allclose(draws.std(axis=0), std, rtol=0.3, atol=0.05 * std.max())


def test_a_draw_is_one_function_and_not_noise(name: str) -> None:
    x, y = data(40, seed=0, bend=0.5)
    regression = fitted(name, x, y)
    twice = np.repeat(Scaling.of(x)(data(20, seed=1, bend=0.5)[0]), 2, axis=0)
    draws = regression.draw(twice, 50, np.random.default_rng(0))
    spread = draws.std(axis=0).mean()
    assert np.abs(draws[:, ::2] - draws[:, 1::2]).max() < 0.02 * spread


def test_more_rows_leave_less_open(name: str) -> None:
    few, many = data(30, seed=0, bend=0.3), data(400, seed=0, bend=0.3)
    unseen = data(100, seed=1, bend=0.3)[0]
    stds = [fitted(name, *rows).std(Scaling.of(rows[0])(unseen)).mean() for rows in (few, many)]
    assert stds[1] < 0.7 * stds[0]


def test_a_plane_is_learned_and_constants_are_kept(name: str) -> None:
    x, y = data(60, seed=0, bend=0.0)
    unseen, true = data(200, seed=1, bend=0.0, noise=0.0)
    regression = fitted(name, x, y)
    assert np.sqrt(((regression.mean(Scaling.of(x)(unseen)) - true) ** 2).mean()) < 0.35 * true.std()
    flat = fitted(name, x, np.full(60, 0.3))
    assert flat.mean(Scaling.of(x)(unseen)) == pytest.approx([0.3] * 200)
    alike = fitted(name, np.ones((5, 3)), np.arange(5.0))
    assert alike.mean(np.empty((2, 0))) == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize("name", ["gaussian-process", "mlp-ensemble", "boosting"])
def test_what_is_bent_is_learned_better_than_by_a_plane(name: str) -> None:
    x, y = data(300, seed=0, bend=1.5)
    unseen, true = data(300, seed=1, bend=1.5, noise=0.0)
    errors = [((fitted(each, x, y).mean(Scaling.of(x)(unseen)) - true) ** 2).mean() for each in (name, "ridge")]
    assert errors[0] < 0.7 * errors[1]


def test_scaling_leaves_out_what_never_varies() -> None:
    x = np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 2.0]])
    apart = Scaling.of(x, [FeatureGroup(1), FeatureGroup(1), FeatureGroup(1, coarse=True)])
    np.testing.assert_allclose(apart(x), [[-1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_allclose(apart(np.array([[2.0, 99.0, 4.0]])), [[0.0, 3.0]])
    assert apart.groups == (slice(0, 1), slice(1, 2))
    assert apart.coarse == (False, True)


def test_a_group_has_a_length_of_one_however_wide_it_is() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 9)) * np.arange(9)  # the first column never varies
    scaling = Scaling.of(x, [FeatureGroup(3), FeatureGroup(0), FeatureGroup(6)])
    assert scaling.groups == (slice(0, 2), slice(2, 8))
    for group in scaling.groups:
        assert np.square(scaling(x)[:, group]).sum(axis=1).mean() == pytest.approx(1.0)


def test_a_group_that_says_nothing_is_left_aside(name: str) -> None:
    # Three columns decide; thirty more, as a group of their own, do not.
    rng = np.random.default_rng(0)
    told, noise = rng.normal(size=(240, 3)), rng.normal(size=(240, 30))
    y = told @ [1.0, -1.0, 0.5] + rng.normal(0, 0.05, 240)
    errors = []
    for groups in ([FeatureGroup(3), FeatureGroup(30)], [FeatureGroup(33)]):
        chosen = ChosenRegression([name])
        x = np.concatenate([told, noise], axis=1)
        chosen.fit(x[:40], y[:40], groups)
        errors.append(((chosen.mean(x[40:]) - y[40:]) ** 2).mean())
    assert errors[0] < 0.5 * errors[1]


def test_the_plainest_regression_that_is_not_clearly_worse_is_chosen() -> None:
    straight, bent = ChosenRegression(), ChosenRegression()
    straight.fit(*data(150, seed=0, bend=0.0))
    assert straight.chosen == "ridge"
    bent.fit(*data(150, seed=0, bend=2.0))
    assert bent.chosen != "ridge"
    assert set(bent.held_out_tau) == set(REGRESSIONS)
    assert bent.held_out_tau[bent.chosen] > bent.held_out_tau["ridge"] + 0.1


def test_the_choice_is_made_again_only_when_rows_have_grown() -> None:
    chosen = ChosenRegression()
    x, y = data(200, seed=0, bend=2.0)
    chosen.fit(x[:10], y[:10])
    assert chosen.held_out_tau == {}, "too few to choose by"
    chosen.fit(x[:100], y[:100])
    first = dict(chosen.held_out_tau)
    chosen.fit(x[:120], y[:120])
    assert chosen.held_out_tau == first
    chosen.fit(x, y)
    assert chosen.held_out_tau != first


def test_one_name_is_no_choice_and_an_unknown_one_is_refused() -> None:
    only = ChosenRegression(["boosting"])
    only.fit(*data(100, seed=0, bend=0.0))
    assert only.chosen == "boosting"
    assert only.held_out_tau == {}
    with pytest.raises(InputError, match="unknown regression 'rigde'; did you mean 'ridge'"):
        ChosenRegression(["rigde"])


@pytest.mark.parametrize("sign", [1, -1])
def test_values_that_approach_a_bound_are_learned_on_a_scale_that_has_none(sign: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(260, 6))
    y = sign * (90.0 - 5.0 * np.exp(-(x @ [0.5, 0.3, -0.3, 0.2, 0.0, 0.0]) + rng.normal(0, 0.02, 260)))
    scaling = Scaling.of(x[:60])
    warp = fit_warp(scaling(x[:60]), y[:60], scaling)
    assert warp.sign == sign
    plain = fitted("ridge", x[:60], y[:60]).mean(scaling(x[60:]))
    chosen = ChosenRegression(["ridge"])
    chosen.fit(x[:60], y[:60])
    errors = [((mean - y[60:]) ** 2).mean() for mean in (chosen.mean(x[60:]), plain)]
    assert errors[0] < 0.3 * errors[1]
    mean, std = chosen.predict(x[60:], of_evaluation=True)
    within = np.abs(mean - y[60:]) <= 2 * std
    assert 0.8 < within.mean() < 0.995


def test_values_without_a_bound_stay_as_they_are() -> None:
    x, y = data(60, seed=0, bend=0.0)
    scaling = Scaling.of(x)
    assert fit_warp(scaling(x), y, scaling) == Warp()
    assert fit_warp(scaling(x), np.full(60, 0.3), scaling) == Warp()


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=20, unique=True), st.sampled_from([1, -1]))
def test_a_warp_keeps_order_and_has_a_way_back(values: list[float], sign: int) -> None:
    y = np.sort(np.array(values))
    spread = float(np.ptp(y))
    warp = Warp(sign, sign * float((sign * y).max() + 0.1 * spread), 10.0 * spread)
    z = warp(y)
    assert (np.diff(z) >= 0.0).all()
    np.testing.assert_allclose(warp.back(z), y, atol=1e-9 * max(1.0, np.abs(y).max()))
    assert np.isfinite(warp.back(np.array([-1e4, 0.0, 1e4]))).all(), "far from the values, too"
    assert (warp.slope(z) > 0.0).all()
