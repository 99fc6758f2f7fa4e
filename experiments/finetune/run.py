"""Runs this study: ``python experiments/finetune/run.py --cifar10 DIR --trashnet DIR [PART...]``; see README.md.

Every part writes a CSV file into results/. A part whose file is there is not run again, and what a part has trained is
kept in the folder of --work; delete both to start over.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.scratch import train_alone  # noqa: E402
from experiments.study import ConfiguredStudy, Rows, nas, provenance, run_parts, save_table  # noqa: E402
from nas.devices import ModelFile, parse_device  # noqa: E402
from nas.evaluate import SubnetEvaluator, network_accuracy  # noqa: E402
from nas.export.answers import Labelled, torch_logits  # noqa: E402
from nas.export.int8 import MOST_LOST, quantise  # noqa: E402
from nas.files import sha256_file  # noqa: E402
from nas.finetune import FinetuneSettings, finetune_settings, finetune_subnet, load_finetuned  # noqa: E402
from nas.front import Candidate  # noqa: E402
from nas.lut_plan import whole_network  # noqa: E402
from nas.onnx_export import export_network  # noqa: E402
from nas.quantization import quantized  # noqa: E402
from nas.run import Run  # noqa: E402
from nas.supernet import Network  # noqa: E402
from predictors.balanced import evenly_spaced  # noqa: E402
from search_spaces.catalogue import find_space  # noqa: E402
from search_spaces.language import NetworkSpace  # noqa: E402
from search_spaces.spec import NetworkSpec  # noqa: E402

save = functools.partial(save_table, RESULTS)


@dataclass(frozen=True)
class Study(ConfiguredStudy):
    """The settings, where runs are kept, and where photos are."""

    photos: Mapping[str, Path | None] = field(default_factory=dict)

    def supernet(self, name: str, seed: int) -> Run:
        """Return the run of a supernet, trained as a user would."""
        settings = self.config[name]
        path = self.work / f"{name}-{seed}"
        options: list[object] = ["--space", settings["space"], "--data", self._data(settings["data"]), "--seed", seed]
        if "recipe" in settings:
            options += ["--config", self.recipe(name, settings["recipe"])]
        nas("train", "--run", path, *options)
        return Run.existing(path, first="nas train")

    def _data(self, name: str) -> str:
        if name == "clutter":
            return name
        if (folder := self.photos[name]) is None:
            raise SystemExit(f"--{name} must name the folder of its photos")
        return f"folder:{folder}"

    def runs(self, name: str) -> Iterator[tuple[int, Run]]:
        """Yield the seeds of a supernet with its runs."""
        for seed in self.config[name]["seeds"]:
            yield seed, self.supernet(name, seed)


def networks(space: NetworkSpace, count: int) -> list[Candidate]:
    """Return random networks of a space, evenly spaced in multiply-accumulates."""
    genomes = space.sample(64, np.random.default_rng(0))
    chosen = evenly_spaced(np.array([float(space.lower(each).macs()) for each in genomes]), count)
    return [_candidate(space, genomes[row].tolist()) for row in chosen]


def _candidate(space: NetworkSpace, genes: list[int]) -> Candidate:
    spec = space.lower(np.array(genes, dtype=np.int16))
    return Candidate(
        id=space.architecture(np.array(genes, dtype=np.int16)).id,
        genes=tuple(genes),
        validation_accuracy=0.0,
        validation_standard_error=0.0,
        predicted_latency_ms=0.0,
        measured_latency_ms=None,
        params=spec.params(),
        macs=spec.macs(),
    )


def _spec(space: NetworkSpace, network: Candidate) -> NetworkSpec:
    return space.lower(np.array(network.genes, dtype=np.int16))


def tuned(
    study: Study, name: str, seed: int, run: Run, evaluator: SubnetEvaluator, network: Candidate, **changes: Any
) -> Rows:
    """Train a network further; return a row of figures. Reads the test split twice."""
    settings = finetune_settings(run.require_supernet().trained, **changes)
    key = "-".join([name, str(seed), network.id, *(str(each) for each in changes.values())])

    def make() -> Rows:
        folder = study.work / "tuned" / key
        record = finetune_subnet(evaluator, network, settings, directory=folder)
        spec = _spec(run.space, network)
        found = load_finetuned(folder, spec, genes=network.genes, supernet_hash=evaluator.supernet_hash).network
        return [
            {
                **_about(name, seed, network),
                **_told(settings),
                "before": record.before,
                "after": record.after,
                "after_in_floats": record.after_in_floats,
                "test_before": network_accuracy(evaluator.calibrated(spec), evaluator.data, "test"),
                "test": network_accuracy(found, evaluator.data, "test"),
                "images_seen": record.images_seen,
                "seconds": record.seconds,
            }
        ]

    return study.once(key, make)


def _about(name: str, seed: int, network: Candidate) -> dict[str, Any]:
    return {"supernet": name, "seed": seed, "network": network.id, "macs": network.macs, "params": network.params}


def _told(settings: FinetuneSettings) -> dict[str, Any]:
    training = settings.training
    return {
        "steps": training.steps,
        "norms": settings.norms,
        "precision": settings.precision,
        "learning_rate": training.peak_learning_rate,
        "distillation": settings.distillation,
    }


def sweep(study: Study) -> None:
    """Train networks of `tiny` further by every combination of settings."""
    rows: Rows = []
    settings = study.config["sweep"]
    for seed, run in study.runs("tiny"):
        evaluator, trained = run.evaluator(), run.require_supernet().trained
        for network in networks(run.space, study.config["networks"]):
            for norms in settings["norms"]:
                for share in settings["learning_rates"]:
                    for distillation in settings["distillation"]:
                        rows += tuned(
                            study, "tiny", seed, run, evaluator, network,
                            steps=study.config["tiny"]["steps"], norms=norms, distillation=distillation,
                            learning_rate=share * trained.peak_learning_rate,
                        )  # fmt: skip
    save(pd.DataFrame(rows), "sweep")


def lengths(study: Study) -> None:
    """Train networks of `tiny` further by the defaults, and from scratch, for several lengths."""
    rows: Rows = []
    for seed, run in study.runs("tiny"):
        evaluator = run.evaluator()
        for network in networks(run.space, study.config["networks"]):
            for steps in study.config["lengths"]["steps"]:
                rows += [row | {"from": "inherited"} for row in tuned(
                    study, "tiny", seed, run, evaluator, network, steps=steps
                )]  # fmt: skip
                rows += from_scratch(study, "tiny", seed, run, evaluator, network, steps)
    save(pd.DataFrame(rows), "lengths")


def photos(study: Study) -> None:
    """The same on CIFAR-10 for one length, with and without the largest subnet's answers."""
    rows: Rows = []
    steps = study.config["cifar"]["steps"]
    for seed, run in study.runs("cifar"):
        evaluator = run.evaluator()
        for network in networks(run.space, study.config["networks"]):
            rows += from_scratch(study, "cifar", seed, run, evaluator, network, steps)
            for distillation in study.config["sweep"]["distillation"]:
                rows += [row | {"from": "inherited"} for row in tuned(
                    study, "cifar", seed, run, evaluator, network, steps=steps, distillation=distillation
                )]  # fmt: skip
    save(pd.DataFrame(rows), "photos")


