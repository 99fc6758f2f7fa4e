"""Which networks are compared, and what each reaches when it is trained alone."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import Study, save

from experiments.scratch import train_alone
from experiments.study import nas
from nas.devices import parse_device
from nas.run import Run
from predictors.additive import AdditiveCost
from predictors.latency import LatencyPredictor
from search_spaces.space import Genomes


def choose(study: Study) -> None:
    """Draw random networks: some in narrow bands of predicted latency, others anywhere."""
    settings, space = study.config["networks"], study.space
    latency = _latency(study)
    low, high = latency.cheapest()[0], latency.dearest()[0]
    pool = space.unique(space.sample(100_000, np.random.default_rng(0)))
    pool = np.random.default_rng(1).permutation(pool)
    share = (latency.predict(pool) - low) / (high - low)
    groups: dict[str, Genomes] = {
        f"{middle:.0%}": pool[np.abs(share - middle) <= settings["band_width"] / 2][: settings["in_band"]]
        for middle in settings["bands"]
    }
    taken = {genome.tobytes() for genomes in groups.values() for genome in genomes}
    groups["elsewhere"] = np.array(
        [genome for genome in pool[: 10 * len(taken)] if genome.tobytes() not in taken][: settings["elsewhere"]]
    )
    assert all(
        len(genomes) == settings["elsewhere" if band == "elsewhere" else "in_band"] for band, genomes in groups.items()
    )
    figures = {name: AdditiveCost.of(space, count) for name, count in _COUNTS.items()}
    frames = [
        pd.DataFrame(
            {
                "id": [space.architecture(genome).id for genome in genomes],
                "band": band,
                "predicted_ms": latency.predict(genomes),
                **{name: figure.predict(genomes).astype(int) for name, figure in figures.items()},
                "genes": [" ".join(map(str, genome)) for genome in genomes.tolist()],
            }
        )
        for band, genomes in groups.items()
    ]
    save(pd.concat(frames), "networks")


_COUNTS = {"macs": lambda block: block.macs(), "params": lambda block: block.params()}


def _latency(study: Study) -> LatencyPredictor:
    """Return the predictor of a table that is built if it is not there yet; weights play no part in it."""
    path = study.work / "table"
    device = parse_device(study.config["device"])
    if not (path / "luts" / f"{device.slug}.json").exists():
        nas("train", "--run", path, "--space", study.config["space"], "--data", study.config["data"], "--steps", 20)
        nas("build-lut", "--run", path, "--device", study.config["device"])
    run = Run.existing(path, first="nas train")
    return LatencyPredictor(run.space, run.latency_table(device))


def scratch(study: Study) -> pd.DataFrame:
    """Train every network alone on as many images as a supernet sees; those in bands with several seeds."""
    rows = []
    first, *more = study.config["scratch_seeds"]
    for number, band in enumerate(study.networks["band"]):
        for seed in [first] if band == "elsewhere" else [first, *more]:
            name = f"{study.networks['id'][number]}, seed {seed}"
            rows += study.once(name, partial(_trained, study, number, seed))
    return pd.DataFrame(rows)


def _trained(study: Study, number: int, seed: int) -> list[dict[str, Any]]:
    spec = study.space.lower(study.genomes[number])
    with tempfile.TemporaryDirectory() as folder:
        row = train_alone(spec, study.data, study.training(seed), checkpoint=Path(folder) / "checkpoint.pt")
    return [{"id": study.networks["id"][number], "band": study.networks["band"][number], "seed": seed} | row]
