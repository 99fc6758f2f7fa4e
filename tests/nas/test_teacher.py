"""A teacher from elsewhere: asked once, by file or module, and what is none is refused."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nas.teacher
from nas.data import ImageData
from nas.distributed import ALONE, Ranks
from nas.fitting import batch_of
from nas.teacher import FILE, KEPT, SoftLabels, Teacher, kept_answers
from nas.training import step_answers, train_supernet
from nas.training_record import TrainingConfig, TrainingRecord
from search_spaces.errors import InputError
from search_spaces.tiny import tiny
from tests.nas.torch_helpers import few_digits, one_thread

SPACE = tiny(channels=1, classes=10)
CONFIG = TrainingConfig(steps=4, batch_size=8, warmup_steps=1, sandwich=True, random_subnets=2)
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
        "def other(): return torch.nn.Sequential(torch.nn.ReLU(), Judge())\n"
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
    """Write the judge as an ONNX file as torch does, its weights beside it; for any number of images or a fixed one."""
    images = torch.zeros(batch or 2, channels, side, side)
    shapes = None if batch else ({0: torch.export.Dim("n")},)
    model: nn.Module = Judge() if channels == 1 else nn.Sequential(nn.Conv2d(channels, 1, 1), Judge())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter uses what torch has deprecated
        torch.onnx.export(model.eval(), (images,), path, dynamic_shapes=shapes, verbose=False, external_data=True)
    return str(path)


def asked(source: str, folder: Path, data: ImageData | None = None) -> SoftLabels:
    return Teacher(source, data or few_digits(), CPU).soft_labels(folder)


def expected(rows: slice = slice(None)) -> Tensor:
    """Return the judge's probabilities for training images."""
    data = few_digits()
    with torch.no_grad():
        answers: Tensor = Judge()(torch.from_numpy(data.normalise(data.split("train").images[rows]))).softmax(dim=1)
    return answers


def train(directory: Path, teacher: str | None, config: TrainingConfig = CONFIG, **options: Any) -> TrainingRecord:
    return train_supernet(SPACE, few_digits(), config, directory=directory, teacher=teacher, **options)


def test_answers_are_those_of_the_module_and_all_are_asked_for_once(tmp_path: Path) -> None:
    answers = expected()
    soft = asked("my_teachers:judge", tmp_path)
    torch.testing.assert_close(soft.of(np.arange(len(answers))), answers)
    labels = few_digits().split("train").labels
    assert soft.right(labels) == pytest.approx(float((answers.argmax(dim=1).numpy() == labels).mean()))
    times = Judge.asked
    again = asked("my_teachers:judge", tmp_path)
    assert Judge.asked == times + 1  # whether it still is the same
    assert (torch.equal(again.shares, soft.shares), again.sha256) == (True, soft.sha256)


def test_of_many_classes_the_most_probable_are_kept_and_the_rest_is_spread() -> None:
    soft = SoftLabels(torch.tensor([[2, 0]]), torch.tensor([[0.5, 0.3]]), torch.zeros(1, 6))
    assert soft.of(np.array([0]))[0].tolist() == pytest.approx([0.3, 0.05, 0.5, 0.05, 0.05, 0.05])
    assert KEPT == 10


def test_of_ten_classes_four_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.teacher, "KEPT", 4)
    soft = asked("my_teachers:judge", tmp_path)
    wanted, order = expected().sort(dim=1, descending=True)
    told = soft.of(np.arange(len(wanted)))
    torch.testing.assert_close(told.gather(1, order[:, :4]), wanted[:, :4])
    rest = wanted[:, 4:].mean(dim=1, keepdim=True).expand(-1, 6)
    torch.testing.assert_close(told.gather(1, order[:, 4:]), rest)
    kept = kept_answers(tmp_path, few_digits())
    assert kept is not None
    assert torch.equal(kept.shares, soft.shares)


@pytest.mark.parametrize(("side", "batch"), [(SIDE, None), (SIDE, 7), (12, None)])
def test_a_file_answers_as_its_module_for_any_batch_and_size(tmp_path: Path, side: int, batch: int | None) -> None:
    from_file = asked(exported(tmp_path / "judge.onnx", side=side, batch=batch), tmp_path / "file")
    assert (tmp_path / "judge.onnx.data").exists()
    # Scaled images are not the same, but these answers depend on brightness alone.
    tolerance = 1e-5 if side == SIDE else 0.05
    torch.testing.assert_close(from_file.of(np.arange(50)), expected(slice(50)), rtol=0, atol=tolerance)