def from_scratch(
    study: Study, name: str, seed: int, run: Run, evaluator: SubnetEvaluator, network: Candidate, steps: int
) -> Rows:
    """Train a network from random weights with the supernet's recipe; reads the test split once."""
    config = run.require_supernet().trained.lasting(steps)

    def make() -> Rows:
        with tempfile.TemporaryDirectory() as folder:
            found = train_alone(
                _spec(run.space, network), evaluator.data, config, checkpoint=Path(folder) / "checkpoint.pt"
            )
        return [
            {
                **_about(name, seed, network),
                "steps": steps,
                "after": found["validation"],
                "test": found["test"],
                "images_seen": found["images_seen"],
                "seconds": found["seconds"],
                "from": "scratch",
            }
        ]

    return study.once(f"{name}-{seed}-{network.id}-scratch-{steps}", make)


def int8(study: Study) -> None:
    """Quantise networks of some supernets, as they are and after training against the rounding of 8 bits."""
    rows: Rows = []
    for name in study.config["int8"]["supernets"]:
        for seed, run in study.runs(name):
            evaluator = run.evaluator()
            for network in networks(run.space, study.config["networks_int8"]):
                rows += study.once(
                    f"{name}-{seed}-{network.id}-quantised",
                    functools.partial(_quantised, name, seed, run.space, evaluator, network, "inherited", None),
                )
            for network in networks(run.space, study.config["networks"]):
                for precision in ("fp32", "int8") if (steps := study.config[name]["steps"]) else ():
                    tuned(study, name, seed, run, evaluator, network, steps=steps, precision=precision)
                    folder = study.work / "tuned" / "-".join([name, str(seed), network.id, str(steps), precision])
                    found = load_finetuned(
                        folder, _spec(run.space, network), genes=network.genes, supernet_hash=evaluator.supernet_hash
                    )
                    rows += study.once(
                        f"{name}-{seed}-{network.id}-quantised-{precision}",
                        functools.partial(
                            _quantised,
                            name,
                            seed,
                            run.space,
                            evaluator,
                            network,
                            f"fine-tuned {precision}",
                            found.network,
                        ),
                    )
    save(pd.DataFrame(rows), "int8")


