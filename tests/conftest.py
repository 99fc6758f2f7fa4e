"""Fixtures that tests of every package share."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nas import lut
from tests.command_line import Finished, Stage, exported, nas, nas_here, succeed
from tests.environments import environment_with

# One thread for torch, here and in commands, set before it is loaded: where other processes want the cores too, threads
# that wait for each other take up to ten times as long.
os.environ["OMP_NUM_THREADS"] = "1"

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
EVALUATIONS = 36
"""Of the shared search: a first sample and some rounds, too few to choose among regressions, which takes seconds."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published tables and image sets that lies beside a checkout; a clone elsewhere has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside this checkout: published tables and image sets are not part of it")
    return SHARED_DATA


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds onnxruntime and numpy."""
    return environment_with(tmp_path_factory.mktemp("bare"), "onnxruntime", "numpy")


@pytest.fixture
def any_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take tables of a few short rounds, which on a busy machine may disagree by more than a user's table may."""
    monkeypatch.setattr(lut, "UNUSABLE_PERCENT", math.inf)


# The four stages of the main job, each once, each in a directory that continues a copy of the one before. They are
# shared: what a test changes, it changes in a copy of its own.
@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stages, the same for all processes of a session; of several sessions where one is named."""
    if named := os.environ.get("NAS_TEST_STAGES"):
        folder = Path(named)
    else:
        base = tmp_path_factory.getbasetemp()
        folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "stages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made_once(folder: Path, name: str, before: Stage | None, make: Callable[[Path], Finished]) -> Stage:
    """Return a stage, made by whichever process needs it first; others wait for it."""
    run, told = folder / name / "run", folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            shutil.rmtree(run, ignore_errors=True)
            run.parent.mkdir(exist_ok=True)
            if before is not None:
                shutil.copytree(before.run, run)
            aside = told.with_suffix(".part")
            aside.write_text(json.dumps(dataclasses.asdict(make(run))))
            aside.replace(told)
    return Stage(run, Finished(**json.loads(told.read_text())))


@pytest.fixture(scope="session")
def train_stage(stages: Path) -> Stage:
    """`nas train` of a few steps."""

    def make(run: Path) -> Finished:
        return succeed(nas("train", "--run", run, "--steps", 12, "--batch-size", 32, "--json"))

    return made_once(stages, "trained", None, make)


@pytest.fixture(scope="session")
def lut_stage(stages: Path, train_stage: Stage) -> Stage:
    """`nas build-lut` for this machine's processor, with fewer rounds than users get: it takes most of the time."""

    def make(run: Path) -> Finished:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lut, "ROUNDS", 6)
            # A few rounds on a busy machine may disagree by more than a user's table may.
            patch.setattr(lut, "UNUSABLE_PERCENT", math.inf)
            patch.setattr(lut, "SUSTAINED_S", 0.01)
            return succeed(nas_here("build-lut", "--run", run, "--device", "cpu", "--json"))

    return made_once(stages, "measured", train_stage, make)


@pytest.fixture(scope="session")
def search_stage(stages: Path, lut_stage: Stage) -> Stage:
    """`nas search` inside a budget in the middle of the range, compared with random search."""
    options = ("--budget-ms", "50%", "--evaluations", EVALUATIONS, "--compare", "random-predictor", "--json")
    return made_once(stages, "searched", lut_stage, lambda run: succeed(nas("search", "--run", run, *options)))


@pytest.fixture(scope="session")
def export_stage(stages: Path, search_stage: Stage) -> Stage:
    """`nas export` of the best network."""
    return made_once(stages, "exported", search_stage, lambda run: exported(nas("export", "--run", run, "--json")))


@pytest.fixture(scope="session")
def trained_run(train_stage: Stage) -> Path:
    """A run directory with a trained supernet and nothing else; for reading only."""
    return train_stage.run


@pytest.fixture(scope="session")
def measured_run(lut_stage: Stage) -> Path:
    """A run directory with a supernet and a latency table; for reading only."""
    return lut_stage.run


@pytest.fixture(scope="session")
def searched_run(search_stage: Stage) -> Path:
    """A run directory with a supernet, a latency table and a front; for reading only."""
    return search_stage.run
