"""Training the supernet: it learns, survives being killed, and never passes off one thing as another."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nas.data import ImageSplit
from nas.evaluate import SubnetEvaluator
from nas.files import sha256_file
from nas.ledger import Ledger
from nas.optimization import choose_accelerator, learning_rate
from nas.supernet import Supernet
from nas.training import load_supernet, train_supernet
from nas.training_record import TrainingConfig, TrainingRecord, find_record, parse_accelerator
from search_spaces.errors import CheckError, InputError
from search_spaces.tiny import tiny
from tests.nas.hazards import running
from tests.nas.torch_helpers import few_digits, one_thread, same_state, state_of

SPACE = tiny(channels=1, classes=10)
LONG = TrainingConfig(steps=45, batch_size=8, peak_learning_rate=5e-3, warmup_steps=5, sandwich=True, random_subnets=2)
"""Longer than two intervals of the checkpoint, which is written every 20 steps."""
KILLED_AFTER = 33
ONE_STEP = TrainingConfig(steps=1, batch_size=8, warmup_steps=0)


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


def train(directory: Path, config: TrainingConfig = LONG, **changes: Any) -> TrainingRecord:
    return train_supernet(SPACE, few_digits(), dataclasses.replace(config, **changes), directory=directory)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingRecord]:
    """A training that nothing interrupted; for reading only."""
    directory = tmp_path_factory.mktemp("finished") / "supernet"
    return directory, train(directory)


def weights(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "weights.safetensors")


def train_until_killed(directory: Path, answer: Connection) -> None:
    def progress(done: int, total: int) -> None:
        if done == KILLED_AFTER:
            answer.send(done)
            time.sleep(600)

    with one_thread():
        train_supernet(SPACE, few_digits(), LONG, directory=directory, progress=progress)


def test_training_lowers_the_loss_and_lifts_every_kind_of_subnet_above_chance(
    finished: tuple[Path, TrainingRecord], tmp_path: Path
) -> None:
    directory, record = finished
    assert record.final_loss is not None
    assert record.final_loss < 0.95 * math.log(10), "guessing has the logarithm of the number of classes"
    supernet, _ = load_supernet(SPACE, directory)
    summary = SubnetEvaluator(SPACE, supernet, "5eed", few_digits(), Ledger(tmp_path / "ledger.db")).summary()
    assert summary.largest > 0.25
    assert summary.random > 0.2
    assert summary.smallest > 0.13


@pytest.mark.slow
def test_a_training_killed_by_sigkill_goes_on_as_if_it_had_not_been(
    finished: tuple[Path, TrainingRecord], tmp_path: Path
) -> None:
    directory = tmp_path / "supernet"
    parent, child = Pipe()
    with running(train_until_killed, directory, child):
        assert parent.poll(120), "the training did not get that far"
        assert parent.recv() == KILLED_AFTER
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoint.pt", "training.csv"]
    assert find_record(directory) is None
    told: list[tuple[int, int]] = []
    record = train_supernet(SPACE, few_digits(), LONG, directory=directory, progress=lambda *each: told.append(each))
    assert told == [(step, 45) for step in range(20, 46)], "it should go on from its last checkpoint"
    assert record == finished[1]
    assert sha256_file(directory / "weights.safetensors") == sha256_file(finished[0] / "weights.safetensors")


def test_one_config_gives_one_result_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (
        train(tmp_path / name, LONG, steps=2, seed=seed) for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again
    assert other.weights_sha256 != first.weights_sha256


def test_what_a_finished_training_leaves(finished: tuple[Path, TrainingRecord]) -> None:
    directory, record = finished
    assert sorted(path.name for path in directory.iterdir()) == ["training.csv", "training.json", "weights.safetensors"]
    assert find_record(directory) == record
    assert (record.config, record.space_hash, record.data_hash) == (LONG, SPACE.hash, few_digits().content_hash)
    assert record.weights_sha256 == sha256_file(directory / "weights.safetensors")
    assert record.supernet_hash == record.weights_sha256[:16]
    supernet, loaded = load_supernet(SPACE, directory)
    assert loaded == record
    assert not supernet.training
    assert same_state(state_of(supernet), weights(directory))
    assert not same_state(state_of(supernet), state_of(Supernet(SPACE, seed=LONG.seed)))


def test_a_finished_directory_is_left_as_it_is(finished: tuple[Path, TrainingRecord]) -> None:
    directory, record = finished
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}

    def unexpected(done: int, total: int) -> None:
        pytest.fail("there is nothing to train")

    assert train_supernet(SPACE, few_digits(), LONG, directory=directory, progress=unexpected) == record
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_a_learning_rate_that_is_far_too_high_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"diverged at step \d+: .*learning rate"):
        train(tmp_path, steps=15, peak_learning_rate=1e12, warmup_steps=0)
    assert find_record(tmp_path) is None
    assert not (tmp_path / "weights.safetensors").exists()


def test_images_that_are_not_finite_are_found_out_at_once(tmp_path: Path) -> None:
    data = dataclasses.replace(few_digits(), std=(math.nan,))
    with pytest.raises(CheckError, match="diverged at step 0"):
        train_supernet(SPACE, data, ONE_STEP, directory=tmp_path)
    assert find_record(tmp_path) is None


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    config = TrainingConfig(steps=100, warmup_steps=10, peak_learning_rate=0.5)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * step for step in range(1, 11)])
    assert rates[10] == max(rates) == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.25)
    assert 0 < rates[-1] < 0.001 * 0.5


@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (1, 20), (5, 5), (3, 20), (20, 0)])
def test_every_step_of_a_short_training_has_a_rate_inside_the_peak(steps: int, warmup_steps: int) -> None:
    config = TrainingConfig(steps=steps, warmup_steps=warmup_steps)
    assert all(0 < learning_rate(config, step) <= config.peak_learning_rate for step in range(steps))


def test_the_rate_reaches_the_optimiser(tmp_path: Path) -> None:
    # A first step of Adam moves each weight by about the rate, whatever the gradient.
    fresh = state_of(Supernet(SPACE, seed=0))
    name = "slots.head.head.classify.bias"
    for warmup_steps in (1, 10):
        directory = tmp_path / str(warmup_steps)
        train(directory, ONE_STEP, peak_learning_rate=1e-2, warmup_steps=warmup_steps)
        moved = (weights(directory)[name] - fresh[name]).abs()
        assert float(moved.median()) == pytest.approx(1e-2 / warmup_steps, rel=0.02)


def test_norms_biases_and_layer_scales_do_not_decay(tmp_path: Path) -> None:
    decay, rate = 0.5, 1e-3
    for value in (0.0, decay):
        train(tmp_path / str(value), ONE_STEP, weight_decay=value, peak_learning_rate=rate)
    free, decayed, fresh = weights(tmp_path / "0.0"), weights(tmp_path / str(decay)), state_of(Supernet(SPACE, seed=0))
    counts = {True: 0, False: 0}
    for name, parameter in Supernet(SPACE, seed=0).named_parameters():
        if torch.equal(free[name], fresh[name]):
            continue  # in no subnet of this step
        is_weight = parameter.ndim > 1
        counts[is_weight] += 1
        # AdamW's decay is apart from the gradient: it takes the same share of every weight.
        expected = -decay * rate * fresh[name] if is_weight else torch.zeros_like(fresh[name])
        torch.testing.assert_close(decayed[name] - free[name], expected, rtol=1e-2, atol=1e-7)
    assert min(counts.values()) > 20


def test_a_batch_is_at_most_the_training_split(tmp_path: Path) -> None:
    images = few_digits().split("train")
    few = ImageSplit(images.images[:12], images.labels[:12])
    data = dataclasses.replace(few_digits(), splits={**few_digits().splits, "train": few})
    for batch_size in (12, 100_000):
        config = dataclasses.replace(ONE_STEP, batch_size=batch_size)
        train_supernet(SPACE, data, config, directory=tmp_path / str(batch_size))
    assert same_state(weights(tmp_path / "12"), weights(tmp_path / "100000"))


def test_accelerators_go_by_name() -> None:
    assert choose_accelerator("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_accelerator("auto").type == expected
    assert parse_accelerator("auto") == "auto"
    with pytest.raises(InputError, match="cpu"):
        parse_accelerator("cpuu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_absent_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cuda"):
        train_supernet(SPACE, few_digits(), ONE_STEP, directory=tmp_path / "new", accelerator="cuda")
    assert not (tmp_path / "new").exists()
