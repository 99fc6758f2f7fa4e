"""Is the search worth it? Against hand-made designs, random search and random architectures, at stated costs."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from common import Study, ids, measured_ms
from spread import random_networks

from experiments.scratch import train_alone
from experiments.study import Rows
from nas.baseline import image_input, plan_baseline, steps_within
from nas.budget import parse_budget
from nas.data import ImageData
from nas.fitting import images_seen
from nas.front import Candidate
from nas.goal import Goal, Target, parse_goal
from nas.search_plan import SearchSettings
from nas.subnet_search import Place, search_subnets, validate_front
from nas.training_record import TrainingConfig
from predictors.latency import LatencyPredictor
from predictors.quality import standard_error
from search_spaces.presets import find_preset
from search_spaces.space import Genomes
from search_spaces.spec import NetworkSpec

ARMS = {"search": "predictor", "random search": "random-predictor"}


def fronts(study: Study, seed: int) -> pd.DataFrame:
    """Return the validated fronts of the search and of random search, with test accuracies and costs."""
    rows: Rows = []
    for arm in ARMS:
        rows += study.once(f"seed-{seed} {arm}", partial(_search, study, seed, arm))
    return pd.DataFrame(rows)


def chance(study: Study, seed: int) -> pd.DataFrame:
    """Return random architectures inside the budget, and some that nearly use it up; weights inherited."""
    return pd.DataFrame(study.once(f"seed-{seed} random architectures", lambda: _random_architectures(study, seed)))


def contenders(study: Study, seed: int, equal: str) -> pd.DataFrame:
    """Return networks of the searched network's latency, trained from scratch at one of two equal costs."""
    run = study.run(seed)
    found = fronts(study, seed)
    best = found[(found["arm"] == "search") & found["best"]].iloc[0]
    data = run.load_data()
    record = run.require_supernet()
    config = dataclasses.replace(record.trained, seed=seed)
    seconds = None if equal == "images" else float(best["seconds"])
    plans = _presets(study, seed, float(best["measured_ms"]), config, data)
    searched = run.space.lower(np.array(best["genes"], dtype=np.int16))

    def train(name: str, spec: NetworkSpec, more: Rows) -> Rows:
        """Return a network's row, with what is known of it from elsewhere."""
        make = partial(_train, spec, data, config, seconds)
        return [row | more[0] for row in study.once(f"seed-{seed} {name}, equal {equal}", make)]

    more = {"contender": "searched architecture", "measured_ms": float(best["measured_ms"])}
    rows = train("searched architecture", searched, [more])
    for plan in plans:
        preset = find_preset(plan["contender"])
        spec = preset.network(image_input(data), width=plan["width"], depth=plan["depth"])
        rows += train(preset.name, spec, [plan])
    if equal == "images":
        near = chance(study, seed).query("near")[: study.config["worth"]["scratch_networks"]]
        for number, (genes, latency_ms) in enumerate(zip(near["genes"], near["measured_ms"], strict=True)):
            spec = run.space.lower(np.array(genes, dtype=np.int16))
            more = {"contender": "random architecture", "measured_ms": latency_ms}
            rows += train(f"random architecture {number}", spec, [more])
    return pd.DataFrame(rows).assign(seed=seed, weights="own", equal=equal)


def _goal(study: Study, latency: LatencyPredictor) -> Goal:
    return parse_goal([Target(latency, parse_budget(study.config["worth"]["budget"], latency))])


def _search(study: Study, seed: int, arm: str) -> Rows:
    """Search and validate in a run of its own; the cost is the supernet's training and this search, in full."""
    run = study.copy(study.run(seed), ARMS[arm])
    evaluator, goal = run.evaluator(), _goal(study, study.latency(run))
    settings = SearchSettings(evaluations=study.config["worth"]["evaluations"], strategy=ARMS[arm], seed=seed)
    started = time.perf_counter()
    outcome = search_subnets(evaluator, goal, settings)
    places = {study.device.name: Place(study.device, run.block_cache())}
    front = validate_front(outcome, evaluator, goal, settings, places=places)
    record = run.require_supernet()
    cost = {
        "seconds": record.seconds + time.perf_counter() - started,
        "images_seen": images_seen(record.trained, evaluator.data),
        "budget_ms": goal.budget.limit_ms,
    }
    test = evaluator.evaluate_on_test(_genomes(front.candidates))
    images = len(evaluator.data.split("test").labels)
    return [
        {
            "seed": seed,
            "arm": arm,
            "best": candidate == front.best,
            "id": candidate.id,
            "genes": list(candidate.genes),
            "validation": candidate.validation_accuracy,
            "validation_standard_error": candidate.validation_standard_error,
            "test": accuracy,
            "test_standard_error": standard_error(accuracy, images),
            "measured_ms": candidate.measured_latency_ms,
            "params": candidate.params,
            "macs": candidate.macs,
            **cost,
        }
        for candidate, accuracy in zip(front.candidates, test.tolist(), strict=True)
    ]


def _random_architectures(study: Study, seed: int) -> Rows:
    run = study.copy(study.run(seed), "chance")
    latency, evaluator = study.latency(run), run.evaluator()
    limit = _goal(study, latency).budget.predicted_limit_ms
    count = study.config["worth"]["random_networks"]
    groups: list[tuple[bool, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.bool_]]]] = [
        (False, lambda predicted: predicted <= limit),
        (True, lambda predicted: (predicted <= limit) & (predicted > 0.9 * limit)),
    ]
    rows: Rows = []
    pool = random_networks(run, 10_000, seed=100 + seed)
    for near, keep in groups:
        genomes = pool[keep(latency.predict(pool))][:count]
        columns = {
            "id": ids(run, genomes),
            "genes": genomes.tolist(),
            "validation": evaluator.evaluate(genomes).tolist(),
            "test": evaluator.evaluate_on_test(genomes).tolist(),
            "measured_ms": measured_ms(study, run, genomes).tolist(),
        }
        rows += [
            {"seed": seed, "near": near} | dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
    return rows


def _presets(study: Study, seed: int, limit_ms: float, config: TrainingConfig, data: ImageData) -> Rows:
    """Return each preset's size for a latency; settled once, for both costs."""

    def scale(name: str) -> Rows:
        run = study.run(seed)
        with tempfile.TemporaryDirectory() as folder:
            plan = plan_baseline(
                find_preset(name),
                limit_ms,
                config,
                data=data,
                latency=LatencyPredictor(run.space, run.latency_table(study.device)),
                cache=run.block_cache(),
                device=study.device,
                directory=Path(folder),
            )
        return [{"contender": name, "width": plan.width, "depth": plan.depth, "measured_ms": plan.latency_ms}]

    presets = study.config["presets"]
    return [study.once(f"seed-{seed} {name} scaled", partial(scale, name))[0] for name in presets]


def _train(spec: NetworkSpec, data: ImageData, config: TrainingConfig, seconds: float | None) -> Rows:
    """Train a network from scratch and return its one row; reads the test split once."""
    if seconds is not None:
        config = dataclasses.replace(config, steps=steps_within(seconds, spec, data, config))
    with tempfile.TemporaryDirectory() as folder:
        return [train_alone(spec, data, config, checkpoint=Path(folder) / "checkpoint.pt")]


def _genomes(candidates: tuple[Candidate, ...]) -> Genomes:
    return np.array([candidate.genes for candidate in candidates], dtype=np.int16)
