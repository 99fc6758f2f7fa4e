"""How many networks per second workers evaluate through one ledger; see README.md beside this file.

python experiments/evaluation-workers/run.py --run runs/default [--postgresql URL] [PART ...]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.study import Parts, Rows, provenance, run_parts, save_table, say
from nas.evaluate import SubnetEvaluator
from nas.evaluation_workers import EvaluationWorkers, Work
from nas.ledger import Genes, Ledger
from nas.run import Run

RESULTS = Path(__file__).parent / "results"
SEED = 0
ROUNDS = 3  # of all settings in turn
EVALUATED, WARM_UP = 48, 8  # networks per setting
WAIT_S = 0.25
BATCH = 8  # networks that are asked for before the next are chosen, as in a round of a search


@dataclass(frozen=True)
class Study:
    """Where a trained run is, and the URL of an empty database or None."""

    run: Path
    postgresql: str | None


def _evaluation(study: Study) -> None:
    """Real evaluations of a supernet, each of which keeps a processor busy."""
    run = Run.existing(study.run, first="nas train")
    alone = run.evaluator()
    genomes = run.space.sample(WARM_UP + EVALUATED, np.random.default_rng(SEED))
    rows: Rows = []
    tables = []
    for _ in range(ROUNDS):
        for workers in (None, 1, 2, 4):
            with tempfile.TemporaryDirectory() as scratch:
                ledger = Ledger(Path(scratch) / "ledger.db")
                evaluator = SubnetEvaluator(
                    run.space, alone.supernet, alone.supernet_hash, alone.data, ledger, workers=workers
                )
                evaluator.evaluate(genomes[:WARM_UP])  # starts the workers
                started = time.perf_counter()
                for batch in np.array_split(genomes[WARM_UP:], EVALUATED // BATCH):
                    evaluator.upcoming(batch)
                    evaluator.evaluate(batch)
                seconds = time.perf_counter() - started
                evaluator.close()
                tables.append(evaluator.known())
            rows.append({"workers": "this process" if workers is None else workers, "per_second": EVALUATED / seconds})
            say(f"{rows[-1]}")
    same = all(list(table.items()) == list(tables[0].items()) for table in tables)
    if not same:
        raise SystemExit("the tables differ")
    _save(rows, "evaluation")


def _queue(study: Study) -> None:
    """Evaluations that only wait, as for a device or with a processor each: what the ledger itself allows."""
    genomes: list[Genes] = [(number, 0) for number in range(WARM_UP + EVALUATED)]
    rows: Rows = []
    for _ in range(ROUNDS):
        for place in ("SQLite", *(("PostgreSQL",) if study.postgresql else ())):
            for workers in (1, 2, 4, 8):
                with tempfile.TemporaryDirectory() as scratch:
                    url = study.postgresql if place == "PostgreSQL" else None
                    work = Work(_waiting, url or Path(scratch) / "ledger.db", f"maximize:{time.time_ns()}", "space")
                    team = EvaluationWorkers(work, workers)
                    list(team.figures(genomes[:WARM_UP]))
                    started = time.perf_counter()
                    for first in range(WARM_UP, len(genomes), BATCH):
                        list(team.figures(genomes[first : first + BATCH]))
                    seconds = time.perf_counter() - started
                    team.close()
                    once = [row.genes for row in Ledger(work.place).rows(work.evaluator, "space")] == genomes
                rows.append({"ledger": place, "workers": workers, "per_second": EVALUATED / seconds, "once": once})
                say(f"{rows[-1]}")
    _save(rows, "queue")


def _waiting() -> Callable[[Genes], float]:
    return _wait


def _wait(genes: Genes) -> float:
    time.sleep(WAIT_S)
    return float(genes[0])


def _save(rows: Rows, name: str) -> None:
    frame = pd.DataFrame(rows)
    by = [column for column in frame.columns if column not in ("per_second", "once")]
    told = frame.groupby(by, sort=False).per_second.agg(["median", "min", "max"]).reset_index()
    if "once" in frame:
        told["each_once_in_order"] = frame.groupby(by, sort=False).once.all().to_numpy()
    save_table(RESULTS, told, name)
    save_table(RESULTS, provenance(["torch", "optuna", "sqlalchemy"]), "provenance")


PARTS: Parts[Study] = {"evaluation": ("evaluation.csv", _evaluation), "queue": ("queue.csv", _queue)}


def _load(arguments: argparse.Namespace) -> Study:
    return Study(arguments.run, arguments.postgresql)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True, help="a run with a trained supernet")
    parser.add_argument("--postgresql", metavar="URL", help="an empty database")
    run_parts(PARTS, RESULTS, parser, _load)
