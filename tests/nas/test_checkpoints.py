"""Trainings that are stopped, or killed at any moment, end as if they had not been, whatever their settings."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nas.fitting
from nas.files import sha256_file
from nas.training_record import TrainingConfig, find_record, training_config
from tests.nas.hazards import running, wait_until
from tests.nas.test_recipe import RICH, rows_of, train
from tests.nas.torch_helpers import one_thread


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


STEPS = 62


class Stopped(Exception):  # noqa: N818 - not an error
    """Ends a training from its progress callback."""


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingConfig, str]:
    """Settings with everything, and the hash of the weights that an uninterrupted training ends with."""
    config = training_config(None, {"steps": STEPS, "batch_size": 6, "warmup_steps": 5, **RICH})
    return config, train(tmp_path_factory.mktemp("rich"), config).weights_sha256


@pytest.mark.parametrize("damaged", [False, True])
def test_a_stopped_training_goes_on_to_the_same_weights_with_every_setting(
    rich: tuple[TrainingConfig, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> None:
    monkeypatch.setattr("nas.fitting._CHECKPOINT_SHARE", math.inf)  # a checkpoint every 20 steps, however long it takes
    config, expected = rich
    steps: list[int] = []

    def stop(done: int, total: int) -> None:
        if done == 51:
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path, config, progress=stop)
    newest = tmp_path / "checkpoint.pt"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.previous.pt",
        "checkpoint.pt",
        "training.csv",
    ]
    if damaged:
        newest.write_bytes(newest.read_bytes()[:-100])
    notices: list[str] = []
    record = train(tmp_path, config, progress=lambda done, total: steps.append(done), notice=notices.append)
    assert steps[0] == (20 if damaged else 40)
    assert [str(newest) in each for each in notices] == [True] * damaged
    assert record.weights_sha256 == expected == sha256_file(tmp_path / "weights.safetensors")
    assert [int(row["step"]) for row in rows_of(tmp_path / "training.csv")] == list(range(STEPS))
    assert not list(tmp_path.glob("checkpoint*"))
    assert json.loads((tmp_path / "training.json").read_text())["config"]["divergence"] == "alpha"


def train_and_tell(directory: Path, config: TrainingConfig, steps: Connection) -> None:
    nas.fitting._CHECKPOINT_SHARE = math.inf
    with one_thread():
        train(directory, config, progress=lambda done, total: steps.send(done))


ONE_RANDOM = {"ema_decay": 0.9, "head_warmup_steps": 30, "shift": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [RICH, ONE_RANDOM], ids=["everything", "one random"])
def test_a_training_killed_at_any_moment_ends_as_if_it_had_not_been(settings: dict[str, Any], tmp_path: Path) -> None:
    config = training_config(None, {"steps": STEPS, "batch_size": 6, "warmup_steps": 5, **settings})
    expected = train(tmp_path / "whole", config).weights_sha256
    rng = np.random.default_rng(0)
    begun = []
    for life in range(5):
        parent, child = Pipe()
        with running(train_and_tell, tmp_path / "killed", config, child):
            assert parent.poll(120), "the training did not begin"
            begun.append(parent.recv())
            # Before the first checkpoint, soon after one, while one is written: wherever that falls.
            last = begun[-1] + int(rng.integers(1, 24))
            while life < 4 and parent.recv() < min(last, STEPS - 1):
                pass
            time.sleep(rng.uniform(0.0, 0.02))
            if life == 4:
                wait_until(lambda: find_record(tmp_path / "killed") is not None, seconds=120)
    assert begun[0] == 0
    assert begun == sorted(begun)
    assert 20 <= begun[-1] < STEPS
    assert sha256_file(tmp_path / "killed" / "weights.safetensors") == expected
