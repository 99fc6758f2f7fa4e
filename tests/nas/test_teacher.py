"""A teacher from elsewhere: asked once, by file or module, and what is none is refused."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nas.data import ImageData
from nas.fitting import batch_rows
from nas.teacher import FILE, KEPT, SoftLabels, soft_labels
from nas.training import train_supernet
from nas.training_record import TrainingConfig, TrainingRecord
from search_spaces.errors import InputError
from search_spaces.tiny import tiny
from tests.nas.torch_helpers import few_digits, one_thread

SPACE = tiny(channels=1, classes=10)
CONFIG = TrainingConfig(steps=4, batch_size=8, warmup_steps=1)
CPU = torch.device("cpu")
SIDE = 24


class Judge(nn.Module):
    """Answers by the brightness of parts of an image, and counts how often it is asked."""

    asked = 0

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layer = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            type(self).asked += 1
        answers: Tensor = self.layer(nn.functional.avg_pool2d(images, images.shape[-1] // 4).flatten(1))
        return answers


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of a user's, in the folder where the command is started."""
    (tmp_path / "my_teachers.py").write_text(
        "import torch\n"
        "from tests.nas.test_teacher import Judge\n"
        "def judge(): return Judge()\n"
        "def few(): return Judge(classes=3)\n"
        "def words(): return 'no module'\n"
        "def lost(): return torch.load('nowhere.pt')\n"
        "def broken():\n"
        "    judge = Judge()\n"
        "    torch.nn.init.constant_(judge.layer.bias, float('nan'))\n"
        "    return judge\n"
        "def wide(): return torch.nn.Sequential(torch.nn.Conv2d(3, 10, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_teachers", raising=False)


def exported(path: Path, *, side: int = SIDE, batch: int | None = None, channels: int = 1) -> str:
    """Write the judge as an ONNX file, for any number of images or a fixed one."""
    images = torch.zeros(batch or 2, channels, side, side)
    shapes = None if batch else ({0: torch.export.Dim("n")},)
    model: nn.Module = Judge() if channels == 1 else nn.Sequential(nn.Conv2d(channels, 1, 1), Judge())
    torch.onnx.export(model.eval(), (images,), path, dynamic_shapes=shapes, verbose=False)
    return str(path)


def asked(source: str, folder: Path, data: ImageData | None = None) -> SoftLabels:
    return soft_labels(source, data or few_digits(), folder=folder, device=CPU)[0]


def train(directory: Path, teacher: str | None, config: TrainingConfig = CONFIG, **options: Any) -> TrainingRecord:
    return train_supernet(SPACE, few_digits(), config, directory=directory, teacher=teacher, **options)


def test_answers_are_those_of_the_module_and_it_is_asked_once(tmp_path: Path) -> None:
    data = few_digits()
    train_split = data.split("train")
    with torch.no_grad():
        expected = Judge()(torch.from_numpy(data.normalise(train_split.images))).softmax(dim=1)
    soft, record = soft_labels("my_teachers:judge", data, folder=tmp_path, device=CPU)
    torch.testing.assert_close(soft.of(np.arange(len(expected))), expected)
    right = float((expected.argmax(dim=1).numpy() == train_split.labels).mean())
    assert record.train_accuracy == pytest.approx(right)
    times = Judge.asked
    assert torch.equal(asked("my_teachers:judge", tmp_path).shares, soft.shares)
    assert Judge.asked == times


def test_of_many_classes_the_most_probable_are_kept_and_the_rest_is_spread() -> None:
    soft = SoftLabels(torch.tensor([[2, 0]]), torch.tensor([[0.5, 0.3]]), n_classes=6)
    assert soft.of(np.array([0]))[0].tolist() == pytest.approx([0.3, 0.05, 0.5, 0.05, 0.05, 0.05])
    assert KEPT == 10


@pytest.mark.parametrize(("side", "batch"), [(SIDE, None), (SIDE, 7), (12, None)])
def test_a_file_answers_as_its_module_for_any_batch_and_size(tmp_path: Path, side: int, batch: int | None) -> None:
    from_file = asked(exported(tmp_path / "judge.onnx", side=side, batch=batch), tmp_path / "file")
    from_module = asked("my_teachers:judge", tmp_path / "module")
    rows = np.arange(50)
    # Scaled images are not the same, but these answers depend on brightness alone.
    torch.testing.assert_close(from_file.of(rows), from_module.of(rows), rtol=0, atol=1e-5 if side == SIDE else 0.05)


def test_damaged_or_foreign_answers_are_asked_for_again(tmp_path: Path) -> None:
    whole = asked("my_teachers:judge", tmp_path)
    path = tmp_path / FILE
    stored = load_file(path)
    for spoil in (
        lambda: path.write_bytes(path.read_bytes()[:-9]),
        lambda: path.write_bytes(b"no tensors"),
        lambda: save_file(stored, path),  # says nothing of whose they are
    ):
        spoil()
        assert torch.equal(asked("my_teachers:judge", tmp_path).shares, whole.shares)
    fewer = dataclasses.replace(few_digits(), content_hash="5eed")
    times = Judge.asked
    asked("my_teachers:judge", tmp_path, fewer)
    assert Judge.asked > times


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ("nowhere.onnx", "there is no nowhere.onnx"),
        ("nowhere:judge", "No module named 'nowhere'"),
        ("my_teachers:nobody", "has no function 'nobody'"),
        ("my_teachers:words", "must return a torch.nn.Module, not str"),
        ("my_teachers:lost", "raised FileNotFoundError"),
        ("my_teachers:few", "the data has 10 classes"),
        ("my_teachers:broken", "not finite"),
        ("my_teachers:wide", "raised RuntimeError"),
        ("judge", "raised"),
    ],
)
def test_what_is_no_teacher_is_refused(tmp_path: Path, teacher: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        asked(teacher, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_teacher_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"text\.onnx"):
        asked("text.onnx", tmp_path / "run")
    colour = exported(tmp_path / "colour.onnx", channels=3)
    with pytest.raises(InputError, match=r"\[n, 1, side, side\]"):
        asked(colour, tmp_path / "run")


def test_the_largest_network_learns_from_the_answers(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone", None)
    taught = train(tmp_path / "taught", "my_teachers:judge")
    nothing = train(tmp_path / "nothing", "my_teachers:judge", dataclasses.replace(CONFIG, teacher_share=0.0))
    assert taught.weights_sha256 != alone.weights_sha256 == nothing.weights_sha256
    assert taught.teacher is not None
    assert taught.teacher.source == "my_teachers:judge"
    assert alone.teacher is None
    # The log tells of the labels, whoever teaches.
    first = [
        (tmp_path / name / "training.csv").read_text().splitlines()[1].split(",")[2] for name in ("alone", "taught")
    ]
    assert first[0] == first[1]
    with pytest.raises(InputError, match="teacher my_teachers:judge, now none"):
        train(tmp_path / "taught", None)
    assert train(tmp_path / "taught", "my_teachers:judge") == taught


def test_answers_are_of_the_images_of_the_step(tmp_path: Path) -> None:
    soft = asked("my_teachers:judge", tmp_path)
    data = few_digits()
    n_images = len(data.split("train").labels)
    # After the end of an epoch images come in another order.
    for step in (0, 1, n_images // CONFIG.batch_size + 1):
        rows = batch_rows(CONFIG, n_images, step)
        images = torch.from_numpy(data.normalise(data.split("train").images[rows]))
        with torch.no_grad():
            torch.testing.assert_close(soft.of(rows), Judge()(images).softmax(dim=1))