def test_asking_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.teacher._SAVE_EVERY_S", 0.0)
    monkeypatch.setattr("nas.teacher._BATCH", 16)
    whole = asked("my_teachers:judge", tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        if done == 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Teacher("my_teachers:judge", few_digits(), CPU).soft_labels(tmp_path / "stopped", stop)
    told: list[int] = []
    soft = Teacher("my_teachers:judge", few_digits(), CPU).soft_labels(
        tmp_path / "stopped", lambda done, total: told.append(done)
    )
    assert told[0] == 64
    assert soft.sha256 == whole.sha256


def test_damaged_answers_and_those_to_other_images_are_asked_for_again(tmp_path: Path) -> None:
    whole = asked("my_teachers:judge", tmp_path)
    path = tmp_path / FILE
    stored, names = load_file(path), {"data": few_digits().content_hash}
    wrong = {
        "classes": stored["classes"] + 1,
        "shares": stored["shares"] * float("nan"),
        "probe": stored["probe"][:, :3],
    }
    spoils: list[Callable[[], object]] = [
        lambda: path.write_bytes(path.read_bytes()[:-9]),
        lambda: path.write_bytes(b"no tensors"),
        lambda: save_file(stored, path),  # says nothing of whose they are
        *(
            partial(save_file, {**stored, name: value.contiguous()}, path, metadata=names)
            for name, value in wrong.items()
        ),
    ]
    for spoil in spoils:
        spoil()
        assert kept_answers(tmp_path, few_digits()) is None
        assert asked("my_teachers:judge", tmp_path).sha256 == whole.sha256
    other = dataclasses.replace(few_digits(), content_hash="5eed")
    assert kept_answers(tmp_path, other) is None


def test_answers_of_another_teacher_are_not_taken_for_these_nor_written_over(tmp_path: Path) -> None:
    asked("my_teachers:judge", tmp_path)
    before = (tmp_path / FILE).read_bytes()
    # The same weights: what differs is what is done with them.
    with pytest.raises(InputError, match="answers of another teacher than 'my_teachers:other' is now"):
        asked("my_teachers:other", tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ("nowhere.onnx", r"no teacher nowhere\.onnx: it is an ONNX file"),
        ("nowhere:judge", "no teacher nowhere:judge: it is an ONNX file"),
        ("judge.pt", r"no teacher judge\.pt: it is an ONNX file"),
        ("my_teachers:nobody", "has no function 'nobody'"),
        ("my_teachers:words", "must return a torch.nn.Module, not str"),
        ("my_teachers:lost", "raised FileNotFoundError"),
        ("my_teachers:few", "the data has 10 classes"),
        ("my_teachers:broken", "not finite"),
        ("my_teachers:wide", "raised RuntimeError"),
    ],
)
def test_what_is_no_teacher_is_refused(tmp_path: Path, teacher: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        asked(teacher, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_teacher_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"text\.onnx cannot be opened"):
        asked("text.onnx", tmp_path / "run")
    colour = exported(tmp_path / "colour.onnx", channels=3)
    with pytest.raises(InputError, match=r"\[n, 1, side, side\]"):
        asked(colour, tmp_path / "run")
    lost = exported(tmp_path / "lost.onnx")
    (tmp_path / "lost.onnx.data").unlink()
    with pytest.raises(InputError, match=r"lost\.onnx cannot be opened"):
        asked(lost, tmp_path / "run")


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
    assert train(tmp_path / "taught", "my_teachers:judge") == taught
    for directory, teacher, told in (
        ("taught", None, "teacher my_teachers:judge, now none"),
        ("alone", "my_teachers:judge", "teacher none, now my_teachers:judge"),
        ("taught", "my_teachers:other", "answers of another teacher"),
    ):
        with pytest.raises(InputError, match=told):
            train(tmp_path / directory, teacher)
    assert not (tmp_path / "alone" / FILE).exists()
    # Whose answers are gone, and who answers otherwise now.
    (tmp_path / "taught" / FILE).unlink()
    with pytest.raises(InputError, match="supernet of another teacher than my_teachers:other is now"):
        train(tmp_path / "taught", "my_teachers:other")


@pytest.mark.parametrize("ranks", [ALONE, Ranks(0, 2), Ranks(1, 2)])
def test_answers_are_of_the_images_that_a_process_sees_in_a_step(tmp_path: Path, ranks: Ranks) -> None:
    soft, data = asked("my_teachers:judge", tmp_path), few_digits()
    of_step = step_answers(soft, data, CONFIG, ranks)
    train_split = data.split("train")
    # After the end of an epoch images come in another order.
    for step in (0, 1, len(train_split.labels) // CONFIG.batch_size + 1):
        images, _ = batch_of(data, train_split, CONFIG, step, ranks.part(CONFIG.batch_size))
        with torch.no_grad():
            torch.testing.assert_close(of_step(step), Judge()(images).softmax(dim=1))
