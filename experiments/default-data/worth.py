"""Is the search worth it? Against hand-made designs, random search and random architectures, at stated costs."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from common import Study, ids, save, say
from spread import random_networks

from nas.baseline import image_input, plan_baseline, steps_within, train_network
from nas.budget import Budget, parse_budget
from nas.data import ImageData
from nas.evaluate import SubnetEvaluator, standalone_accuracy
from nas.front import Candidate, Front
from nas.run import Run
from nas.subnet_search import SearchSettings, search_subnets, validate_front
from nas.training_record import TrainingConfig
from predictors.latency import LatencyPredictor
from search_spaces.presets import find_preset
from search_spaces.space import Genomes
from search_spaces.spec import NetworkSpec

ARMS = {"search": "nsga2", "random search": "random"}


def compare(study: Study, seed: int) -> pd.DataFrame:
    """Return one row per contender of a seed, and write the seed's fronts and random networks as tables."""
    settings, run = study.config["worth"], study.run(seed)
    latency = study.latency(run)
    budget = parse_budget(settings["budget"], latency)
    rows: list[dict[str, Any]] = []
    fronts = []
    searched: tuple[Candidate, float] | None = None
    record = run.require_supernet()
    for name, strategy in ARMS.items():
        say(f"seed {seed}: {name}")
        front, evaluator, seconds = _search(study, run, latency, budget, strategy, seed)
        test = evaluator.evaluate(_genomes(front.candidates), split="test")
        for candidate, accuracy in zip(front.candidates, test, strict=True):
            fronts.append({"seed": seed, "arm": name, "best": candidate == front.best} | _figures(candidate, accuracy))
            if candidate == front.best:
                cost = {"images_seen": _images(record.config), "seconds": record.seconds + seconds}
                rows.append({"contender": name, "weights": "inherited", "equal": "-"} | fronts[-1] | cost)
        if strategy == ARMS["search"]:
            searched = front.best, seconds
    assert searched is not None
    best, search_s = searched
    rows += _random_architectures(study, run, latency, budget, seed)
    total_s = record.seconds + search_s
    scratch = _Scratch(run.load_data(), dataclasses.replace(record.config, seed=seed), total_s)
    spec = run.space.lower(np.array(best.genes, dtype=np.int16))
    for equal in ("images", "seconds"):
        rows.append(scratch.row("searched architecture", spec, best.measured_latency_ms, equal))
        for preset in study.config["presets"]:
            with tempfile.TemporaryDirectory() as folder:
                plan = plan_baseline(
                    find_preset(preset),
                    best.measured_latency_ms,
                    scratch.config,
                    data=scratch.data,
                    cache=run.block_cache,
                    device=study.device,
                    directory=Path(folder),
                )
            network = find_preset(preset).network(image_input(scratch.data), width=plan.width, depth=plan.depth)
            rows.append(scratch.row(preset, network, plan.latency_ms, equal))
    for genome in _near_budget(run, latency, budget, settings["scratch_networks"], seed):
        predicted = float(latency.predict(genome[None])[0])
        rows.append(scratch.row("random architecture", run.space.lower(genome), predicted, "images"))
    save(pd.DataFrame(fronts), f"fronts_seed{seed}")
    return pd.DataFrame(rows).assign(seed=seed, budget_ms=budget.limit_ms).drop(columns=["arm", "best"])


@dataclass(frozen=True)
class _Scratch:
    """Training from scratch at one of the two costs."""

    data: ImageData
    config: TrainingConfig
    seconds: float

    def row(self, contender: str, spec: NetworkSpec, latency_ms: float, equal: str) -> dict[str, Any]:
        """Train a network and return its row."""
        config = self.config
        if equal == "seconds":
            config = dataclasses.replace(config, steps=steps_within(self.seconds, spec, self.data, config))
        say(f"seed {config.seed}: {contender} from scratch, {config.steps} steps")
        with tempfile.TemporaryDirectory() as folder:
            network, fitted = train_network(spec, self.data, config, checkpoint=Path(folder) / "checkpoint.pt")
        return {
            "contender": contender,
            "weights": "own",
            "equal": equal,
            "validation": standalone_accuracy(network, self.data, "validation"),
            "test": standalone_accuracy(network, self.data, "test"),
            "measured_ms": latency_ms,
            "params": spec.params(),
            "macs": spec.macs(),
            "images_seen": _images(config),
            "seconds": fitted.seconds,
        }


def _search(
    study: Study, run: Run, latency: LatencyPredictor, budget: Budget, strategy: str, seed: int
) -> tuple[Front, SubnetEvaluator, float]:
    """Search and validate in a copy of the run; returns the wall time of both too."""
    alone = study.copy(run, strategy)
    evaluator = alone.evaluator()
    settings = SearchSettings(evaluations=study.config["worth"]["evaluations"], strategy=strategy, seed=seed)
    started = time.perf_counter()
    outcome = search_subnets(evaluator, latency, budget, settings)
    front = validate_front(outcome, evaluator, latency, budget, settings, device=study.device, cache=alone.block_cache)
    return front, evaluator, time.perf_counter() - started


def _random_architectures(
    study: Study, run: Run, latency: LatencyPredictor, budget: Budget, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the average of random architectures inside the budget, and of those that nearly use it up."""
    evaluator = run.evaluator()
    count = study.config["worth"]["random_networks"]
    for name, choose in (
        ("average random architecture", _inside_budget),
        ("average random architecture near the budget", _near_budget),
    ):
        say(f"seed {seed}: {name}")
        genomes = choose(run, latency, budget, count, seed)
        validation, test = evaluator.evaluate(genomes), evaluator.evaluate(genomes, split="test")
        save(
            pd.DataFrame({"id": ids(run, genomes), "validation": validation, "test": test}),
            f"{name.removeprefix('average ').replace(' ', '_')}_seed{seed}",
        )
        yield {
            "contender": name,
            "weights": "inherited",
            "equal": "-",
            "validation": validation.mean(),
            "test": test.mean(),
            "measured_ms": latency.predict(genomes).mean(),
        }


def _inside_budget(run: Run, latency: LatencyPredictor, budget: Budget, count: int, seed: int) -> Genomes:
    return _chosen(run, seed, count, lambda genomes: latency.predict(genomes) <= budget.predicted_limit_ms)


def _near_budget(run: Run, latency: LatencyPredictor, budget: Budget, count: int, seed: int) -> Genomes:
    limit = budget.predicted_limit_ms
    return _chosen(run, seed, count, lambda g: (latency.predict(g) <= limit) & (latency.predict(g) > 0.9 * limit))


def _chosen(run: Run, seed: int, count: int, keep: Callable[[Genomes], npt.NDArray[np.bool_]]) -> Genomes:
    pool = random_networks(run, 10_000, seed=100 + seed)
    chosen: Genomes = pool[keep(pool)][:count]
    return chosen


def _genomes(candidates: tuple[Candidate, ...]) -> Genomes:
    return np.array([candidate.genes for candidate in candidates], dtype=np.int16)


def _figures(candidate: Candidate, test: float) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "validation": candidate.validation_accuracy,
        "test": test,
        "measured_ms": candidate.measured_latency_ms,
        "params": candidate.params,
        "macs": candidate.macs,
    }


def _images(config: TrainingConfig) -> int:
    return config.steps * config.batch_size
