"""What a search on the trained supernet finds, beside networks of its latency that are trained alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.scratch import train_alone
from experiments.study import ConfiguredStudy, Rows, commit, nas
from nas.baseline import image_input, plan_baseline, steps_within
from nas.devices import parse_device
from nas.fitting import images_seen
from nas.memory import keep_freed_memory
from nas.run import Run
from predictors.latency import LatencyPredictor
from predictors.quality import standard_error
from search_spaces.presets import find_preset


def compare(study: ConfiguredStudy, run: Run) -> Rows:
    """Return the best network inside each budget, and its rivals; those of all budgets take as long as the supernet."""
    settings = study.config["front"]
    keep_freed_memory()  # as in the command that trained the supernet
    if not run.lut_path(parse_device(settings["device"])).exists():
        nas("build-lut", "--run", run.path, "--device", settings["device"])
    rows: Rows = []
    for budget in settings["budgets"]:
        [best] = study.once(f"budget {budget}", functools.partial(_searched, run, budget, settings))
        rows.append(best)
        rivals: dict[str, Callable[[], Rows]] = {
            "searched, trained alone": functools.partial(_searched_alone, study, run, best),
            **{name: functools.partial(_preset, study, run, name, best) for name in settings["presets"]},
        }
        for name, make in rivals.items():
            row = study.once(f"budget {budget} {name}", make)[0]
            rows.append({key: best[key] for key in ("budget", "budget_ms")} | {"network": name} | row)
    return [{key: value for key, value in row.items() if key != "genes"} for row in rows]


def _searched(run: Run, budget: str, settings: Mapping[str, Any]) -> Rows:
    """Search inside a budget; the row of its best network, with inherited weights."""
    front = nas("search", "--run", run.path, "--device", settings["device"], "--budget-ms", budget,
                "--evaluations", settings["evaluations"])  # fmt: skip
    best = next(each for each in front["candidates"] if each["id"] == front["best"])
    record = run.require_supernet()
    evaluator = run.evaluator()
    test = float(evaluator.evaluate_on_test(np.array([best["genes"]], dtype=np.int16))[0])
    return [
        {
            "budget": budget,
            "budget_ms": front["budget_ms"],
            "network": "searched, inherited weights",
            "measured_ms": best["measured_latency_ms"],
            "params": best["params"],
            "macs": best["macs"],
            "validation": best["validation_accuracy"],
            "validation_standard_error": best["validation_standard_error"],
            "test": test,
            "test_standard_error": standard_error(test, len(evaluator.data.split("test").labels)),
            "images_seen": images_seen(record.trained, evaluator.data),
            "seconds": record.seconds,
            "commit": commit(),
            "genes": best["genes"],
        }
    ]


def _searched_alone(study: ConfiguredStudy, run: Run, best: Mapping[str, Any]) -> Rows:
    """Train the architecture that a search has chosen from scratch."""
    data, record = run.load_data(), run.require_supernet()
    spec = run.space.lower(np.array(best["genes"], dtype=np.int16))
    config = record.trained.lasting(steps_within(_seconds_each(study, run), spec, data, record.trained))
    trained = train_alone(spec, data, config, checkpoint=study.work / f"searched-{best['budget']}.pt")
    return [trained | {"measured_ms": best["measured_ms"], "commit": commit()}]


def _preset(study: ConfiguredStudy, run: Run, name: str, best: Mapping[str, Any]) -> Rows:
    """Scale a hand-made design to the latency of a searched network, and train it from scratch."""
    data = run.load_data()
    device = parse_device(study.config["front"]["device"])
    plan = plan_baseline(
        find_preset(name),
        best["measured_ms"],
        run.require_supernet().trained,
        seconds=_seconds_each(study, run),
        data=data,
        latency=LatencyPredictor(run.space, run.latency_table(device)),
        cache=run.block_cache(),
        device=device,
        directory=study.work / "plans" / f"{name}-{best['budget']}",
    )
    spec = find_preset(name).network(image_input(data), width=plan.width, depth=plan.depth)
    trained = train_alone(spec, data, plan.config, checkpoint=study.work / f"{name}-{best['budget']}.pt")
    return [trained | {"measured_ms": plan.latency_ms, "commit": commit()}]


def _seconds_each(study: ConfiguredStudy, run: Run) -> float:
    """Return how long a network alone is trained: those of all budgets together as long as the supernet."""
    return run.require_supernet().seconds / len(study.config["front"]["budgets"])
