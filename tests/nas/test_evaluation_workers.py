"""Evaluation by several processes: the table that one gives, whatever happens to them."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.evaluate import SubnetEvaluator
from nas.ledger import Ledger
from nas.supernet import Supernet
from search_spaces.errors import CheckError
from search_spaces.tiny import tiny
from tests.nas.hazards import wait_until
from tests.nas.torch_helpers import few_digits, scramble

SPACE = tiny(channels=1, classes=10)
NAME = "accuracy:5eed:validation:fp32"
GENOMES = SPACE.sample(12, np.random.default_rng(0))


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


def evaluator_of(folder: Path, workers: int | None, *, broken: bool = False) -> SubnetEvaluator:
    folder.mkdir(exist_ok=True)
    supernet = Supernet(SPACE, seed=0)
    scramble(supernet, seed=1)
    if broken:
        with torch.no_grad():
            next(supernet.parameters()).fill_(math.nan)
    return SubnetEvaluator(SPACE, supernet.eval(), "5eed", few_digits(), Ledger(folder / "ledger.db"), workers=workers)


def test_several_processes_give_the_table_that_one_gives(tmp_path: Path) -> None:
    alone = evaluator_of(tmp_path / "one", workers=None)
    together = evaluator_of(tmp_path / "two", workers=2)
    told: list[tuple[int, int]] = []
    # Some are known, one comes twice.
    together.evaluate(GENOMES[:1])
    asked = np.concatenate([GENOMES, GENOMES[3:4]])
    values = together.evaluate(asked, progress=lambda done, total: told.append((done, total)))
    assert len(multiprocessing.active_children()) == 2
    together.close()
    assert not multiprocessing.active_children()
    assert np.array_equal(values, alone.evaluate(asked))
    assert told[0] == (1, 13)
    assert told[-1] == (13, 13)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    tables = [each.ledger.values(NAME, SPACE.hash) for each in (alone, together)]
    assert tables[0] == tables[1]
    assert together.ledger.count(NAME) == len(GENOMES)


@pytest.mark.slow
def test_what_a_killed_worker_was_at_is_evaluated_by_another(tmp_path: Path) -> None:
    evaluator = evaluator_of(tmp_path, workers=2)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done == 3:
            worker = multiprocessing.active_children()[0].pid
            assert worker
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    asked = np.concatenate([GENOMES, SPACE.sample(24, np.random.default_rng(1))])
    values = evaluator.evaluate(asked, progress=kill)
    assert killed
    evaluator.close()
    # None is lost, none is there twice.
    alone = evaluator_of(tmp_path / "alone", workers=None)
    assert np.array_equal(values, alone.evaluate(asked))
    assert evaluator.ledger.values(NAME, SPACE.hash) == alone.ledger.values(NAME, SPACE.hash)
    assert evaluator.ledger.count(NAME) == alone.ledger.count(NAME)
    assert evaluator.ledger.failures(NAME, SPACE.hash) == []


def test_what_goes_wrong_in_a_worker_is_told_as_it_is(tmp_path: Path) -> None:
    evaluator = evaluator_of(tmp_path, workers=2, broken=True)
    with pytest.raises(CheckError, match="logits are not finite"):
        evaluator.evaluate(GENOMES[:3])
    evaluator.close()
    assert evaluator.ledger.count(NAME) == 0


_LEFT_BEHIND = """
import os, signal
from pathlib import Path
from tests.nas.test_evaluation_workers import GENOMES, evaluator_of
import multiprocessing

def kill(done, total):
    if done == 2:
        print(*(each.pid for each in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    evaluator_of(Path("."), workers=2).evaluate(GENOMES, progress=kill)
"""


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"


def test_workers_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    done = run_script(tmp_path, _LEFT_BEHIND)
    assert done.returncode == -signal.SIGKILL, done.stderr
    workers = [int(each) for each in done.stdout.split()]
    assert len(workers) == 2
    wait_until(lambda: not any(is_running(each) for each in workers))


def test_a_script_without_a_main_guard_is_told_of_it(tmp_path: Path) -> None:
    done = run_script(tmp_path, _LEFT_BEHIND.replace('if __name__ == "__main__":', "if True:"))
    assert done.returncode == 1
    assert 'a script needs `if __name__ == "__main__":`' in done.stderr
