"""Fixtures that tests of every package share."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest

from nas import lut
from tests.command_line import Stage, exported, nas, nas_here, succeed
from tests.environments import environment_with

# One thread for torch, here and in commands, set before it is loaded: where other processes want the cores too, threads
# that wait for each other take up to ten times as long.
os.environ["OMP_NUM_THREADS"] = "1"

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
EVALUATIONS = 36
"""Of the shared search: a first sample and some rounds, too few to choose among regressions, which takes seconds."""
SHARED_STAGES = "train_stage"
"""Every fixture below that is made once per session continues this one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give one process (`pytest -n 2`) all tests of the shared run, which is made once, and all marked as measuring."""
    for item in items:
        if item.get_closest_marker("device") or SHARED_STAGES in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("shared run"))


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


# The four stages of the main job, each once per session, each in a directory that continues a copy of the one before.
# They are shared: what a test changes, it changes in a copy of its own.
@pytest.fixture(scope="session")
def train_stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """`nas train` of a few steps."""
    run = tmp_path_factory.mktemp("trained") / "run"
    return Stage(run, succeed(nas("train", "--run", run, "--steps", 12, "--batch-size", 32, "--json")))


@pytest.fixture(scope="session")
def lut_stage(train_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """`nas build-lut` for this machine's processor, with fewer rounds than users get: it takes most of the time."""
    run = shutil.copytree(train_stage.run, tmp_path_factory.mktemp("measured") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lut, "ROUNDS", 6)
        # A few rounds on a busy machine may disagree by more than a user's table may.
        patch.setattr(lut, "UNUSABLE_PERCENT", math.inf)
        patch.setattr(lut, "SUSTAINED_S", 0.01)
        return Stage(run, succeed(nas_here("build-lut", "--run", run, "--device", "cpu", "--json")))


@pytest.fixture(scope="session")
def search_stage(lut_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """`nas search` inside a budget in the middle of the range, compared with random search."""
    run = shutil.copytree(lut_stage.run, tmp_path_factory.mktemp("searched") / "run")
    options = ("--budget-ms", "50%", "--evaluations", EVALUATIONS, "--compare", "random-predictor", "--json")
    return Stage(run, succeed(nas("search", "--run", run, *options)))


@pytest.fixture(scope="session")
def export_stage(search_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """`nas export` of the best network."""
    run = shutil.copytree(search_stage.run, tmp_path_factory.mktemp("exported") / "run")
    return Stage(run, exported(nas("export", "--run", run, "--json")))


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
