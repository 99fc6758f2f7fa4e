"""What cannot be done is said in one line on standard error, with the exit code of its kind and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.devices import LocalDevice
from nas.files import exclusive_lock
from nas.run import Run
from predictors.latency import LatencyPredictor
from tests.command_line import nas, nas_here, refusal
from tests.nas.hazards import protectable, read_only, running, wait_until
from tests.nas.image_folders import make_classes, plain, save
from tests.nas.small_models import conv, saved

SEARCH = ("search", "--budget-ms", "50%")


@pytest.fixture
def copied(searched_run: Path, tmp_path: Path) -> Path:
    """A copy of a run that has everything but an export."""
    return shutil.copytree(searched_run, tmp_path / "run")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# Commands in the wrong order


def test_every_command_that_needs_a_run_names_the_one_that_makes_it(tmp_path: Path) -> None:
    for arguments in (SEARCH, ("export",), ("bench",)):
        error = refusal(nas_here(*arguments, "--run", tmp_path / "none"))
        assert error == f"there is no run in {tmp_path / 'none'}; run `nas train --run {tmp_path / 'none'}` first"
    assert not (tmp_path / "none").exists()


def test_searching_and_exporting_before_training_names_train(tmp_path: Path) -> None:
    run = Run.open(tmp_path)
    with run.lock():
        run.fix()
    for arguments in (SEARCH, ("export",)):
        assert refusal(nas_here(*arguments, "--run", tmp_path)).endswith(f"run `nas train --run {tmp_path}` first")


def test_searching_before_measuring_names_build_lut_and_the_device(trained_run: Path) -> None:
    for device in ("cpu", "cpu:threads=2"):
        error = refusal(nas_here(*SEARCH, "--run", trained_run, "--device", device))
        assert error.endswith(f"run `nas build-lut --device {device} --run {trained_run}` first")


def test_exporting_before_searching_names_search(measured_run: Path) -> None:
    assert f"run `nas search --budget-ms 50% --run {measured_run}` first" in refusal(
        nas_here("export", "--run", measured_run)
    )


def test_benching_a_run_before_exporting_names_export(searched_run: Path) -> None:
    assert f"run `nas export --run {searched_run}` first" in refusal(nas_here("bench", "--run", searched_run))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("trian",), "Did you mean 'train'?"),
        (("train", "--step", "3"), "--steps"),
        (("train", "--steps", "many"), "--steps"),
        (("train", "--steps", "0"), "--steps"),
        (("train", "--seed", "-1"), "--seed"),
        (("train", "--accelerator", "cudo"), "unknown accelerator 'cudo'; did you mean 'cuda'?"),
        (("train", "--space", "tniy"), "unknown space 'tniy'; did you mean 'tiny'?"),
        (("train", "--data", "digit"), "unknown data 'digit'; did you mean 'digits'?"),
        (("build-lut", "--device", "cpo"), "unknown device 'cpo'; did you mean 'cpu'?"),
        (("build-lut", "--device", "cpu:thread=2"), "did you mean 'threads'?"),
        (("build-lut", "--device", "cpu:threads=0"), "threads"),
        (("search",), "there is no run in runs/default; run `nas train` first"),
        (("data", "shwo"), "Did you mean 'show'?"),
        (("data", "show", "--out", "samples.jpg"), "samples.jpg should end in .png"),
        (("data", "show", "--data", "cluter"), "did you mean 'clutter'?"),
        (("bench", "missing.onnx"), "missing.onnx does not exist"),
    ],
)
def test_an_argument_that_is_not_known_is_refused_with_the_nearest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in refusal(nas_here(*arguments))
    assert not list(tmp_path.glob("**/space.json"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("search", "--budget-ms", "abc"), "'abc' is not a number of milliseconds"),
        (("search", "--budget-ms", "-1"), "'-1' is not a number"),
        (("search", "--budget-ms", "nan"), "'nan' is not a number"),
        (("search", "--budget-ms", "101%"), "from 0% to 100%"),
        ((*SEARCH, "--strategy", "predicter"), "did you mean 'predictor'?"),
        ((*SEARCH, "--compare", "rnadom"), "did you mean 'random'?"),
        (("export", "--pick", "bset"), "unknown network 'bset'; did you mean 'best'?"),
        (("export", "--pick", ""), "is the beginning of"),
        (("train", "--steps", "13", "--batch-size", "32"), "trained with other settings"),
        (("train", "--data", "folder:x"), "--data clutter, not folder:x; use another --run"),
        (("build-lut", "--space", "cifar"), "--space tiny, not cifar; use another --run"),
    ],
)
def test_an_argument_that_does_not_fit_the_run_is_refused(
    searched_run: Path, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in refusal(nas_here(*arguments, "--run", searched_run))


def test_a_budget_below_the_fastest_network_is_refused_with_the_reachable_range(searched_run: Path) -> None:
    run = Run.existing(searched_run, first="nas train")
    latency = LatencyPredictor(run.space, run.latency_table(LocalDevice("cpu")))
    fastest_ms, slowest_ms = latency.cheapest()[0], latency.dearest()[0]
    error = refusal(nas_here("search", "--run", searched_run, "--budget-ms", 0.9 * fastest_ms))
    assert f"from {fastest_ms:.4g} ms to {slowest_ms:.4g} ms" in error


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.onnx", conv()).path
    bad = saved(tmp_path / "bad.onnx", b"not a model").path
    assert "bad.onnx" in refusal(nas_here("bench", good, bad))


def test_a_command_in_a_process_of_its_own_ends_with_the_code(tmp_path: Path) -> None:
    assert "run `nas train` first" in refusal(nas(*SEARCH, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


# Folders of images


def one_class(root: Path) -> None:
    make_classes(root, {"cat": 9})


def no_class(root: Path) -> None:
    root.mkdir()


def a_broken_header(root: Path) -> None:
    make_classes(root, {"cat": 5, "dog": 5})
    (root / "dog" / "3.png").write_bytes(b"no image")


def a_torn_file(root: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(5):
            save(root / name / f"{number}.png", plain(50 * number, size=(64, 64)))
    path = root / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:-30])


def too_few(root: Path) -> None:
    make_classes(root, {"cat": 5, "dog": 2})


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda root: None, "there is no folder"),
        (no_class, "has 0 class folders"),
        (one_class, "has 1 class folders"),
        (a_broken_header, "1 image cannot be read: dog/3.png"),
        (a_torn_file, "dog/3.png"),
        (too_few, "class 'dog' has 2 training images"),
    ],
    ids=["missing", "empty", "one class", "broken header", "torn file", "too few"],
)
def test_a_folder_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, make: Callable[[Path], None], expected: str
) -> None:
    make(tmp_path / "images")
    data = f"folder:{tmp_path / 'images'}"
    error = refusal(nas_here("train", "--run", tmp_path / "run", "--data", data, "--strict"))
    assert expected in error
    assert str(tmp_path / "images") in error or "class 'dog'" in error


# Run directories that are held, damaged, foreign, or cannot be written


def hold(path: str, held: str) -> None:
    """Hold a run's lock until killed: the body of another process."""
    with exclusive_lock(Path(path)):
        Path(held).touch()
        wait_until(lambda: False, seconds=600)


