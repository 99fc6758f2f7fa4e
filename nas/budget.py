"""What a latency budget means: parsed, checked against what the space can reach, told whether it binds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from predictors.latency import LatencyPredictor
from search_spaces.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An upper bound on latency that at least one network of the space keeps.

    Attributes:
        limit_ms: the bound itself.
        reachable_ms: predicted latency of the fastest and the slowest network.
        margin: relative distance that predictions keep from the bound, from the table's held-out error.
        noise: relative distance that measurements keep from the bound, the table's noise floor.
    """

    limit_ms: float
    reachable_ms: tuple[float, float]
    margin: float
    noise: float

    @property
    def binds(self) -> bool:
        """Whether the bound keeps any network out, as far as the slowest that was found tells."""
        return self.predicted_limit_ms < self.reachable_ms[1]

    @property
    def measured_limit_ms(self) -> float:
        """What a measured latency must not exceed, so that another measurement keeps the bound too."""
        return self.limit_ms / (1.0 + self.noise)

    @property
    def predicted_limit_ms(self) -> float:
        """What a predicted latency must not exceed; never below the fastest network, which is then the only hope."""
        return max(self.limit_ms / (1.0 + self.margin), self.reachable_ms[0])


def parse_budget(text: str, latency: LatencyPredictor) -> Budget:
    """Read a budget: milliseconds, or a share of the reachable range such as ``60%``.

    Raises:
        InputError: not a positive number, or below the fastest network of the space.
    """
    fastest, slowest = latency.cheapest()[0], latency.dearest()[0]
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (percent and value > 100):
        raise InputError(f"budget {text!r} is not a number of milliseconds, such as 10, or a share from 0% to 100%")
    limit_ms = fastest + (slowest - fastest) * value / 100 if percent else value
    if limit_ms < fastest:
        raise InputError(
            f"no network was found that is predicted to meet {limit_ms:g} ms on {latency.table.device}: the space "
            f"reaches from {fastest:.4g} ms to {slowest:.4g} ms; raise --budget-ms to at least {_round_up(fastest)}"
        )
    noise = latency.table.error.noise_floor_percent / 100.0
    return Budget(limit_ms=limit_ms, reachable_ms=(fastest, slowest), margin=latency.margin, noise=noise)


def _round_up(value: float) -> str:
    """Return a text of four significant digits that is not below a positive value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / step) * step:.4g}"
