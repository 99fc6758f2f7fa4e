"""Trainings that start from weights of elsewhere: what is taken over, what is told, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.files import sha256_file
from nas.initial_weights import take_over
from nas.supernet import Supernet
from nas.training import train_supernet
from nas.training_record import TrainingConfig, TrainingRecord, find_record
from search_spaces.catalogue import find_space
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.tiny import tiny
from tests.command_line import nas_here, succeed
from tests.nas.test_ofa_weights import published, saved
from tests.nas.torch_helpers import few_digits, one_thread, same_state, state_of

SPACE = tiny(channels=1, classes=10)
CONFIG = TrainingConfig(steps=2, batch_size=8, warmup_steps=1, peak_learning_rate=1e-2)
CLASSIFIER = {"slots.head.head.classify.weight", "slots.head.head.classify.bias"}


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


def train(directory: Path, config: TrainingConfig = CONFIG, **options: Any) -> TrainingRecord:
    return train_supernet(SPACE, few_digits(), config, directory=directory, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a trained supernet; for reading only."""
    run = tmp_path_factory.mktemp("run") / "first"
    train(run / "supernet")
    return run


@pytest.mark.parametrize("what", ["run", "supernet", "weights"])
def test_everything_of_the_same_space_is_taken_over(run: Path, what: str) -> None:
    file = run / "supernet" / "weights.safetensors"
    source = {"run": run, "supernet": run / "supernet", "weights": file}[what]
    supernet = Supernet(SPACE, seed=7)
    found = take_over(supernet, SPACE, source)
    assert same_state(state_of(supernet), load_file(file))
    assert (found.drawn, found.unused) == ((), ())
    assert found.matched == len(load_file(file))
    assert (found.source, found.sha256) == (source.name, sha256_file(file))


def test_a_classifier_of_other_classes_stays_as_it_was_drawn(run: Path) -> None:
    space = tiny(channels=1, classes=6)
    supernet, drawn = Supernet(space, seed=7), state_of(Supernet(space, seed=7))
    found = take_over(supernet, space, run)
    assert set(found.drawn) == set(found.unused) == CLASSIFIER
    stored, now = load_file(run / "supernet" / "weights.safetensors"), state_of(supernet)
    for name, value in now.items():
        assert torch.equal(value, (drawn if name in CLASSIFIER else stored)[name])


def test_widths_with_layer_scales_of_their_own_begin_with_those_that_were_shared(run: Path) -> None:
    sharing = dataclasses.replace(SPACE.layout.sharing, switchable_layer_scale=True)
    space = NetworkSpace(dataclasses.replace(SPACE.layout, sharing=sharing))
    supernet = Supernet(space, seed=7)
    found = take_over(supernet, space, run)
    stored = load_file(run / "supernet" / "weights.safetensors")
    assert (found.drawn, found.unused) == ((), ())
    own = {name: value for name, value in state_of(supernet).items() if ".switched." in name}
    assert own
    for name, value in own.items():
        layer, _, width = name.rpartition(".switched.")
        assert torch.equal(value, stored[f"{layer}.gamma"][: int(width)])


@pytest.mark.slow
def test_what_was_taken_over_is_told_and_freed_memory_is_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr("nas.memory.keep_freed_memory", lambda: kept.append(True))
    monkeypatch.chdir(tmp_path)
    np.savez("six.npz", x_train=np.zeros((60, 8, 8), np.uint8), y_train=np.arange(60) % 6)
    done = succeed(
        nas_here("train", "--data", "npz:six.npz", "--steps", "1", "--batch-size", "8", "--init", str(run / "supernet"))
    )
    told = " ".join(done.stdout.split())
    count = len(load_file(run / "supernet" / "weights.safetensors")) - len(CLASSIFIER)
    assert f"Started from supernet: {count} tensors taken over, 2 drawn at random (slots.head.head.classify." in told
    assert "2 not used (slots.head.head.classify." in told
    assert kept == [True]


@pytest.mark.slow
def test_the_command_takes_what_a_space_has_of_its_own(tmp_path: Path) -> None:
    succeed(nas_here("train", "--run", tmp_path, "--space", "cifar", "--data", "digits", "--steps", "1"))
    record = find_record(tmp_path / "supernet")
    assert record is not None
    assert record.config == TrainingConfig(steps=1, warmup_steps=0, batch_size=64)


