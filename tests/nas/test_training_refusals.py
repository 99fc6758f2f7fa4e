"""What a training finds in its directory: only what is whole, its own, and no code is taken for a training."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.files import sha256_file
from nas.supernet import Supernet
from nas.training import load_supernet, train_supernet
from nas.training_record import TrainingConfig, TrainingRecord
from search_spaces.errors import InputError
from search_spaces.tiny import tiny
from tests.nas.torch_helpers import few_digits, one_thread

SPACE = tiny(channels=1, classes=10)
CONFIG = TrainingConfig(steps=22, batch_size=8)
"""A little longer than the interval of the checkpoint, which is written every 20 steps."""


class Stopped(Exception):  # noqa: N818 - not an error
    """Ends a training from its progress callback."""


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


def train(directory: Path) -> TrainingRecord:
    return train_supernet(SPACE, few_digits(), CONFIG, directory=directory)


def stop_at_checkpoint(done: int, total: int) -> None:
    if done == 21:
        raise Stopped


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of which a checkpoint is left; for reading only."""
    directory = tmp_path_factory.mktemp("stopped") / "supernet"
    with pytest.raises(Stopped):
        train_supernet(SPACE, few_digits(), CONFIG, directory=directory, progress=stop_at_checkpoint)
    return directory


@pytest.fixture(scope="module")
def finished(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingRecord]:
    """The same training at its end; for reading only."""
    directory = shutil.copytree(stopped, tmp_path_factory.mktemp("finished") / "supernet")
    return directory, train(directory)


@pytest.fixture
def checkpoint(stopped: Path, tmp_path: Path) -> Path:
    """The checkpoint of a copy of the stopped training."""
    return shutil.copytree(stopped, tmp_path / "supernet") / "checkpoint.pt"


def test_finished_weights_that_are_lost_are_trained_again(
    finished: tuple[Path, TrainingRecord], tmp_path: Path
) -> None:
    # What reads them says "train again", so that training again must help.
    directory = shutil.copytree(finished[0], tmp_path / "supernet")
    (directory / "weights.safetensors").unlink()
    assert train(directory) == finished[1]
    load_supernet(SPACE, directory)


OTHER_DATA = dataclasses.replace(few_digits(), content_hash="other")


@pytest.mark.parametrize("state", ["finished", "checkpoint"])
@pytest.mark.parametrize("change", ["steps", "seed", "learning rate", "space", "data"])
def test_another_training_in_the_same_directory_is_refused_in_one_line(
    finished: tuple[Path, TrainingRecord], stopped: Path, tmp_path: Path, state: str, change: str
) -> None:
    directory = shutil.copytree(finished[0] if state == "finished" else stopped, tmp_path / "supernet")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    config = {
        "steps": dataclasses.replace(CONFIG, steps=23),
        "seed": dataclasses.replace(CONFIG, seed=1),
        "learning rate": dataclasses.replace(CONFIG, peak_learning_rate=1e-3),
    }.get(change, CONFIG)
    space = tiny(1, 11) if change == "space" else SPACE
    data = OTHER_DATA if change == "data" else few_digits()
    with pytest.raises(InputError, match="other settings") as refusal:
        train_supernet(space, data, config, directory=directory)
    assert "\n" not in str(refusal.value)
    assert str(directory) in str(refusal.value)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def assert_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="delete it") as refusal:
        train(checkpoint.parent)
    assert "\n" not in str(refusal.value)
    assert str(checkpoint) in str(refusal.value)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_a_checkpoint_that_is_cut_off_is_refused(checkpoint: Path, share: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    assert_refused(checkpoint)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_checkpoint_with_a_flipped_bit_is_refused(checkpoint: Path, share: float) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[int(share * len(content))] ^= 0x40
    checkpoint.write_bytes(bytes(content))
    assert_refused(checkpoint)


def content_of(checkpoint: Path) -> dict[str, Any]:
    content = torch.load(checkpoint, weights_only=True)
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("part", ["identity", "step", "module", "optimizer"])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_checkpoint_that_lacks_a_part_is_refused(checkpoint: Path, part: str, how: str) -> None:
    content = content_of(checkpoint)
    del content[part]
    torch.save(content if how == "missing" else content | {part: {}}, checkpoint)
    with pytest.raises(InputError) as refusal:
        train(checkpoint.parent)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [None, [1, 2], {}, "text"])
def test_a_checkpoint_that_is_something_else_is_refused(checkpoint: Path, content: object) -> None:
    torch.save(content, checkpoint)
    assert_refused(checkpoint)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_executed(checkpoint: Path, tmp_path: Path, *, zipped: bool) -> None:
    content = content_of(checkpoint) | {"bomb": Bomb(tmp_path / "exploded")}
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    checkpoint.write_bytes(buffer.getvalue())
    assert zipfile.is_zipfile(checkpoint) == zipped
    assert_refused(checkpoint)
    assert not (tmp_path / "exploded").exists()
    torch.load(checkpoint, weights_only=False)
    assert (tmp_path / "exploded").exists(), "the bomb works where code is allowed to run"


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut off", "others"])
def test_damaged_weights_are_refused(finished: tuple[Path, TrainingRecord], tmp_path: Path, damage: str) -> None:
    path = shutil.copytree(finished[0], tmp_path / "supernet") / "weights.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "others":
        save_file(dict(Supernet(SPACE, seed=9).state_dict()), path)
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if damage == "flipped" else content[:-4])
    with pytest.raises(InputError, match="damaged") as refusal:
        load_supernet(SPACE, path.parent)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("content", ["no tensors", "other names", "other shapes"])
def test_weights_that_do_not_fit_the_space_are_refused_in_one_line(
    finished: tuple[Path, TrainingRecord], tmp_path: Path, content: str
) -> None:
    directory = shutil.copytree(finished[0], tmp_path / "supernet")
    path = directory / "weights.safetensors"
    tensors = load_file(path)
    if content == "no tensors":
        path.write_bytes(b"these are no tensors")
    elif content == "other names":
        save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, path)
    else:
        save_file({name: torch.zeros(3) for name in tensors}, path)
    record = (directory / "training.json").read_text()
    (directory / "training.json").write_text(record.replace(finished[1].weights_sha256, sha256_file(path)))
    with pytest.raises(InputError, match="does not fit the space") as refusal:
        load_supernet(SPACE, directory)
    assert "\n" not in str(refusal.value)


def test_loading_names_what_is_missing(finished: tuple[Path, TrainingRecord], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nas train"):
        load_supernet(SPACE, tmp_path)
    with pytest.raises(InputError, match=tiny(1, 11).hash):
        load_supernet(tiny(1, 11), finished[0])
