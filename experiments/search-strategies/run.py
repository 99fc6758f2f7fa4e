"""Runs this study: ``python experiments/search-strategies/run.py --data DIR [--work DIR] [PART...]``; see README.md.

Every part writes CSV files into results/. A part whose files are there is not run again, so a study that was stopped
goes on; delete results/ and the folder of --work to start over: searches that are finished are kept there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from common import RESULTS, Study, save
from curves import learn
from figure import draw
from macro import search_macro
from ofa import oracle, published, search_ofa
from speed import measure_speed

from experiments.study import provenance, run_parts


def origin(study: Study) -> None:
    """Write what the figures depend on."""
    save(provenance(("numpy", "scipy", "scikit-learn", "torch", "pymoo", "moocore", "optuna")), "provenance")


PARTS: dict[str, tuple[str, Callable[[Study], None]]] = {
    "origin": ("provenance.csv", origin),
    "speed": ("speed_memory.csv", measure_speed),
    "published": ("ofa_published.csv", published),
    "oracle": ("ofa_oracle.csv", oracle),
    "ofa": ("ofa_stray.csv", search_ofa),
    "macro": ("macro_known.csv", search_macro),
    "curves": ("curves.csv", learn),
    "figure": ("search-strategies.png", draw),
}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description="The study of search strategies and accuracy predictors.")
    parser.add_argument("--data", type=Path, required=True, help="folder with dynast_mbnv3/ and nas_bench_macro/")
    parser.add_argument("--work", type=Path, default=Path("runs/search-strategies"), help="where the runs are kept")
    run_parts(PARTS, RESULTS, parser, lambda arguments: Study.load(arguments.data, arguments.work))


if __name__ == "__main__":
    main()
