"""Latency on another machine, measured by a kit that needs neither PyTorch nor this package there.

Shows how a measurement kit is made, what its owner runs on the other machine, how the results become a latency table,
and what the table predicts. Here this machine plays the other one, with a Python that has numpy and onnxruntime alone.
Needs: a package index for that Python, unless you name one that has them. Takes: a minute or two, most of it measuring;
close what else runs. Writes: a run with the table of `kit:target=board`, and the kit.
Prints: what the commands say, then the predicted latency of the fastest, the slowest and three random networks.

    python examples/your_own_device.py [FOLDER [PYTHON]]
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np

from nas import LatencyPredictor, Run, parse_device

SPACE = Path(__file__).with_name("small.toml").resolve()


def run(*words: str | Path, cwd: Path) -> None:
    """Run a program in a folder, and stop here if it fails."""
    subprocess.run(words, cwd=cwd, check=True)


def python_of_the_other_machine(folder: Path) -> Path:
    """Make a Python that has numpy and onnxruntime, as somebody there would."""
    venv.create(folder, with_pip=True)
    python = folder.resolve() / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "numpy", "onnxruntime", cwd=folder)
    return python


def main() -> None:
    """Make the kit, measure, take the results back, and predict."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/your_own_device")
    there = folder / "there"
    there.mkdir(parents=True, exist_ok=True)
    nas = (sys.executable, "-m", "nas")

    # Here: the archive. The table is of a space, and needs no training.
    kit = ("--device", "kit", "--name", "board", "--out", "kit.zip")
    run(*nas, "build-lut", "--run", "run", "--space", SPACE, *kit, cwd=folder)

    # There: unpack it and measure. It can be stopped and started again.
    python = Path(sys.argv[2]).absolute() if len(sys.argv) > 2 else python_of_the_other_machine(folder / "python")
    run(python, "-m", "zipfile", "-e", "../kit.zip", ".", cwd=there)
    with (folder / "progress.txt").open("w") as progress:
        subprocess.run([python, "measure.py"], cwd=there, stdout=progress, check=True)

    # Here: one file came back.
    run(*nas, "build-lut", "--run", "run", "--from", "there/results.jsonl", cwd=folder)

    opened = Run.open(folder / "run")
    latency = LatencyPredictor(opened.space, opened.latency_table(parse_device("kit:target=board")))
    ends = np.stack([latency.cheapest()[1], latency.dearest()[1]])
    genomes = np.concatenate([ends, opened.space.sample(3, np.random.default_rng(0))])
    table = latency.columns(genomes)[["latency_ms", "low_ms", "high_ms", "p90_ms", "file_mb"]]
    table.insert(0, "network", ["fastest", "slowest", "random 1", "random 2", "random 3"])
    print(table.to_string(index=False, float_format="%.4f"))


if __name__ == "__main__":
    main()
