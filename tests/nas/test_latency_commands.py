"""`nas devices`, `nas lut` and kits, as they are typed: what they print, what they write, what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from nas import kit as kit_module
from nas import lut, lut_check, lut_plan
from nas.devices import DEVICES
from nas.lut_check import TableCheck
from nas.run import Run
from predictors.latency import LatencyPredictor
from tests.command_line import nas_here, refusal, succeed
from tests.nas.test_cli import documented_keys, keys_of

ERRORS = ("error", "plain_sum_error", "macs_error", "steady_error", "sustained", "sizes")
"""What their keys are is said of `build-lut`, and tested there."""


@pytest.fixture
def copied(measured_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(measured_run, tmp_path / "run")


def test_devices_are_listed_with_what_is_in_the_way() -> None:
    value = succeed(nas_here("devices", "--json")).json["devices"]
    assert value.keys() == DEVICES.keys()
    assert value["cpu"] == {"usable": True, "obstacle": None}
    for name, each in value.items():
        assert each["usable"] is (each["obstacle"] is None)
        if name != "cpu" and not each["usable"]:
            assert "onnxruntime" in each["obstacle"] or "kit" in each["obstacle"]
    text = succeed(nas_here("devices")).stdout
    assert "tensorrt" in text
    assert "precision=int8" in text


def test_a_table_is_shown_by_kind_and_width_and_written_as_csv(copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "blocks.csv"
    text = succeed(nas_here("lut", "show", "--run", copied, "--csv", out)).stdout
    for part in ("By kind", "Slowest blocks", "Staircase in channels", "Noise floor", str(out)):
        assert part in text
    run = Run.existing(copied, first="nas train")
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(run.space.blocks)
    latency = LatencyPredictor(run.space, run.latency_table(lut_device()))
    assert [float(row["calibrated_ms"]) for row in rows] == pytest.approx(latency.block_values.tolist())
    assert {row["family"] for row in rows} == {block.family for block in run.space.blocks}
    shown = succeed(nas_here("lut", "show", "--run", copied, "--json")).json
    assert keys_of(shown, without=ERRORS) == documented_keys()["lut show"]
    assert len(shown["rows"]) == len(rows)


def lut_device() -> Any:
    return DEVICES["cpu"]()


@pytest.mark.slow
@pytest.mark.device
def test_a_table_is_checked_against_networks_it_has_never_seen(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TableCheck] = []
    actual = lut_check.check_lut

    def watched(*positional: Any, **named: Any) -> TableCheck:
        seen.append(actual(*positional, **named))
        return seen[-1]

    monkeypatch.setattr(lut_check, "check_lut", watched)
    monkeypatch.setattr(lut_check, "ROUNDS", 4)
    finished = nas_here("lut", "check", "--run", copied, "--networks", 12, "--json")
    assert finished.code in (0, 1), finished.stderr
    value = json.loads(finished.stdout)
    assert keys_of(value, without=ERRORS) == documented_keys()["lut check"]
    (check,) = seen
    assert value["verdict"] == check.verdict
    assert (finished.code == 1) is (check.verdict == "missed")
    table = Run.existing(copied, first="nas train").latency_table(lut_device())
    known = {each.genes for each in (*table.calibration_networks, *table.held_out)}
    assert len({each.genes for each in check.networks} - known) == len(check.networks) == 12
    # Whatever else runs here: networks are told apart.
    assert check.error.spearman > 0.8


@pytest.mark.slow
@pytest.mark.usefixtures("any_noise")
def test_a_kit_is_made_measured_elsewhere_and_taken_back(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CALIBRATION_NETWORKS", 20), ("HELD_OUT_NETWORKS", 6)):
        monkeypatch.setattr(lut_plan, name, value)
    monkeypatch.setattr(lut_plan, "BLOCK_VISIT_MS", 0.1)
    monkeypatch.setattr(lut, "SUSTAINED_S", 0.001)
    monkeypatch.setattr(kit_module, "ROUNDS", 3)
    out = tmp_path / "kit.zip"
    made = succeed(nas_here("build-lut", "--run", copied, "--device", "kit", "--name", "board", "--out", out, "--json"))
    assert keys_of(made.json) == documented_keys()["kit"]
    assert made.json["device"] == "kit:target=board"
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "there")
    subprocess.run([sys.executable, "measure.py"], cwd=tmp_path / "there", check=True, stdout=subprocess.DEVNULL)
    results = tmp_path / "there" / "results.jsonl"
    back = nas_here("build-lut", "--run", copied, "--from", results, "--from", results, "--json")
    assert succeed(back).json["device"] == "kit:target=board"
    assert "median ms" in succeed(nas_here("lut", "show", "--run", copied, "--device", "kit:target=board")).stdout
    # That device is not here, so nothing can be compared with it.
    assert "another machine" in refusal(nas_here("lut", "check", "--run", copied, "--device", "kit:target=board"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("build-lut", "--device", "kit"), "--name NAME"),
        (("build-lut", "--device", "kit", "--name", "board"), "--out KIT.zip"),
        (("build-lut", "--device", "kit", "--name", "../board", "--out", "kit.zip"), "letters and digits"),
        (("build-lut", "--name", "board", "--out", "kit.zip"), "add --device kit"),
        (("build-lut", "--from", "nowhere.jsonl"), "nowhere.jsonl: No such file"),
        (("build-lut", "--from", "nowhere.jsonl", "--name", "board"), "--from takes results back"),
        (("build-lut", "--device", "openvino"), "onnxruntime-openvino"),
        (("build-lut", "--device", "cpu:precision=int4"), "precision"),
        (("build-lut", "--device", "cpu:batch=0"), "batch must be at least 1"),
        (("lut", "show", "--device", "cpu:threads=2"), "run `nas build-lut --device cpu:threads=2"),
        (("lut", "check", "--networks", "3"), "--networks"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in refusal(nas_here(*arguments, "--run", copied))
    assert not list(tmp_path.glob("*.zip"))


def test_a_table_under_another_devices_name_is_refused(copied: Path) -> None:
    shutil.copy(copied / "luts" / "cpu.json", copied / "luts" / "cpu-threads-2.json")
    error = refusal(nas_here("lut", "show", "--run", copied, "--device", "cpu:threads=2"))
    assert "is the table of device cpu, not of cpu:threads=2" in error


@pytest.mark.parametrize(
    ("change", "expected"), [({"space_hash": "ba5e"}, "measured for another space (ba5e, "), ({"seed": []}, "seed: ")]
)
def test_a_table_that_is_of_no_use_here_names_the_command_that_makes_one(
    copied: Path, change: dict[str, object], expected: str
) -> None:
    path = copied / "luts" / "cpu.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    error = refusal(nas_here("search", "--run", copied))
    assert f"{path}" in error
    assert expected in error
    assert f"run `nas build-lut --device cpu --run {copied}`" in error


@pytest.mark.parametrize(
    ("command", "device", "expected"),
    [
        (("bench", "x.onnx"), "kit:target=pi", "measured on devices of this machine, not on kit:target=pi"),
        (("analyze", "x.onnx"), "kit:target=pi", "another machine"),
        (("baseline",), "kit:target=pi", "measured on devices of this machine, not on kit:target=pi"),
        (("baseline",), "cpu:batch=4", "precision=fp32 and batch=1, not for cpu:batch=4"),
        (("baseline",), "cpu:precision=int8", "precision=fp32 and batch=1, not for cpu:precision=int8"),
        (("search", "--budget-ms", "50%"), "kit:target=pi", "run `nas build-lut --device kit:target=pi"),
    ],
)
def test_what_a_device_is_not_for_is_refused(
    copied: Path, command: tuple[str, ...], device: str, expected: str
) -> None:
    assert expected in refusal(nas_here(*command, "--run", copied, "--device", device))


@pytest.mark.slow
@pytest.mark.device
def test_a_measurement_that_was_refused_is_not_taken_up_again(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (copied / "luts" / "cpu.json").read_bytes()
    monkeypatch.setattr(lut, "UNUSABLE_PERCENT", -1.0)
    monkeypatch.setattr(lut, "ROUNDS", 2)
    finished = nas_here("build-lut", "--run", copied)
    assert finished.code == 3
    assert "could not be measured repeatably" in finished.stderr
    assert not list(copied.glob("luts/cpu.work/*/measuring"))
    assert (copied / "luts" / "cpu.json").read_bytes() == before
