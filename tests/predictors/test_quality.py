from __future__ import annotations

import numpy as np
import pytest

from predictors.quality import LatencyError, kendall_tau, latency_error, mape_percent


def values(*numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(numbers, dtype=np.float64)


def test_latency_error_of_three_networks_by_hand() -> None:
    # Relative errors: 0 %, +10 %, -4 %; of the repetition: +1 %, 0 %, -1 %.
    first = values(1.0, 2.0, 3.0)
    error = latency_error(values(1.0, 2.2, 2.88), first, first, values(1.01, 2.0, 2.97))
    assert error.networks == 3
    assert error.mape_percent == pytest.approx(14 / 3)
    assert error.within_5_percent == pytest.approx(200 / 3)
    assert error.bias_percent == pytest.approx(2.0)
    assert error.spearman == pytest.approx(1.0)
    assert error.noise_floor_percent == pytest.approx(2 / 3)


def test_predictions_that_are_too_fast_have_a_negative_bias() -> None:
    error = latency_error(values(0.5, 1.0), *[values(1.0, 2.0)] * 3)
    assert error.bias_percent == pytest.approx(-50.0)
    assert error.mape_percent == pytest.approx(50.0)
    assert error.within_5_percent == 0.0


def test_spearman_of_three_networks_by_hand() -> None:
    # 1 - 6 (2² + 1² + 1²) / (3 (3² - 1))
    measured = values(1.0, 2.0, 3.0)
    assert latency_error(values(3.0, 1.0, 2.0), measured, measured, measured).spearman == pytest.approx(-0.5)


def error_of(**changes: float) -> LatencyError:
    """Return an error that keeps every promise, but for some changes."""
    kept = {"mape_percent": 1.4, "within_5_percent": 99.0, "bias_percent": -0.4, "spearman": 0.995}
    return LatencyError(**{"networks": 100, "noise_floor_percent": 0.8, **kept, **changes})  # type: ignore[arg-type]


def test_a_table_that_keeps_its_promises_falls_short_of_nothing() -> None:
    assert error_of().shortfalls == ()
    assert error_of(mape_percent=2.9, noise_floor_percent=2.0).shortfalls == ()
    assert error_of(mape_percent=1.6).shortfalls == ("MAPE above 1.50 %",)
    assert error_of(mape_percent=3.1, noise_floor_percent=2.0).shortfalls == ("MAPE above 3.00 %",)
    assert error_of(within_5_percent=98.0, bias_percent=0.6, spearman=0.98).shortfalls == (
        "fewer than 99 % within 5 %",
        "bias above 0.5 %",
        "Spearman below 0.99",
    )
    assert not error_of().too_noisy
    assert error_of(noise_floor_percent=1.6).too_noisy
    assert not error_of(noise_floor_percent=1.6, mape_percent=60.0).too_noisy, "noise is no excuse for anything"


def test_a_constant_ranks_nothing() -> None:
    same = values(1.0, 1.0, 1.0)
    assert latency_error(same, same, same, same).spearman == 0.0


def test_what_a_hundred_networks_prove_is_the_exact_binomial_bound() -> None:
    # All of n inside: the bound is the n-th root of 5 %.
    assert error_of(within_5_percent=100.0).within_5_percent_at_least == pytest.approx(100 * 0.05 ** (1 / 100))
    # 99 of 100: a share p at which one or none of a hundred outside has a probability of 5 %.
    share = error_of(within_5_percent=99.0).within_5_percent_at_least / 100
    assert share**100 + 100 * share**99 * (1 - share) == pytest.approx(0.05)
    assert error_of(within_5_percent=0.0).within_5_percent_at_least == 0.0


def test_errors_are_relative_to_what_was_measured() -> None:
    assert mape_percent(values(2.0), values(1.0)) == pytest.approx(100.0)
    assert mape_percent(values(1.0), values(2.0)) == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("predicted", "true", "tau"),
    [
        ((1, 2, 3), (10, 20, 30), 1.0),
        ((1, 2, 3), (30, 20, 10), -1.0),
        ((1, 2, 3), (1, 3, 2), 1 / 3),
        # A tie in one ranking: two pairs agree, of three in one and two in the other.
        ((1, 1, 2), (1, 2, 3), 2 / np.sqrt(2 * 3)),
        ((5, 5, 5), (1, 2, 3), 0.0),
        ((1, 2, 3), (5, 5, 5), 0.0),
    ],
)
def test_kendall_tau_by_hand(predicted: tuple[float, ...], true: tuple[float, ...], tau: float) -> None:
    assert kendall_tau(values(*predicted), values(*true)) == pytest.approx(tau)