def test_a_run_that_another_process_holds_is_refused_with_its_id(copied: Path, tmp_path: Path) -> None:
    with running(hold, str(copied / ".lock"), str(tmp_path / "held")) as holder:
        wait_until((tmp_path / "held").exists)
        for arguments in (SEARCH, ("build-lut",), ("export",), ("train", "--steps", "12", "--batch-size", "32")):
            error = refusal(nas_here(*arguments, "--run", copied))
            assert f"in use by process {holder.pid} (" in error
    refused = refusal(nas_here("train", "--run", copied))
    assert "other settings" in refused, "the lock has outlived its holder"


def test_a_run_directory_that_cannot_be_written_is_the_machines_fault(tmp_path: Path) -> None:
    with protectable(tmp_path) as folder:
        old = Run.open(folder / "old")
        with old.lock():
            old.fix()
        with read_only(folder):
            assert "cannot make the folder" in refusal(nas_here("train", "--run", folder / "new"), code=3)
            protected = old.path if folder.is_mount() else folder / "new"
            assert "cannot" in refusal(nas_here("build-lut", "--run", protected), code=3)


def test_a_file_in_place_of_the_run_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    assert str(tmp_path / "run") in refusal(nas_here("train", "--run", tmp_path / "run"), code=3)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format_version": 1}', '{"format_version": 99}', "\xff"])
@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("space.json", SEARCH),
        ("space.json", ("build-lut",)),
        ("front.json", ("export",)),
        ("luts/cpu.json", SEARCH),
        ("luts/cpu.json", ("export",)),
        ("supernet/training.json", SEARCH),
        ("supernet/training.json", ("train",)),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_damaged_file_is_named(copied: Path, file: str, arguments: tuple[str, ...], content: str) -> None:
    (copied / file).write_text(content, encoding="latin-1")
    assert str(copied / file) in refusal(nas_here(*arguments, "--run", copied))


