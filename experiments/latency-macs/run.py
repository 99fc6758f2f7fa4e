"""Why multiply-accumulates do not rank devices: published speeds of some hundred models on a CPU and on GPUs.

    python experiments/latency-macs/run.py --data DIR

DIR holds `timm_results`, the tables that timm publishes (Apache-2.0). Seconds; no measurement of ours is involved.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("agg")
from matplotlib import pyplot as plt
from scipy.stats import spearmanr

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.study import provenance, save_table  # noqa: E402
from nas.files import make_folder  # noqa: E402
from search_spaces.errors import InputError  # noqa: E402

TABLES = {
    "CPU i7-12700H": "benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv",
    "CPU i9-10940X": "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv",
    "GPU RTX 3090": "benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv",
    "GPU RTX 5090": "benchmark-infer-amp-nchw-pt291-cu130-5090.csv",
}
BAND = 1.25
"""Models of one band have MACs within this factor."""


def speeds(folder: Path) -> pd.DataFrame:
    """Return models that every table has at the same image size: GMACs, and ms per image on every device."""
    joined: pd.DataFrame | None = None
    for device, file in TABLES.items():
        if not (folder / file).exists():
            raise InputError(f"{folder / file}: is not there; --data names the folder that holds timm_results")
        table = pd.read_csv(folder / file)
        table[device] = 1000.0 / table["infer_samples_per_sec"]
        columns = ["model", "infer_img_size", device] + (["infer_gmacs"] if joined is None else [])
        table = table[columns].dropna().drop_duplicates(["model", "infer_img_size"])
        joined = table if joined is None else joined.merge(table, on=["model", "infer_img_size"])
    assert joined is not None
    return joined[joined["infer_gmacs"] > 0].reset_index(drop=True)


def ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rank correlations of MACs with every device and of devices with each other: over all, and inside bands."""
    band = np.floor(np.log(frame["infer_gmacs"]) / np.log(BAND))
    rows = []
    for one, other in itertools.combinations(["infer_gmacs", *TABLES], 2):
        inside = [
            (spearmanr(part[one], part[other]).statistic, len(part))
            for _, part in frame.groupby(band)
            if len(part) >= 10
        ]
        rho, weight = np.array(inside).T
        rows.append(
            {
                "one": one,
                "other": other,
                "models": len(frame),
                "spearman": spearmanr(frame[one], frame[other]).statistic,
                "spearman_inside_bands": np.average(rho, weights=weight),
                "bands": len(inside),
            }
        )
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame) -> None:
    """Draw ms per image against GMACs, a CPU beside a GPU, and the models of one band."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    pair = ("CPU i9-10940X", "GPU RTX 3090")
    band = (frame["infer_gmacs"] > 4.0) & (frame["infer_gmacs"] < 5.0)
    for axis, device in zip(axes, pair, strict=False):
        axis.loglog(frame["infer_gmacs"], frame[device], "o", ms=3, color="#9aa5b1", label="all models")
        axis.loglog(frame["infer_gmacs"][band], frame[device][band], "s", ms=4, color="#d9822b", label="4 to 5 GMACs")
        low, high = frame[device][band].min(), frame[device][band].max()
        axis.set(xlabel="GMACs", ylabel="ms per image", title=f"{device}: {high / low:.0f} times at equal MACs")
        axis.legend(frameon=False)
    axes[2].plot(frame[pair[0]][band], frame[pair[1]][band], "s", ms=4, color="#d9822b")
    rho = spearmanr(frame[pair[0]][band], frame[pair[1]][band]).statistic
    axes[2].set(
        xlabel=f"ms per image, {pair[0]}",
        ylabel=f"ms per image, {pair[1]}",
        title=f"4 to 5 GMACs, {band.sum()} models: Spearman {rho:.2f}",
    )
    make_folder(RESULTS)
    figure.savefig(RESULTS / "latency-macs.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="The folder that holds timm_results.")
    try:
        frame = speeds(parser.parse_args().data / "timm_results")
    except InputError as error:
        parser.error(str(error))
    found = ranks(frame)
    save_table(RESULTS, found, "ranks")
    save_table(RESULTS, provenance(["pandas", "scipy", "matplotlib"]), "provenance")
    draw(frame)
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
