"""Whether networks that searches return are inside their budgets when they are measured again; see README.md.

python experiments/budgets-kept/run.py --work DIR [PART ...]
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta

from experiments.study import ConfiguredStudy, Parts, Rows, nas, provenance, run_parts, save_table, say
from nas.budget import Statistic, parse_budget
from nas.devices import ModelFile, parse_device
from nas.files import make_folder, sha256_file, write_atomic
from nas.ledger import accuracy_evaluator
from nas.lut_plan import whole_network
from nas.onnx_export import export_network
from nas.run import Run
from nas.stitch import stitch
from predictors.additive import AdditiveCost
from predictors.balanced import sample_balanced
from predictors.latency import LatencyPredictor

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
save = functools.partial(save_table, RESULTS)


class Study(ConfiguredStudy):
    """The settings, and where runs are kept."""

    def run(self, space: str) -> Run:
        """Return a run of a space with untrained weights and a latency table; makes what is missing."""
        path, settings = self.work / space, self.config["spaces"][space]
        if not (path / "supernet" / "training.json").exists():
            data = self.work / f"{space}.npz"
            _write_images(data, *settings["images"])
            nas("train", "--run", path, "--space", space, "--data", f"npz:{data}", "--steps", 1)
        run = Run.existing(path, first="nas train")
        if not run.lut_path(parse_device(self.config["device"])).exists():
            nas("build-lut", "--run", path, "--device", self.config["device"])
        return run

    def latency(self, run: Run) -> LatencyPredictor:
        """Return the predictions of the device."""
        return LatencyPredictor(run.space, run.latency_table(parse_device(self.config["device"])))

    def budgets(self, run: Run, cases: int, at: Statistic) -> list[float]:
        """Return budgets in ms, one in each of so many equal parts of the reachable range, in random order."""
        latency = self.latency(run)
        ratio = 1.0 if at == "min" else latency.sustained(at).ratio
        rng = np.random.default_rng(self.config["seed"])
        shares = (rng.permutation(cases) + rng.random(cases)) / cases
        low, high = latency.cheapest()[0] * ratio, latency.dearest()[0] * ratio
        lowest = self.config["lowest_share"]
        return [float(low + (high - low) * (lowest + (1.0 - lowest) * share)) for share in shares]


def _write_images(path: Path, training: int, validation: int) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for name, count in (("train", training), ("val", validation), ("test", 20)):
        arrays[f"x_{name}"] = rng.integers(0, 256, (count, 32, 32), dtype=np.uint8)
        arrays[f"y_{name}"] = np.arange(count) % 10
    make_folder(path.parent)
    np.savez(path, **arrays)


def _press(study: Study, run: Run, limit_ms: float, number: int) -> None:
    """Fill the ledger with networks close beneath a limit, made out to be the more accurate the slower they are."""
    settings = study.config["pressed"]
    latency = study.latency(run)
    macs = AdditiveCost.of(run.space, lambda block: block.macs())
    pool = sample_balanced(macs, settings["pool"], np.random.default_rng(number))
    predicted_ms = latency.predict(pool)
    order = np.argsort(predicted_ms)
    nearest = order[: np.searchsorted(predicted_ms[order], limit_ms, side="right")][-settings["networks"] :]
    name = accuracy_evaluator(run.require_supernet().supernet_hash, "validation", "fp32")
    for genes, accuracy in zip(pool[nearest].tolist(), np.linspace(0.5, 0.9, len(nearest)).tolist(), strict=True):
        run.ledger.record(name, run.space.hash, tuple(genes), accuracy)


def _searched(
    study: Study, run: Run, evaluations: int, number: int, budget_ms: float, at: Statistic, *, pressed: bool
) -> Rows:
    """Search with an empty ledger, and return the returned networks, each with what was known of its case."""
    for name in ("ledger.db", "front.json", "search.json"):
        (run.path / name).unlink(missing_ok=True)
    run = Run.existing(run.path, first="nas train")  # the one that was given still has the ledger open
    options: tuple[object, ...] = ("--budget-ms", budget_ms, "--budget-at", at, "--seed", number)
    if pressed:
        limit_ms = parse_budget(str(budget_ms), study.latency(run), at=at).predicted_limit_ms
        _press(study, run, limit_ms, number)
        options += ("--evaluations", 1, "--strategy", "random")
    else:
        options += ("--evaluations", evaluations)
    try:
        front = nas("search", "--run", run.path, "--device", study.config["device"], *options)
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:
            raise
        say(f"case {number}: nothing was returned: {error.stderr}")
        return []
    latency = study.latency(run)
    known = Run.existing(run.path, first="nas train").known_accuracies()
    ratio = 1.0 if at == "min" else latency.sustained(at).ratio
    predicted_ms = latency.predict(run.space.check(list(known))) * ratio
    best = max(each["validation_accuracy"] for each in front["candidates"])
    dropped = {tuple(each["genes"]) for each in front["dropped"]}
    above = [
        genes
        for (genes, accuracy), ms in zip(known.items(), predicted_ms.tolist(), strict=True)
        if accuracy > best and 0.9 * budget_ms < ms <= budget_ms / (1.0 + front["margin"]) and genes not in dropped
    ]
    case = {
        "case": number,
        "budget_ms": budget_ms,
        "at": at,
        "binds": front["budget_binds"],
        "dropped": len(dropped),
        "more_accurate_above_90": len(above),
    }
    return [
        case
        | {name: each[name] for name in ("id", "genes", "validation_accuracy", "predicted_latency_ms")}
        | {"measured_ms": each["measured_latency_ms"], "is_best": each["id"] == front["best"]}
        for each in front["candidates"]
    ]


def _benched(study: Study, run: Run, rows: Rows, sustained_s: float) -> dict[str, dict[str, float]]:
    """Return what `nas bench` tells of the exported file of each distinct network, by id."""
    networks = {row["id"]: row["genes"] for row in rows}
    evaluator = run.evaluator()
    figures: dict[str, dict[str, float]] = {}
    names = list(networks)
    for start in range(0, len(names), study.config["per_bench"]):
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for name in names[start : start + study.config["per_bench"]]:
                (genome,) = run.space.check([networks[name]])
                files.append(Path(folder) / f"{name}.onnx")
                model = export_network(evaluator.calibrated(run.space.lower(genome)))
                write_atomic(files[-1], model.SerializeToString())
            told = nas("bench", *files, "--device", study.config["device"], "--sustained", sustained_s)
        for file, row in zip(files, told["models"], strict=True):
            figures[file.stem] = {"min": row["latency_ms"], "p50": row["p50_ms"], "p90": row["p90_ms"]}
    return figures


def _measure(
    study: Study,
    space: str,
    ats: tuple[Statistic, ...],
    cases: int,
    sustained_s: float,
    name: str,
    *,
    pressed: bool = False,
) -> None:
    run, evaluations = study.run(space), study.config["spaces"][space]["evaluations"]
    rows: Rows = []
    for at in ats:
        for number, budget_ms in enumerate(study.budgets(run, cases, at)):
            search = functools.partial(_searched, study, run, evaluations, number, budget_ms, at, pressed=pressed)
            rows += study.once(f"{name}-{at}-{number}", search)
    figures: Any = study.once(f"{name}-bench", lambda: [_benched(study, run, rows, sustained_s)])[0]
    networks = pd.DataFrame(rows).assign(again_ms=[figures[row["id"]][row["at"]] for row in rows])
    networks["inside"] = networks.again_ms <= networks.budget_ms
    save(networks.drop(columns="genes"), f"{name}-networks")
    save(_summary(networks, cases), name)
    save(provenance(["torch", "onnxruntime"]), "provenance")


def _summary(networks: pd.DataFrame, cases: int) -> pd.DataFrame:
    rows: Rows = []
    for at, part in networks.groupby("at", sort=False):
        best = part[part.is_best]
        used = best.again_ms / best.budget_ms
        # Of a network that came back several times, the tightest budget counts.
        distinct = part.groupby("id").inside.all()
        inside, n = int(distinct.sum()), len(distinct)
        fine = (used >= 0.9) | (best.more_accurate_above_90 == 0)
        rows.append(
            {
                "at": at,
                "budgets": cases,
                "nothing_returned": cases - len(best),
                "returned": len(part),
                "returned_inside": int(part.inside.sum()),
                "distinct": n,
                "distinct_inside": inside,
                "inside_at_least_percent": 100.0 * float(beta.ppf(0.05, inside, n - inside + 1)),
                "best_uses_median_percent": 100.0 * float(used.median()),
                "used_above_90_percent": int((part.again_ms > 0.9 * part.budget_ms).sum()),
                "best_uses_90_percent": int((used >= 0.9).sum()),
                "best_uses_90_percent_or_nothing_better_does": int(fine.sum()),
                "dropped": int(best.dropped.sum()),
                "worst_excess_percent": 100.0 * float((part.again_ms / part.budget_ms).max() - 1.0),
            }
        )
    return pd.DataFrame(rows)


def _space(name: str, study: Study, *, pressed: bool = False) -> None:
    config, part = study.config, f"{name}-pressed" if pressed else name
    _measure(study, name, ("min",), config["cases"], config["sustained_s"], part, pressed=pressed)


def _percentiles(study: Study) -> None:
    space = next(iter(study.config["spaces"]))
    _measure(study, space, ("p50", "p90"), study.config["percentiles"]["cases"], 5.0, "percentiles")


def _equal_weights(study: Study) -> None:
    """Measure networks made in three ways: exported, stitched as what is measured, and stitched with equal weights."""
    settings = study.config["equal_weights"]
    space = next(iter(study.config["spaces"]))
    run, device = study.run(space), parse_device(study.config["device"])
    evaluator, cache = run.evaluator(), run.block_cache()
    macs = AdditiveCost.of(run.space, lambda block: block.macs())
    genomes = sample_balanced(macs, settings["networks"], np.random.default_rng(study.config["seed"]))
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for genome in genomes:
            spec = run.space.lower(genome)
            made = {
                "exported": export_network(evaluator.calibrated(spec)),
                "own weights": cache.network(spec),
                "equal weights": stitch([cache.block(placed.block) for placed in spec]),
            }
            for way, model in made.items():
                path = Path(folder) / f"{run.space.architecture(genome).id} {way}.onnx"
                write_atomic(path, model.SerializeToString())
                files.append(whole_network(ModelFile(path.stem, path, sha256_file(path))))
        for repeat in range(settings["repeats"]):
            measured = device.measure(files, spread_s=2.0, seed=repeat, work_dir=Path(folder) / str(repeat))
            for file, each in zip(files, measured.measurements, strict=True):
                name, _, way = file.id.partition(" ")
                rows.append({"id": name, "repeat": repeat, "way": way, "ms": each.latency_ms})
    ms = pd.DataFrame(rows).pivot_table(index="id", columns="way", values="ms", aggfunc="median")
    saved = ms.assign(equal=ms["equal weights"] / ms.exported, own=ms["own weights"] / ms.exported)
    save(saved.sort_values("exported").reset_index(), "equal-weights")


PARTS: Parts[Study] = {
    "tiny": ("tiny.csv", functools.partial(_space, "tiny")),
    "cifar": ("cifar.csv", functools.partial(_space, "cifar")),
    "tiny-pressed": ("tiny-pressed.csv", functools.partial(_space, "tiny", pressed=True)),
    "cifar-pressed": ("cifar-pressed.csv", functools.partial(_space, "cifar", pressed=True)),
    "percentiles": ("percentiles.csv", _percentiles),
    "equal-weights": ("equal-weights.csv", _equal_weights),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="folder for runs, kept for a study started again")
    run_parts(PARTS, RESULTS, parser, lambda arguments: Study.load(HERE, arguments.work))
