"""What the parts of this study share: settings, folders, tables, where figures come from."""

from __future__ import annotations

import platform
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nas.devices import parse_device
from nas.files import write_atomic

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

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


def say(text: str) -> None:
    """Tell how far the study is."""
    print(text, file=sys.stderr, flush=True)


def save(frame: pd.DataFrame, name: str) -> None:
    """Write a table of results."""
    RESULTS.mkdir(exist_ok=True)
    write_atomic(RESULTS / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))


def median_interval(values: Values) -> tuple[float, float, float]:
    """Return the median of ``float64[n]`` and its 95 % interval by bootstrap."""
    medians = np.median(values[draws(len(values))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def draws(n: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return 2000 draws of `n` rows with replacement, ``int64[2000, n]``."""
    return np.random.default_rng(seed).integers(n, size=(2000, n))


def commit() -> str:
    """Return the commit that is checked out."""
    describe = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    return subprocess.run(describe, cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()


def provenance() -> None:
    """Write what the figures depend on besides settings and data."""
    packages = ("numpy", "scipy", "scikit-learn", "torch", "pymoo", "moocore", "optuna")
    found = {
        "commit": commit(),
        "cpu": parse_device("cpu").fingerprint().cpu_model,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
    save(pd.DataFrame({"what": found.keys(), "value": found.values()}), "provenance")
