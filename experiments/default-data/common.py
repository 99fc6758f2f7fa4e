"""What the parts of this study share: its settings, its runs, its results."""

from __future__ import annotations

import functools
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.devices import Device, parse_device
from nas.network_latency import measure_networks
from nas.run import Run
from predictors.latency import LatencyPredictor
from search_spaces.space import Genomes

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.study import ConfiguredStudy, draws, nas, save_table  # noqa: E402

save = functools.partial(save_table, RESULTS)

Values = npt.NDArray[np.float64]


class Study(ConfiguredStudy):
    """The settings, and where runs are kept."""

    @property
    def device(self) -> Device:
        """What is measured on."""
        return parse_device(self.config["device"])

    def run(self, seed: int) -> Run:
        """Return a seed's run, trained and with a latency table; makes what is missing, the table once for all."""
        path = self.work / f"seed-{seed}"
        options = ["--run", path, "--seed", seed]
        if not (path / "supernet" / "training.json").exists():
            recipe = self.recipe("training", self.config["training"])
            nas("train", *options, "--space", self.config["space"], "--data", self.config["data"], "--config", recipe)
        first = self.work / f"seed-{self.config['seeds'][0]}"
        if not (first / "luts" / f"{self.device.slug}.json").exists():
            nas("build-lut", "--run", first, "--seed", 0, "--device", self.config["device"])
        for part in ("luts", "blocks"):
            _copy(first / part, path / part)
        return Run.existing(path, first="nas train")

    def latency(self, run: Run) -> LatencyPredictor:
        """Return the calibrated predictor of a run."""
        return LatencyPredictor(run.space, run.latency_table(self.device))

    def copy(self, run: Run, name: str) -> Run:
        """Return a copy of a run with an empty ledger: what one contender evaluates must not help another."""
        path = run.path.with_name(f"{run.path.name}-{name}")
        _copy(run.path, path)
        return Run.existing(path, first="nas train")


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, but for ledgers and fronts, whole or not at all."""
    if target.exists():
        return
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, ignore=shutil.ignore_patterns("ledger.db*", "front.json", "search.json", ".lock"))
    draft.rename(target)


def bootstrap(n_rows: int, statistic: Callable[[npt.NDArray[np.int64]], float]) -> tuple[float, float, float]:
    """Return a statistic of rows ``int64[n]`` and its 95 % interval over 2000 draws of the rows."""
    low, high = np.quantile([statistic(rows) for rows in draws(n_rows)], [0.025, 0.975])
    return float(statistic(np.arange(n_rows))), float(low), float(high)


def measured_ms(study: Study, run: Run, genomes: Genomes) -> Values:
    """Return the latency of whole networks ``int16[n, n_genes]`` by the protocol of the table, ``float64[n]``."""
    networks = {run.space.architecture(genome).id: run.space.lower(genome) for genome in genomes}
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_networks(run.block_cache(), networks, study.device, work_dir=Path(folder), seed=99)
    return np.array([measurement.latency_ms for measurement in measured])


def ids(run: Run, genomes: Genomes) -> list[str]:
    """Return the names of genomes ``int16[n, n_genes]``."""
    return [run.space.architecture(genome).id for genome in genomes]
