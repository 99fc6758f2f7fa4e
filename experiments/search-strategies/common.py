"""What the parts of this study share: settings, folders, tables, where figures come from."""

from __future__ import annotations

import functools
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.study import draws, save_table  # noqa: E402

save = functools.partial(save_table, RESULTS)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """The settings, where the data are, and where unfinished work is kept."""

    config: dict[str, Any]
    data: Path
    work: Path

    @classmethod
    def load(cls, data: Path, work: Path) -> Study:
        """Read ``config.toml``."""
        return cls(tomllib.loads((HERE / "config.toml").read_text()), data, work)


def median_interval(values: Values) -> tuple[float, float, float]:
    """Return the median of ``float64[n]`` and its 95 % interval by bootstrap."""
    medians = np.median(values[draws(len(values))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)
