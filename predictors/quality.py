"""How good a prediction is: relative errors for latency, ranks for accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces.documents import document

Values = npt.NDArray[np.float64]

PROMISED_MAPE_PERCENT = 1.5
"""Mean error of a calibrated table on networks that it was not fitted to, where the noise lets one see it."""


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyError:
    """Error of predicted against measured latencies of whole networks.

    Attributes:
        networks: how many were compared.
        mape_percent: mean absolute error relative to the measured value.
        within_5_percent: share of networks predicted within 5 % of the measured value, in percent.
        bias_percent: mean signed relative error; positive when predictions are too slow.
        spearman: rank correlation.
        noise_floor_percent: MAPE between two independent measurements of the same networks in the same run: about what
            a perfect prediction would show against one of them, and half of it against their mean.
    """

    networks: int
    mape_percent: float
    within_5_percent: float
    bias_percent: float
    spearman: float
    noise_floor_percent: float

    @property
    def within_5_percent_at_least(self) -> float:
        """What the share is among all networks, in percent, with 95 % confidence: the exact binomial bound."""
        from scipy.stats import beta

        inside = round(self.networks * self.within_5_percent / 100.0)
        return float(100.0 * beta.ppf(0.05, inside, self.networks - inside + 1)) if inside else 0.0

    @property
    def allowed_mape_percent(self) -> float:
        """What a table of ours promises, given the noise that its error is seen through."""
        return max(PROMISED_MAPE_PERCENT, 1.5 * self.noise_floor_percent)

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Which promises are not kept; empty if all are."""
        promises = (
            (self.mape_percent <= self.allowed_mape_percent, f"MAPE above {self.allowed_mape_percent:.2f} %"),
            (self.within_5_percent >= 99.0, "fewer than 99 % within 5 %"),
            (abs(self.bias_percent) <= 0.5, "bias above 0.5 %"),
            (self.spearman >= 0.99, "Spearman below 0.99"),
        )
        return tuple(text for kept, text in promises if not kept)

    @property
    def too_noisy(self) -> bool:
        """Whether what is missed may be the measurements' fault: the mean error, which allows for noise, never is."""
        return self.noise_floor_percent > PROMISED_MAPE_PERCENT and self.mape_percent <= self.allowed_mape_percent


def latency_error(predicted: Values, measured: Values, first: Values, second: Values) -> LatencyError:
    """Compare predictions with measurements, and two sessions of networks with each other.

    Args:
        predicted: ``float64[n]``, ms.
        measured: ``float64[n]``, ms.
        first: one session of networks that were measured twice, ``float64[m]``, ms.
        second: the other session.
    """
    from scipy.stats import spearmanr

    relative = 100.0 * (predicted - measured) / measured
    return LatencyError(
        networks=len(measured),
        mape_percent=mape_percent(predicted, measured),
        within_5_percent=float(100.0 * np.mean(np.abs(relative) <= 5.0)),
        bias_percent=float(relative.mean()),
        spearman=0.0 if _ranks_nothing(predicted, measured) else float(spearmanr(predicted, measured).statistic),
        noise_floor_percent=mape_percent(second, first),
    )


def mape_percent(predicted: Values, measured: Values) -> float:
    """Return the mean absolute percentage error of ``float64[n]`` against ``float64[n]``."""
    return float(100.0 * np.mean(np.abs(predicted - measured) / measured))


def kendall_tau(predicted: Values, true: Values) -> float:
    """Return Kendall's τ-b; 0 where either side is constant and so ranks nothing."""
    from scipy.stats import kendalltau

    if _ranks_nothing(predicted, true):
        return 0.0
    return float(kendalltau(predicted, true).statistic)


def _ranks_nothing(one: Values, other: Values) -> bool:
    return len(np.unique(one)) < 2 or len(np.unique(other)) < 2


def standard_error(accuracy: float, n_images: int) -> float:
    """Return the binomial standard error of an accuracy in 0..1 counted on `n_images`.

    Two successes and two failures are added (Agresti and Coull 1998): a perfect score on few images is not certain.
    """
    share = (accuracy * n_images + 2.0) / (n_images + 4.0)
    return math.sqrt(share * (1.0 - share) / (n_images + 4.0))
