"""How good a prediction is: relative errors for latency, ranks for accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces.documents import document

Values = npt.NDArray[np.float64]


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
        noise_floor_percent: MAPE between two independent measurements of the same networks in the same run: no model
            can be shown to be better than this.
    """

    networks: int
    mape_percent: float
    within_5_percent: float
    bias_percent: float
    spearman: float
    noise_floor_percent: float


def latency_error(predicted: Values, measured: Values, repeated: Values) -> LatencyError:
    """Compare predictions with a measurement, and that measurement with a repetition; all ``float64[n]``, ms."""
    from scipy.stats import spearmanr

    relative = 100.0 * (predicted - measured) / measured
    return LatencyError(
        networks=len(measured),
        mape_percent=mape_percent(predicted, measured),
        within_5_percent=float(100.0 * np.mean(np.abs(relative) <= 5.0)),
        bias_percent=float(relative.mean()),
        spearman=float(spearmanr(predicted, measured).statistic),
        noise_floor_percent=mape_percent(repeated, measured),
    )


def mape_percent(predicted: Values, measured: Values) -> float:
    """Return the mean absolute percentage error of ``float64[n]`` against ``float64[n]``."""
    return float(100.0 * np.mean(np.abs(predicted - measured) / measured))


def kendall_tau(predicted: Values, true: Values) -> float:
    """Return Kendall's τ-b; 0 where either side is constant and so ranks nothing."""
    from scipy.stats import kendalltau

    if len(np.unique(predicted)) < 2 or len(np.unique(true)) < 2:
        return 0.0
    return float(kendalltau(predicted, true).statistic)