@pytest.mark.parametrize("name", ["ledger.db", "supernet/weights.safetensors"])
def test_a_damaged_store_is_named(copied: Path, name: str) -> None:
    (copied / name).write_bytes(b"neither a database nor weights")
    assert str(copied / name) in refusal(nas_here(*SEARCH, "--evaluations", 40, "--run", copied))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["calibration"]["factors"].clear(),
        lambda table: table["held_out"].clear(),
        lambda table: table["held_out"][0].update(genes=[1]),
        lambda table: table["held_out"][0].update(genes=[99] * len(table["held_out"][0]["genes"])),
        lambda table: table["held_out"][0].update(measured_ms=0.0),
        lambda table: table["blocks"].pop(),
        lambda table: table["fingerprint"].clear(),
        lambda table: table.update(space_hash="0" * 16),
        lambda table: table.update(extra=1),
    ],
    ids=["factors", "no proof", "genome", "gene", "zero", "block", "fingerprint", "space", "key"],
)
def test_a_table_that_contradicts_itself_is_refused(copied: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(copied / "luts" / "cpu.json", change)
    refusal(nas_here(*SEARCH, "--run", copied, "--evaluations", 40))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda front: front["candidates"].clear(), "front.json"),
        (lambda front: front["candidates"][-1].update(genes=[1]), ""),
        (lambda front: front["candidates"][-1].update(genes=[99] * len(front["candidates"][-1]["genes"])), ""),
        (lambda front: front["candidates"][-1].update(id="../../escaped"), ""),
        (lambda front: front.update(device="tpu"), "unknown device 'tpu'"),
        (lambda front: front.update(supernet_hash="0" * 16), "run `nas search` again"),
    ],
    ids=["empty", "genome", "gene", "id", "device", "supernet"],
)
def test_a_front_that_contradicts_itself_is_refused(
    copied: Path, change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    edit(copied / "front.json", lambda fronts: change(fronts["fronts"]["cpu"]))
    assert expected in refusal(nas_here("export", "--run", copied))
    assert not list(copied.parent.glob("**/model.onnx"))


def test_a_table_of_another_machine_is_refused_by_the_field_that_differs(copied: Path) -> None:
    edit(copied / "luts" / "cpu.json", lambda table: table["fingerprint"].update(kernel="0.0.1"))
    for arguments in (SEARCH, ("export",)):
        error = refusal(nas_here(*arguments, "--run", copied))
        assert "(kernel differ)" in error
        assert "run `nas build-lut --device cpu --run " in error


def test_a_table_of_another_exporter_is_refused(copied: Path) -> None:
    # Its blocks would not be those that the finalists are made of.
    edit(copied / "luts" / "cpu.json", lambda table: table.update(exporter="torch.onnx, torch 0.1"))
    assert "run `nas build-lut --device cpu --run " in refusal(nas_here(*SEARCH, "--run", copied))


@pytest.mark.slow
@pytest.mark.device
def test_blocks_that_were_removed_are_exported_again(copied: Path) -> None:
    names = {path.name for path in (copied / "blocks").iterdir()}
    for path in (copied / "blocks").iterdir():
        path.unlink()
    assert nas_here(*SEARCH, "--run", copied, "--evaluations", 40).code == 0
    assert {path.name for path in (copied / "blocks").iterdir()} == names


def test_a_folder_in_place_of_a_model_is_a_wrong_argument(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(nas_here("bench", tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_the_machines_fault(copied: Path) -> None:
    (copied / "space.json").chmod(0)
    assert "space.json" in refusal(nas_here("export", "--run", copied), code=3)
