"""What a latency budget means: parsed, checked against what the space can reach, told whether it binds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nas.devices import Measurement
from predictors.latency import LatencyPredictor
from search_spaces.errors import InputError

Statistic = Literal["min", "p50", "p90"]
"""Which figure of running a budget is of: that of undisturbed runs, or a percentile of running back to back."""
STATISTICS: tuple[Statistic, ...] = ("min", "p50", "p90")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An upper bound on latency that at least one network of the space keeps.

    Attributes:
        limit_ms: the bound itself; None for none.
        at: which figure it is a bound on; all latencies here are of it.
        ratio: of that figure to the latency that the table predicts.
        reachable_ms: predicted latency of the fastest and the slowest network.
        margin: relative distance that predictions keep from the bound where a measurement follows: that of
            measurements at least, and nine of ten networks that the table was tested on are not slower.
        wide_margin: the same where none follows; all of those networks were not slower.
        noise: relative distance that measurements keep from the bound: of no network that was measured twice were the
            figures farther apart; for a percentile, twice the error of its ratio if that is larger.
    """

    limit_ms: float | None
    at: Statistic = "min"
    ratio: float = 1.0
    reachable_ms: tuple[float, float]
    margin: float
    wide_margin: float
    noise: float

    @property
    def binds(self) -> bool:
        """Whether the bound keeps any network out, as far as the slowest that was found tells."""
        return self.predicted_limit_ms < self.reachable_ms[1]

    @property
    def measured_limit_ms(self) -> float:
        """What a measured latency must not exceed, so that another measurement keeps the bound too."""
        return self._limit_ms / (1.0 + self.noise)

    @property
    def predicted_limit_ms(self) -> float:
        """What a predicted latency must not exceed; never below the fastest network, which is then the only hope."""
        return max(self._limit_ms / (1.0 + self.margin), self.reachable_ms[0])

    @property
    def unmeasured_limit_ms(self) -> float:
        """What a predicted latency must not exceed where nobody will measure it."""
        return self._limit_ms / (1.0 + self.wide_margin)

    @property
    def _limit_ms(self) -> float:
        return math.inf if self.limit_ms is None else self.limit_ms


def parse_statistic(text: str) -> Statistic:
    """Read the name of a statistic; raises `InputError` naming those there are."""
    for each in STATISTICS:
        if text == each:
            return each
    raise InputError(f"--budget-at is {', '.join(STATISTICS[:-1])} or {STATISTICS[-1]}, not {text!r}")


def measured_ms(measurement: Measurement, at: Statistic) -> float:
    """Return the figure of a measurement that a budget counts; a percentile needs a sustained run."""
    if at == "min":
        return measurement.latency_ms
    sustained = measurement.sustained
    assert sustained is not None, "a device left out the sustained run"
    return sustained.p50_ms if at == "p50" else sustained.p90_ms


def parse_budget(text: str | None, latency: LatencyPredictor, *, at: Statistic = "min") -> Budget:
    """Read a budget: milliseconds, or a share of the reachable range such as ``60%``; None is no bound.

    Raises:
        InputError: not a positive number, or below the fastest network of the space; the table does not tell the
            statistic.
    """
    ratio, error = 1.0, 0.0
    if at != "min":
        sustained = latency.sustained(at)
        ratio, error = sustained.ratio, sustained.mape_percent / 100.0
    noise = max(latency.repeat_margin, 2.0 * error)
    fastest, slowest = (end * ratio for end in (latency.cheapest()[0], latency.dearest()[0]))
    limit_ms = None if text is None else _limit_ms(text, fastest, slowest)
    if limit_ms is not None and limit_ms < fastest:
        raise InputError(
            f"no network was found that is predicted to meet {limit_ms:g} ms on {latency.table.device}: the space "
            f"reaches from {fastest:.4g} ms to {slowest:.4g} ms; raise --budget-ms to at least "
            f"{rounded_up(fastest * (1.0 + noise))}"
        )
    slower = latency.held_out_ratios() - 1.0
    margin = max(noise, (1.0 + latency.margin) * (1.0 + error) - 1.0)
    return Budget(
        limit_ms=limit_ms,
        at=at,
        ratio=ratio,
        reachable_ms=(fastest, slowest),
        margin=margin,
        wide_margin=max(margin, (1.0 + max(0.0, float(slower.max()))) * (1.0 + 2.0 * error) - 1.0),
        noise=noise,
    )


def _limit_ms(text: str, fastest: float, slowest: float) -> float:
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (percent and value > 100):
        raise InputError(f"budget {text!r} is not a number of milliseconds, such as 10, or a share from 0% to 100%")
    return fastest + (slowest - fastest) * value / 100 if percent else value


def rounded_up(value: float) -> str:
    """Return a text of four significant digits that is not below a positive value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    text = f"{math.ceil(value / step) * step:.4g}"
    return f"{float(text):.0f}" if value >= 1000.0 else text  # people do not type 3.197e+04