@pytest.mark.parametrize("classes", [7, 9])
def test_published_weights_are_taken_over(classes: int, tmp_path: Path) -> None:
    space = find_space("ofa-mbv3:width=1.0,resolution=64", channels=3, classes=7)
    supernet, drawn = Supernet(space, seed=3), state_of(Supernet(space, seed=3))
    found = take_over(supernet, space, saved(published(classes=classes), tmp_path / "ofa.pth"))
    fits = classes == 7
    assert set(found.drawn) == (set() if fits else CLASSIFIER)
    now = state_of(supernet)
    assert torch.equal(now["slots.stem.stem.conv.weight"], published()["first_conv.conv.weight"])
    assert torch.equal(now["slots.head.head.classify.weight"], drawn["slots.head.head.classify.weight"]) != fits


def test_a_training_starts_there_and_says_so(run: Path, tmp_path: Path) -> None:
    record = train(tmp_path / "supernet", dataclasses.replace(CONFIG, steps=1, peak_learning_rate=1e-9), initial=run)
    before, after = (load_file(each / "supernet" / "weights.safetensors") for each in (run, tmp_path))
    parameters = [name for name, _ in Supernet(SPACE, seed=0).named_parameters()]
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-6) for name in parameters)
    assert record.initial is not None
    assert record.initial.source == "first"
    assert find_record(tmp_path / "supernet") == record


def test_another_start_is_another_training(run: Path, tmp_path: Path) -> None:
    directory = tmp_path / "supernet"
    first = train(directory)
    with pytest.raises(InputError, match=r"other settings .start weights drawn at random, now weights .* of first"):
        train(directory, initial=run)
    assert find_record(directory) == first
    again = train(tmp_path / "again", initial=run)
    assert train(tmp_path / "again", initial=run) == again
    with pytest.raises(InputError, match="other settings"):
        train(tmp_path / "again")


def test_nothing_but_the_head_learns_in_its_warm_up(run: Path, tmp_path: Path) -> None:
    before = load_file(run / "supernet" / "weights.safetensors")
    parameters = dict(Supernet(SPACE, seed=0).named_parameters())
    for head_steps, frozen in ((2, True), (1, False)):
        directory = tmp_path / str(head_steps)
        train(directory, dataclasses.replace(CONFIG, head_warmup_steps=head_steps), initial=run)
        after = load_file(directory / "weights.safetensors")
        changed = {name for name in parameters if not torch.equal(before[name], after[name])}
        assert changed >= CLASSIFIER
        assert all(name.startswith("slots.head.") for name in changed) == frozen


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda folder, run: folder / "nowhere", "there is no .*nowhere; --init takes a run or a file of weights"),
        (lambda folder, run: folder, "holds no trained supernet; --init takes"),
        (lambda folder, run: run / "supernet" / "training.json", "training.json is no file of weights"),
        (lambda folder, run: stored(folder, {"other": torch.ones(3)}), "nothing in .* fits the space tiny"),
        (
            lambda folder, run: stored(folder, {name: torch.full((10,), torch.nan) for name in CLASSIFIER}),
            "holds values that are not finite",
        ),
        (lambda folder, run: saved({"a": torch.ones(1)}, folder / "ofa.pth"), "published weights fit the space ofa"),
        (
            lambda folder, run: stored(
                folder, {"slots.head.head.classify.bias": torch.full((10,), 1e300, dtype=torch.float64)}
            ),
            "not finite in 32 bits",
        ),
        (
            lambda folder, run: stored(
                folder, {"slots.head.head.classify.bias": torch.ones(10, dtype=torch.complex64)}
            ),
            "nothing in .* fits",
        ),
        (lambda folder, run: damaged(folder, run), "weights.safetensors is missing or damaged"),
    ],
)
def test_what_cannot_be_started_from_is_refused(make: Any, complaint: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        train(tmp_path / "supernet", initial=make(tmp_path, run))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "supernet").exists()


def stored(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, folder / "other.safetensors")
    return folder / "other.safetensors"


def damaged(folder: Path, run: Path) -> Path:
    copy = folder / "copy"
    copy.mkdir()
    (copy / "training.json").write_bytes((run / "supernet" / "training.json").read_bytes())
    (copy / "weights.safetensors").write_bytes((run / "supernet" / "weights.safetensors").read_bytes()[:-1])
    return copy
