"""Runs this study: ``python experiments/supernet-photos/run.py --cifar10 DIR --trashnet DIR [PART...]``; see README.md.

Every part writes CSV files into results/. A part whose files are there is not run again, so a study that was stopped
goes on; delete results/ and the folder of --work to start over.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from rivals import compare  # noqa: E402

from experiments.study import ConfiguredStudy, Rows, nas, provenance, run_parts, save_table  # noqa: E402
from nas.fitting import images_seen  # noqa: E402
from nas.run import Run  # noqa: E402
from nas.sandwich import LARGEST, Sandwich  # noqa: E402
from search_spaces.space import Genomes  # noqa: E402

save = functools.partial(save_table, RESULTS)


@dataclass(frozen=True)
class Study(ConfiguredStudy):
    """The settings, where runs are kept, and where photos are."""

    photos: Mapping[str, Path | None] = field(default_factory=dict)

    def train(self, name: str, data: str, seed: int, *options: object) -> Run:
        """Train a supernet on photos as a user would, and return its run."""
        folder = self.photos[data]
        if folder is None:
            raise SystemExit(f"--{data} must name the folder of its photos")
        own = ("steps", "warmup_steps", "head_warmup_steps") if "--init" in options else ("steps", "warmup_steps")
        settings = self.config["recipe"] | {key: self.config[data][key] for key in own}
        recipe = self.recipe(name, settings)
        path = self.work / name
        # Which returns at once if that is trained, and refuses if it is trained with other settings.
        nas("train", "--run", path, "--space", self.config["space"], "--data", f"folder:{folder}",
            "--config", recipe, "--seed", seed, *options)  # fmt: skip
        return Run.existing(path, first="nas train")


def tested(run: Run, genomes: Genomes) -> float:
    """Return the mean accuracy of networks with inherited weights on the test split."""
    return float(run.evaluator().evaluate_on_test(genomes).mean())


def cifar10(study: Study) -> None:
    """Train a supernet on CIFAR-10; tell of its ends and of random networks."""
    run = study.train("cifar10", "cifar10", 0)
    summary = run.evaluator().summary()
    sandwich = Sandwich(run.space, seed=0)
    largest = np.stack([sandwich.subnets(step)[LARGEST] for step in range(sandwich.cycle)])
    record = run.require_supernet()
    row = {
        "seconds": record.seconds,
        "images_seen": images_seen(record.trained, run.load_data()),
        "largest": summary.largest,
        "random": summary.random,
        "smallest": summary.smallest,
        "validation_images": summary.images,
        "largest_test": tested(run, largest),
        "random_test": tested(run, run.space.sample(study.config["networks"], np.random.default_rng(0))),
    }
    save(pd.DataFrame([row]), "cifar10")


def front(study: Study) -> None:
    """Search inside some budgets on CIFAR-10's supernet; train rivals of the same latency alone."""
    save(pd.DataFrame(compare(study, study.train("cifar10", "cifar10", 0))), "front")


def trashnet(study: Study) -> None:
    """Train supernets on TrashNet for as many steps, from the one of CIFAR-10 and from random weights."""
    started = study.work / "cifar10"
    rows: Rows = []
    for seed in study.config["trashnet"]["seeds"]:
        for start, options in (("CIFAR-10", ("--init", started)), ("random weights", ())):
            make = functools.partial(_started, study, start, seed, *options)
            rows += study.once(f"trashnet from {start}, seed {seed}", make)
    save(pd.DataFrame(rows), "trashnet")


def _started(study: Study, start: str, seed: int, *options: object) -> Rows:
    run = study.train(f"trashnet-{start.replace(' ', '-').lower()}-{seed}", "trashnet", seed, *options)
    summary, record = run.evaluator().summary(), run.require_supernet()
    networks = run.space.sample(study.config["networks"], np.random.default_rng(0))
    return [
        {
            "start": start,
            "seed": seed,
            "seconds": record.seconds,
            "largest": summary.largest,
            "random": summary.random,
            "smallest": summary.smallest,
            "validation_images": summary.images,
            "random_test": tested(run, networks),
            "test_images": len(run.load_data().split("test").labels),
        }
    ]


def origin(study: Study) -> None:
    """Say what made the figures."""
    del study
    save(provenance(["torch", "numpy", "onnxruntime"], threads=str(torch.get_num_threads())), "provenance")


PARTS: dict[str, tuple[str, Callable[[Study], None]]] = {
    "provenance": ("provenance.csv", origin),
    "cifar10": ("cifar10.csv", cifar10),
    "trashnet": ("trashnet.csv", trashnet),
    "front": ("front.csv", front),
}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, help="Folder of CIFAR-10's photos: train/ and test/, by class.")
    parser.add_argument("--trashnet", type=Path, help="Folder of TrashNet's photos, by class.")
    parser.add_argument("--work", type=Path, default=Path("runs/supernet-photos"), help="Where runs are kept.")

    def load(arguments: argparse.Namespace) -> Study:
        return dataclasses.replace(
            Study.load(HERE, arguments.work),
            photos={name: getattr(arguments, name) for name in ("cifar10", "trashnet")},
        )

    run_parts(PARTS, RESULTS, parser, load)


if __name__ == "__main__":
    main()
