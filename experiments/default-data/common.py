"""What the parts of this study share: its settings, its runs, its results."""

from __future__ import annotations

import json
import platform
import shutil
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

from nas.data import ImageData
from nas.devices import Device, parse_device
from nas.run import Run
from predictors.latency import LatencyPredictor
from search_spaces.space import Genomes

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """The settings, and where runs are kept."""

    config: dict[str, Any]
    work: Path

    @classmethod
    def load(cls, work: Path) -> Study:
        """Read ``config.toml``."""
        return cls(tomllib.loads((HERE / "config.toml").read_text()), work)

    @property
    def device(self) -> Device:
        """What is measured on."""
        return parse_device(self.config["device"])

    def run(self, seed: int) -> Run:
        """Return a seed's run, trained and with a latency table; makes what is missing, the table once for all."""
        path = self.work / f"seed-{seed}"
        options = ["--run", path, "--seed", seed]
        if not (path / "supernet" / "training.json").exists():
            nas("train", *options, "--space", self.config["space"], "--data", self.config["data"])
        first = self.work / f"seed-{self.config['seeds'][0]}"
        if not (first / "luts").exists():
            nas("build-lut", "--run", first, "--seed", 0, "--device", self.config["device"])
        for part in ("luts", "blocks"):
            if not (path / part).exists():
                shutil.copytree(first / part, path / part)
        return Run.existing(path, first="nas train")

    def latency(self, run: Run) -> LatencyPredictor:
        """Return the calibrated predictor of a run."""
        return LatencyPredictor(run.space, run.latency_table(self.device))

    def copy(self, run: Run, name: str) -> Run:
        """Return a copy of a run, with a ledger of its own: what one strategy finds must not help another."""
        path = run.path.with_name(f"{run.path.name}-{name}")
        if not path.exists():
            shutil.copytree(run.path, path)
        return Run.existing(path, first="nas train")


def nas(*arguments: object) -> dict[str, Any]:
    """Run a command as a user would, in a process of its own, and return its JSON."""
    command = [sys.executable, "-m", "nas", *map(str, arguments), "--json"]
    say(" ".join(command[2:]))
    value: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return value


def say(text: str) -> None:
    """Tell how far the study is."""
    print(text, file=sys.stderr, flush=True)


def save(frame: pd.DataFrame, name: str) -> None:
    """Write a table of results."""
    RESULTS.mkdir(exist_ok=True)
    frame.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.6g")


def interval(values: Values, seed: int = 0) -> tuple[float, float, float]:
    """Return a mean and its 95 % interval by bootstrap over the rows of ``float64[n]``."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(10_000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def ids(run: Run, genomes: Genomes) -> list[str]:
    """Return the names of genomes ``int16[n, n_genes]``."""
    return [run.space.architecture(genome).id for genome in genomes]


def provenance(data: ImageData) -> dict[str, str]:
    """Return what the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False).stdout
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ("torch", "onnxruntime", "numpy", "scikit-learn", "pymoo", "pillow")
    return {
        "commit": commit.strip(),
        "cpu": cpu,
        "python": platform.python_version(),
        "data_hash": data.content_hash,
        **{name: version(name) for name in packages},
    }
