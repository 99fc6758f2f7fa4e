"""How well latency tables predict whole networks: spaces by devices, against measurements of 100 other networks.

    python experiments/latency-tables/run.py [PART...]
    python experiments/latency-tables/run.py --work DIR ...   # where models are kept between parts

Needs an idle machine for about half an hour. A part whose table is there is left as it is.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.study import provenance, run_parts, save_table, say  # noqa: E402
from nas.block_cache import BlockCache  # noqa: E402
from nas.devices import parse_device  # noqa: E402
from nas.files import make_folder  # noqa: E402
from nas.lut import build_lut  # noqa: E402
from predictors.additive import AdditiveCost  # noqa: E402
from predictors.latency import LatencyPredictor, truth_ms  # noqa: E402
from search_spaces.catalogue import find_space  # noqa: E402

CHANNELS, CLASSES, SEED, HELD_OUT = 3, 10, 0, 100
SPACES = ("tiny", "cifar", "mobile")
DEVICES = ("cpu", "cpu:precision=int8")


@dataclass(frozen=True)
class Study:
    """Where models are kept."""

    work: Path


def measure(space_name: str, device_name: str, study: Study) -> None:
    """Build one table, and write its errors, its networks and its blocks."""
    space, device = find_space(space_name, channels=CHANNELS, classes=CLASSES), parse_device(device_name)
    cache = BlockCache(study.work / "blocks")
    make_folder(cache.directory)
    say(f"{space_name} on {device_name}: {len(space.blocks)} blocks")
    started = time.monotonic()
    cache.fill(space.blocks)
    exported = time.monotonic()
    prepared: list[float] = []
    table = build_lut(
        space,
        cache,
        device,
        work_dir=study.work / space_name / device.slug,
        seed=SEED,
        held_out=HELD_OUT,
        preparing=lambda done, total: prepared.append(time.monotonic()),
    )
    ended = time.monotonic()
    latency = LatencyPredictor(space, table)
    name = f"{space_name}-{device.slug}"
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
    noise = np.array([entry.noise_percent for entry in table.blocks])
    costs = {
        "export_s": exported - started,
        "prepare_s": prepared[-1] - exported,
        "measure_s": ended - prepared[-1],
        "blocks": len(space.blocks),
        "block_noise_mean_percent": noise.mean(),
        "block_noise_worst_percent": noise.max(),
        "capacity_mb": table.calibration.capacity_mb,
        "load_max": table.conditions["load_max"],
    }
    save_table(RESULTS, pd.DataFrame([costs]), f"cost-{name}")
    rows = [
        {
            "space": space_name,
            "device": device_name,
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
    save_table(RESULTS, provenance(["onnxruntime", "torch", "onnxscript", "numpy"]), f"provenance-{name}")
    print(pd.DataFrame(rows).drop(columns=["space", "device", "networks"]).to_string(index=False), flush=True)


PARTS = {
    f"{space}/{device}": (
        f"provenance-{space}-{parse_device(device).slug}.csv",
        functools.partial(measure, space, device),
    )
    for device in DEVICES
    for space in SPACES
}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="Where models are kept.")
    run_parts(PARTS, RESULTS, parser, lambda arguments: Study(arguments.work))


if __name__ == "__main__":
    main()
