"""How well latency tables predict whole networks: spaces by devices, against measurements of 100 other networks.

    python experiments/latency-tables/run.py [PART...]
    python experiments/latency-tables/run.py --work DIR ...          # where models are kept between parts
    python experiments/latency-tables/run.py --openvino PYTHON ...   # an interpreter that has onnxruntime-openvino

Needs an idle machine for about an hour and a half; set OMP_NUM_THREADS=1 for the speed of one core. A part whose
table is there is left as it is.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import subprocess
import sys
import time
import timeit
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnx
import pandas as pd

mpl.use("agg")
from matplotlib import pyplot as plt
from scipy.stats import spearmanr

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.study import provenance, run_parts, save_table, say  # noqa: E402
from nas.block_cache import BlockCache  # noqa: E402
from nas.devices import KitDevice, parse_device  # noqa: E402
from nas.files import make_folder, sha256_file, write_atomic  # noqa: E402
from nas.kit import kit_results, tiled, write_kit  # noqa: E402
from nas.lut import build_lut, table_of  # noqa: E402
from nas.lut_plan import ROUNDS, TablePlan, network_models, plan_table  # noqa: E402
from predictors.additive import AdditiveCost  # noqa: E402
from predictors.block_features import BlockTimes  # noqa: E402
from predictors.calibration import CalibratedCost, Calibration, Waiting  # noqa: E402
from predictors.latency import LatencyPredictor, LatencyTable, block_times, truth_ms  # noqa: E402
from predictors.neighbours import by_neighbours  # noqa: E402
from predictors.transfer import fit_transfer, informative  # noqa: E402
from search_spaces.catalogue import SPACES as CATALOGUE  # noqa: E402
from search_spaces.catalogue import find_space  # noqa: E402
from search_spaces.documents import pretty_json  # noqa: E402
from search_spaces.language import NetworkSpace  # noqa: E402

CHANNELS, CLASSES, HELD_OUT = 3, 10, 100
SEEDS = (5, 6)
"""All tables of the promise are built with both, the others with the first."""
SPACES = ("tiny", "cifar", "mobile")
DEVICES = ("cpu", "cpu:precision=int8")
OPENVINO = "kit:target=openvino,provider=openvino"
SMALL_SPACES = ("tiny", "cifar")
REPORTED = ("cpu:threads=2", OPENVINO)
"""Devices for which nothing is promised; on the smaller spaces."""
TRANSFER_NETWORKS = (10, 20, 40)
TILED_NETWORKS = 20
MILLION = 10**6


@dataclass(frozen=True)
class Study:
    """Where models are kept, and an interpreter with another onnxruntime."""

    work: Path
    openvino: Path | None


def result_name(space_name: str, device_name: str, seed: int) -> str:
    """Return how the results of a table are named."""
    return f"{space_name}-{parse_device(device_name).slug}-seed-{seed}"


def build(space_name: str, device_name: str, seed: int, study: Study) -> tuple[LatencyPredictor, dict[str, object]]:
    """Build one table, or take it from what the work folder holds of it; also return how long that took.

    A device of another interpreter is measured by a kit, as one of another machine would be.
    """
    space, device = find_space(space_name, channels=CHANNELS, classes=CLASSES), parse_device(device_name)
    cache = BlockCache(study.work / "blocks", device.batch, device.precision)
    make_folder(cache.directory)
    say(f"{space_name} on {device_name}, seed {seed}: {len(space.blocks)} blocks")
    started = time.monotonic()
    cache.fill(space.blocks)
    exported = time.monotonic()
    prepared: list[float] = []
    plan = plan_table(space, device, seed=seed, held_out=HELD_OUT)
    work_dir = study.work / result_name(space_name, device_name, seed)
    if isinstance(device, KitDevice):
        table = by_kit(plan, space, cache, device, work_dir, study)
        prepared.append(exported)
    else:
        table = build_lut(
            plan,
            space,
            cache,
            device,
            work_dir=work_dir,
            preparing=lambda done, total: prepared.append(time.monotonic()),
        )
    seconds: dict[str, object] = {
        "export_s": exported - started,
        "prepare_s": prepared[-1] - exported,
        "measure_s": time.monotonic() - prepared[-1],
    }
    return LatencyPredictor(space, table), seconds


def by_kit(
    plan: TablePlan, space: NetworkSpace, cache: BlockCache, device: KitDevice, folder: Path, study: Study
) -> LatencyTable:
    """Return the table of what a kit measures under the other interpreter, which knows nothing of this package."""
    if study.openvino is None:
        raise SystemExit(f"{device.name} needs --openvino PYTHON, an interpreter that has onnxruntime-openvino")
    there, kept = folder / "there", folder / "kit.json"
    if not kept.exists():
        make_folder(there)
        record = write_kit(plan, space, cache, device, folder / "kit.zip", work_dir=folder / "models")
        with zipfile.ZipFile(folder / "kit.zip") as archive:
            archive.extractall(there)
        write_atomic(kept, pretty_json(record))
    subprocess.run([study.openvino.absolute(), "measure.py"], cwd=there, check=True, stdout=subprocess.DEVNULL)
    record, measured = kit_results([there / "results.jsonl"], [kept])
    return table_of(record.plan, space, measured)


def measure(space_name: str, device_name: str, seed: int, study: Study) -> None:
    """Build one table, and write its errors, its networks and its blocks."""
    latency, costs = build(space_name, device_name, seed, study)
    space, table = latency.space, latency.table
    name = result_name(space_name, device_name, seed)
    genomes = space.check([each.genes for each in table.held_out])
    low, high = latency.interval(genomes)
    macs = AdditiveCost.of(space, lambda block: block.macs())
    networks = pd.DataFrame(
        {
            "mmacs": macs.predict(genomes) / 1e6,
            "measured_ms": truth_ms(table.held_out),
            "repeated_ms": [each.repeated_ms for each in table.held_out],
            "predicted_ms": latency.predict(genomes),
            "low_ms": low,
            "high_ms": high,
        }
    )
    save_table(RESULTS, networks, f"networks-{name}")
    choices = pd.DataFrame(
        {
            "model": table.calibration.cross_validated_mape_percent.keys(),
            "cross_validated_mape_percent": table.calibration.cross_validated_mape_percent.values(),
        }
    )
    choices["chosen"] = choices["model"] == table.calibration.model
    save_table(RESULTS, choices, f"choices-{name}")
    if waiting := table.calibration.waiting:
        save_table(RESULTS, pd.DataFrame(asdict(waiting)), f"waiting-{name}")
    noise = np.array([entry.noise_percent for entry in table.blocks])
    costs |= {
        "blocks": len(space.blocks),
        "block_noise_mean_percent": noise.mean(),
        "block_noise_worst_percent": noise.max(),
        "load_max": table.conditions["load_max"],
    }
    save_table(RESULTS, pd.DataFrame([costs]), f"cost-{name}")
    rows = [
        {
            "space": space_name,
            "device": device_name,
            "seed": seed,
            "predictor": predictor,
            **asdict(error),
            "within_5_percent_at_least": error.within_5_percent_at_least,
            "misses": "; ".join(error.shortfalls),
        }
        for predictor, error in (
            ("MACs, fitted", table.macs_error),
            ("sum of blocks", table.plain_error),
            (f"calibrated ({table.calibration.model})", table.error),
        )
    ]
    save_table(RESULTS, pd.DataFrame(rows), f"errors-{name}")
    measured_with = f"{table.fingerprint['onnxruntime']} {table.fingerprint['provider']}"
    found = provenance(["torch", "onnxscript", "numpy"], onnxruntime=measured_with)
    save_table(RESULTS, found, f"provenance-{name}")
    print(pd.DataFrame(rows).drop(columns=["space", "device", "seed", "networks"]).to_string(index=False), flush=True)


def transfer(study: Study) -> None:
    """Carry every table to the other device on a few of its whole networks, and test it on the others."""
    rows = []
    for space_name in SPACES:
        devices = (*DEVICES, OPENVINO) if space_name in SMALL_SPACES else DEVICES
        tables = {name: build(space_name, name, SEEDS[0], study)[0] for name in devices}
        for source_name, target_name in itertools.permutations(devices, 2):
            source, target = tables[source_name], tables[target_name].table
            pool = source.space.check([each.genes for each in target.calibration_networks])
            pool_ms = truth_ms(target.calibration_networks)
            tested = source.space.check([each.genes for each in target.held_out])
            measured_ms = truth_ms(target.held_out)
            for count in TRANSFER_NETWORKS:
                # As `nas build-lut --transfer-from` does, but among networks that are measured already.
                times, waiting = block_times(source.space, source.table.blocks), source.table.calibration.waiting
                chosen = informative(source.space, times, waiting, pool, count, target.precision, target.batch)
                fitted = fit_transfer(
                    source.space, times, waiting, pool[chosen], pool_ms[chosen], target.precision, target.batch
                )
                cost = CalibratedCost(source.space, times, fitted, target.precision, target.batch)
                error = cost.predict(tested) / measured_ms - 1.0
                rows.append(
                    {
                        "space": space_name,
                        "from": source_name,
                        "to": target_name,
                        "networks": count,
                        "mape_percent": 100.0 * np.abs(error).mean(),
                        "within_10_percent": 100.0 * np.mean(np.abs(error) <= 0.1),
                        "bias_percent": 100.0 * error.mean(),
                        "unscaled_spearman": spearmanr(source.predict(tested), measured_ms).statistic,
                    }
                )
    save_table(RESULTS, pd.DataFrame(rows), "transfer")
    print(pd.DataFrame(rows).to_string(index=False), flush=True)


def tiling(study: Study) -> None:
    """Measure networks as they are beside the same networks with the repeated weights that kits hold."""
    folder = study.work / "tiling"
    make_folder(folder)
    rows = []
    for space_name in SPACES:
        space, device = find_space(space_name, channels=CHANNELS, classes=CLASSES), parse_device("cpu")
        cache = BlockCache(study.work / "blocks")
        make_folder(cache.directory)
        cache.fill(space.blocks)
        genomes = space.sample(TILED_NETWORKS, np.random.default_rng(SEEDS[0]))
        specs = {f"{space_name}-{number}": space.lower(genome) for number, genome in enumerate(genomes)}
        files = network_models(specs, cache, folder)
        repeated = []
        for file in files:
            path = file.path.with_suffix(".tiled.onnx")
            write_atomic(path, tiled(onnx.load(file.path)).SerializeToString())
            repeated.append(replace(file, id=f"{file.id}-tiled", path=path, sha256=sha256_file(path)))
        again = [replace(file, id=f"{file.id}-again") for file in files]
        run = device.measure([*files, *repeated, *again], rounds=ROUNDS, work_dir=folder / space_name)
        figures = np.array([each.latency_ms for each in run.measurements]).reshape(3, -1)
        for what, other in (("tiled weights", figures[1]), ("the same file again", figures[2])):
            ratio = other / figures[0]
            rows.append(
                {
                    "space": space_name,
                    "against": what,
                    "networks": len(files),
                    "median_ratio": np.median(ratio),
                    "mape_percent": 100.0 * np.abs(ratio - 1.0).mean(),
                    "worst_percent": 100.0 * np.abs(ratio - 1.0).max(),
                }
            )
    save_table(RESULTS, pd.DataFrame(rows), "tiling")
    print(pd.DataFrame(rows).to_string(index=False), flush=True)


def speed(study: Study) -> None:
    """Time predictions of a million networks of every named space, with all that a table may count, on one core."""
    del study
    rows = []
    for name in CATALOGUE:
        space = find_space(name, channels=CHANNELS, classes=CLASSES)
        rng = np.random.default_rng(SEEDS[0])
        genomes = space.sample(MILLION, rng)
        fitted = Calibration(
            model="neighbours",
            strength=0.0,
            waiting=Waiting(touched_mb=(1.0, 10.0), share=(0.0, 1.0)),
            factors={"time": 1.0, "constant": 0.1} | dict.fromkeys(by_neighbours(space), 0.01),
            cross_validated_mape_percent={"neighbours": 0.0},
        )
        hot_ms = rng.uniform(0.01, 0.1, len(space.blocks))
        cost = CalibratedCost(space, BlockTimes(hot_ms, 1.5 * hot_ms), fitted, "fp32")
        seconds = min(timeit.repeat(functools.partial(cost.predict, genomes), number=1, repeat=5))
        rows.append(
            {"space": name, "blocks": len(space.blocks), "slots": len(space.slots), "per_second": MILLION / seconds}
        )
    save_table(RESULTS, pd.DataFrame(rows), "speed")
    print(pd.DataFrame(rows).to_string(index=False), flush=True)


def draw(study: Study) -> None:
    """Draw every table's error against latency."""
    del study
    figure, axes = plt.subplots(len(DEVICES), len(SPACES), figsize=(12, 6), layout="constrained", sharey=True)
    for row, device in zip(axes, DEVICES, strict=True):
        for axis, space in zip(row, SPACES, strict=True):
            axis.axhspan(-5, 5, color="#e8eef4", zorder=0)
            axis.axhline(0, color="#9aa5b1", lw=0.8)
            for seed, colour in zip(SEEDS, ("#0b5fa5", "#d9822b"), strict=True):
                name = result_name(space, device, seed)
                networks = pd.read_csv(RESULTS / f"networks-{name}.csv")
                error = pd.read_csv(RESULTS / f"errors-{name}.csv").iloc[-1]
                relative = 100.0 * (networks["predicted_ms"] / networks["measured_ms"] - 1.0)
                label = f"seed {seed}: {error['mape_percent']:.2f} %, floor {error['noise_floor_percent']:.2f} %"
                axis.plot(networks["measured_ms"], relative, "o", ms=3, color=colour, label=label)
            axis.set(ylim=(-16, 16), title=f"{space}, {device}")
            axis.legend(loc="lower left", fontsize=8, handletextpad=0.1)
        row[0].set_ylabel("predicted against measured, %")
    for axis in axes[-1]:
        axis.set_xlabel("measured latency, ms")
    figure.savefig(RESULTS / "latency-tables.png", dpi=130)
    plt.close(figure)


TABLES = [(space, device, seed) for seed in SEEDS for device in DEVICES for space in SPACES]
TABLES += [(space, device, SEEDS[0]) for device in REPORTED for space in SMALL_SPACES]
PARTS: dict[str, tuple[str, Callable[[Study], None]]] = {
    f"{space}/{device}/{seed}": (
        f"provenance-{result_name(space, device, seed)}.csv",
        functools.partial(measure, space, device, seed),
    )
    for space, device, seed in TABLES
} | {
    "transfer": ("transfer.csv", transfer),
    "tiling": ("tiling.csv", tiling),
    "speed": ("speed.csv", speed),
    "figure": ("latency-tables.png", draw),
}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "runs", help="Where models are kept.")
    parser.add_argument("--openvino", metavar="PYTHON", type=Path, help="An interpreter with onnxruntime-openvino.")
    run_parts(PARTS, RESULTS, parser, lambda arguments: Study(arguments.work.resolve(), arguments.openvino))


if __name__ == "__main__":
    main()