def _quantised(
    name: str,
    seed: int,
    space: NetworkSpace,
    evaluator: SubnetEvaluator,
    network: Candidate,
    weights: str,
    given: Network | None,
) -> Rows:
    """Return accuracies of a network in floats and in 8 bits, with the worst operators in floats if that is needed."""
    found = given or evaluator.calibrated(_spec(space, network))
    split = evaluator.data.split("validation")
    images = evaluator.data.normalise(split.images)
    validation = Labelled(images, split.labels, torch_logits(found, images))
    model = export_network(found)
    row = {**_about(name, seed, network), "weights": weights, "floats": validation.accuracy(validation.logits)}
    whole = quantise(model, evaluator.calibration_images, validation, most_lost=1.0)
    row |= {"int8": validation.accuracy(whole.logits), "agreement": validation.agreement(whole.logits)}
    if row["floats"] - row["int8"] > MOST_LOST:
        kept = quantise(model, evaluator.calibration_images, validation, most_lost=MOST_LOST)
        row |= {"int8_with_floats": validation.accuracy(kept.logits), "operators_in_floats": len(kept.in_floats)}
    return [row]


def speed(study: Study) -> None:
    """Measure random networks in floats and in 8 bits, interleaved, twice; an idle machine is wanted."""
    rows: Rows = []
    settings, device = study.config["speed"], parse_device("cpu")
    for name in settings["spaces"]:
        space = find_space(name, channels=3, classes=10)
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for network in networks(space, settings["networks"]):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    in_floats = export_network(Network(_spec(space, network)).eval())
                for precision, model in (("fp32", in_floats), ("int8", quantized(in_floats))):
                    path = Path(folder) / f"{network.id}-{precision}.onnx"
                    path.write_bytes(model.SerializeToString())
                    files.append(whole_network(ModelFile(path.stem, path, sha256_file(path))))
            for repeat in range(settings["repeats"]):
                run = device.measure(files, spread_s=5.0, seed=repeat, work_dir=Path(folder) / f"measured-{repeat}")
                rows += [
                    {"space": name, "repeat": repeat, "network": network, "precision": precision,
                     "latency_ms": each.latency_ms}
                    for file, each in zip(files, run.measurements, strict=True)
                    for network, precision in [file.id.split("-")]
                ]  # fmt: skip
    save(pd.DataFrame(rows), "speed")


def versions(study: Study) -> None:
    """Tell what the figures depend on besides settings."""
    threads = str(torch.get_num_threads())
    save(provenance(("torch", "numpy", "onnxruntime", "onnx"), torch_threads=threads), "provenance")


PARTS = {
    "sweep": ("sweep.csv", sweep),
    "lengths": ("lengths.csv", lengths),
    "photos": ("photos.csv", photos),
    "int8": ("int8.csv", int8),
    "speed": ("speed.csv", speed),
    "provenance": ("provenance.csv", versions),
}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where runs are kept")
    for name in ("cifar10", "trashnet"):
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"folder of the photos of {name}")
    run_parts(
        PARTS,
        RESULTS,
        parser,
        lambda given: Study(
            **vars(ConfiguredStudy.load(HERE, given.work)),
            photos={name: getattr(given, name) and getattr(given, name).resolve() for name in ("cifar10", "trashnet")},
        ),
    )


if __name__ == "__main__":
    main()
