"""Run directories: what the first command fixes, what later ones refuse, which command an error names."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from nas.data import SPLITS
from nas.devices import LocalDevice, parse_device
from nas.run import Run
from search_spaces.errors import InputError
from tests.nas.image_folders import make_classes

CPU = LocalDevice("cpu")


def edit(path: Path, **fields: Any) -> None:
    """Replace fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def made(path: Path, *, data: str | None = None) -> Run:
    """Make a run as a first command does."""
    run = Run.open(path, data=data)
    with run.lock():
        run.fix()
    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of grey images in three classes."""
    folder = tmp_path / "pictures"
    make_classes(folder, {"cat": 5, "dog": 5, "fox": 5})
    return folder


@pytest.fixture
def copied(measured_run: Path, tmp_path: Path) -> Path:
    """A copy of a run that has a supernet and a table."""
    return shutil.copytree(measured_run, tmp_path / "run")


def test_the_first_command_fixes_the_defaults(tmp_path: Path) -> None:
    run = made(tmp_path / "runs" / "first")
    assert (run.settings.space, run.settings.data) == ("tiny", "clutter")
    assert (run.settings.channels, run.settings.class_names) == (1, tuple("0123456789"))
    assert run.space.hash == run.settings.space_hash
    again = Run.open(run.path, space="tiny", data="clutter")
    assert again.settings == run.settings
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "space.json"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"space": "cifar"}, "made with --space tiny, not cifar; use another --run"),
        ({"data": "folder:elsewhere"}, "made with --data clutter, not folder:elsewhere; use another --run"),
    ],
)
def test_a_later_command_cannot_change_what_is_fixed(tmp_path: Path, given: dict[str, str], complaint: str) -> None:
    made(tmp_path)
    with pytest.raises(InputError, match=re.escape(complaint)):
        Run.open(tmp_path, **given)


@pytest.mark.parametrize("given", [{"space": "tyni"}, {"data": "digit"}])
def test_a_refused_first_command_fixes_nothing(tmp_path: Path, given: dict[str, str]) -> None:
    with pytest.raises(InputError):
        Run.open(tmp_path / "run", **given)
    assert not (tmp_path / "run" / "space.json").exists()
    assert Run.open(tmp_path / "run").settings.data == "clutter"


def test_a_folder_means_the_same_from_every_working_directory(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    run = made(tmp_path / "run", data="folder:pictures")
    assert run.settings.class_names == ("cat", "dog", "fox")
    monkeypatch.chdir(pictures)
    same = Run.open(tmp_path / "run", data=f"folder:{pictures}")
    assert same.load_data().class_names == ("cat", "dog", "fox")
    Run.open(tmp_path / "run", data="folder:../pictures")
    with pytest.raises(InputError, match="use another --run"):
        Run.open(tmp_path / "run", data="folder:pictures")


def test_a_folder_without_a_path_is_not_the_working_directory(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures)
    with pytest.raises(InputError, match="'folder:' should be written folder:PATH"):
        Run.open(tmp_path / "run", data="folder:")


def test_a_home_folder_may_be_written_with_a_tilde(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(pictures.parent))
    assert Run.open(tmp_path / "run", data="folder:~/pictures").settings.data == f"folder:{pictures}"


def test_every_command_sees_the_same_splits_at_the_resolution_of_the_space(pictures: Path, tmp_path: Path) -> None:
    first = made(tmp_path / "run", data=f"folder:{pictures}").load_data()
    again = Run.existing(tmp_path / "run", first="nas train").load_data()
    assert first.resolution == 24
    for name in SPLITS:
        assert (first.split(name).images == again.split(name).images).all()
        assert (first.split(name).labels == again.split(name).labels).all()


def test_a_folder_that_has_gained_a_class_is_refused(pictures: Path, tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", data=f"folder:{pictures}")
    make_classes(pictures, {"hen": 5})
    with pytest.raises(InputError, match="changed its channels or classes"):
        run.load_data()


def test_images_that_have_changed_since_the_training_are_refused(copied: Path) -> None:
    edit(copied / "supernet" / "training.json", data_hash="0" * 64)
    with pytest.raises(InputError, match="images of clutter have changed since the supernet was trained"):
        Run.existing(copied, first="nas train").evaluator()


def test_a_run_of_another_definition_of_its_space_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path)
    edit(tmp_path / "space.json", space_hash="0" * 16)
    with pytest.raises(InputError, match=f"another definition of space 'tiny'.*{run.space.hash}"):
        Run.open(tmp_path)


def test_a_run_that_must_exist_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run in .*missing; run `nas train --run .*missing` first"):
        Run.existing(tmp_path / "missing", first="nas train")
    assert not (tmp_path / "missing").exists()


def test_what_is_missing_in_a_run_names_the_command_that_makes_it(tmp_path: Path) -> None:
    run = Run.open(tmp_path)
    with pytest.raises(InputError, match=r"run `nas train --run .*` first"):
        run.require_supernet()
    with pytest.raises(InputError, match=r"run `nas build-lut --device cpu:threads=2 --run .*` first"):
        run.latency_table(parse_device("cpu:threads=2"))
    with pytest.raises(InputError, match=r"run `nas search --budget-ms 50% --run .*` first"):
        run.front()
    with pytest.raises(InputError, match=r"run `nas export --run .*` first"):
        run.exported_models()


def test_each_device_has_a_table_of_its_own(tmp_path: Path) -> None:
    run = Run.open(tmp_path)
    paths = {run.lut_path(parse_device(name)) for name in ("cpu", "cpu:threads=2", "cpu:threads=1")}
    assert {path.relative_to(run.path).as_posix() for path in paths} == {"luts/cpu.json", "luts/cpu-threads-2.json"}


def test_a_table_of_this_machine_is_accepted_and_of_another_is_refused_by_field(copied: Path) -> None:
    run = Run.existing(copied, first="nas train")
    assert run.require_this_machine(CPU, run.latency_table(CPU)) == ""
    path = run.lut_path(CPU)
    fingerprint = json.loads(path.read_text())["fingerprint"]
    edit(path, fingerprint=fingerprint | {"cpu_model": "another", "onnxruntime": "0.1"})
    with pytest.raises(InputError, match=r"\(cpu_model, onnxruntime differ\); run `nas build-lut --device cpu --run "):
        run.require_this_machine(CPU, run.latency_table(CPU))
    told = run.require_this_machine(CPU, run.latency_table(CPU), allow_mismatch=True)
    assert "(cpu_model, onnxruntime differ); what it predicts was true there" in told


def test_a_run_is_held_by_one_command_at_a_time(tmp_path: Path) -> None:
    run = Run.open(tmp_path)
    with run.lock(), pytest.raises(InputError, match=f"in use by process {os.getpid()}"), Run.open(tmp_path).lock():
        pass
    with run.lock():
        pass


def test_the_exports_of_a_run_are_found_in_order(tmp_path: Path) -> None:
    run = Run.open(tmp_path)
    for name in ("bb", "aa", ".left-by-a-writer-that-was-killed"):
        run.export_dir(name, CPU).mkdir(parents=True)
        for file in ("model.onnx", "export.json"):
            (run.export_dir(name, CPU) / file).touch()
    run.export_dir("cc", CPU).mkdir()
    assert run.exported_models() == [run.path / "exports" / name / "model.onnx" for name in ("aa", "bb")]


def test_a_link_out_of_the_run_is_refused(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "exports").symlink_to(tmp_path / "elsewhere")
    for name in ("aa", "../../aa"):
        with pytest.raises(InputError, match="leads out of the run"):
            run.export_dir(name, CPU)
    assert run.tuned_dir("aa") == run.path / "finetuned" / "aa"
