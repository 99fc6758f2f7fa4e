"""The contract of every registered device; names of devices; the processor of this machine."""

from __future__ import annotations

import json
import math
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from nas.devices import DEVICES, Device, Fingerprint, LocalDevice, ModelFile, parse_device
from search_spaces.documents import canonical_json, decode
from search_spaces.errors import InputError
from tests.nas.core_script import measuring_command, three_models, timed, visits
from tests.nas.small_models import conv, saved
from tests.source_tree import ROOT


def stored_lines(folder: Path) -> list[bytes]:
    """Return the complete lines of the results that a device keeps in its folder."""
    content = b"".join(path.read_bytes() for path in folder.rglob("*.jsonl"))
    return content[: content.rfind(b"\n") + 1].splitlines()


@pytest.fixture
def models(tmp_path: Path) -> list[ModelFile]:
    return timed(three_models(tmp_path))


HERE = [name for name in sorted(DEVICES) if parse_device(name).obstacle is None]


@pytest.mark.parametrize("device", [parse_device(name) for name in HERE], ids=HERE)
class TestContract:
    """What every device that can be measured on this machine promises; a device joins by being registered."""

    def test_its_name_stands_for_it(self, device: Device) -> None:
        assert parse_device(device.name) == device

    def test_its_slug_is_a_part_of_a_file_name(self, device: Device) -> None:
        assert device.slug.replace("-", "").isalnum()

    def test_it_measures_every_model_in_the_order_given(
        self, device: Device, models: list[ModelFile], tmp_path: Path
    ) -> None:
        run = device.measure(models, rounds=5, work_dir=tmp_path / "work")
        assert [each.id for each in run.measurements] == [model.id for model in models]
        for each in run.measurements:
            assert 5 <= len(each.rounds_ms) <= 10, "what disagrees with itself is visited again"
            assert all(0 < latency_ms < math.inf for latency_ms in each.rounds_ms)
            assert min(each.rounds_ms) <= each.latency_ms <= max(each.rounds_ms)
            assert each.runs >= 5 * 3
            assert each.sustained is None

    def test_more_work_takes_longer(self, device: Device, tmp_path: Path) -> None:
        models = [saved(tmp_path / f"conv{size}.onnx", conv(size)) for size in (128, 8)]
        large, small = device.measure(models, rounds=4, work_dir=tmp_path / "work").measurements
        assert large.latency_ms > 2 * small.latency_ms

    def test_it_is_repeatable(self, device: Device, models: list[ModelFile], tmp_path: Path) -> None:
        first, second = (device.measure(models, work_dir=tmp_path / name).measurements for name in "ab")
        for one, other in zip(first, second, strict=True):
            assert 0.5 < one.latency_ms / other.latency_ms < 2, "a generous factor, on a machine that others use too"

    def test_it_says_what_was_measured_on(self, device: Device, models: list[ModelFile], tmp_path: Path) -> None:
        run = device.measure(models, rounds=1, work_dir=tmp_path / "work")
        assert run.fingerprint == device.fingerprint()
        assert run.fingerprint.onnxruntime
        assert run.fingerprint.provider

    def test_a_sustained_run_is_reported_when_asked_for(
        self, device: Device, models: list[ModelFile], tmp_path: Path
    ) -> None:
        run = device.measure(timed(models, sustained_s=0.1), rounds=1, work_dir=tmp_path / "work")
        for each in run.measurements:
            assert each.sustained is not None
            assert 0 < each.sustained.p50_ms <= each.sustained.p90_ms
            assert each.sustained.duration_s >= 0.1

    def test_progress_ends_complete(self, device: Device, models: list[ModelFile], tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        device.measure(models, rounds=2, work_dir=tmp_path / "work", progress=lambda *each: told.append(each))
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1] > 0

    def test_a_measurement_that_was_killed_goes_on(
        self, device: Device, models: list[ModelFile], tmp_path: Path
    ) -> None:
        folder = tmp_path / "work"
        with subprocess.Popen(
            measuring_command(device, folder, models), cwd=ROOT, stdout=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 60
            while len(kept := stored_lines(folder)) < 10:
                assert process.poll() is None, "it ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.001)
            process.kill()
        run = device.measure(timed(models, visit_ms=5.0), rounds=40, work_dir=folder)
        after = stored_lines(folder)
        assert after[: len(kept)] == kept
        found = visits([json.loads(line) for line in after], rounds=40)
        assert len(found) == len(set(found)) == 3 * 40
        assert all(len(each.rounds_ms) >= 40 for each in run.measurements)

    def test_a_finished_measurement_is_returned_as_it_is(
        self, device: Device, models: list[ModelFile], tmp_path: Path
    ) -> None:
        first, second = (device.measure(models, rounds=2, work_dir=tmp_path / "work") for _ in "ab")
        assert first == second

    def test_another_measurement_in_the_same_folder_is_refused(
        self, device: Device, models: list[ModelFile], tmp_path: Path
    ) -> None:
        device.measure(models, rounds=2, work_dir=tmp_path / "work")
        with pytest.raises(InputError, match="another manifest"):
            device.measure(models, rounds=3, work_dir=tmp_path / "work")

    @pytest.mark.parametrize("fault", ["corrupted", "other content", "missing"])
    def test_a_bad_model_is_named_in_one_line(
        self, device: Device, models: list[ModelFile], tmp_path: Path, fault: str
    ) -> None:
        bad = saved(tmp_path / "bad.onnx", b"not a model")
        if fault == "other content":
            bad.path.write_bytes(conv().SerializeToString())
        elif fault == "missing":
            bad.path.unlink()
        with pytest.raises(InputError, match=r"bad\.onnx") as refusal:
            device.measure([*models, bad], work_dir=tmp_path / "work")
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("setting", [{"rounds": 0}, {"spread_s": -1.0}, {"seed": -1}])
    def test_a_bad_setting_is_refused(
        self, device: Device, models: list[ModelFile], tmp_path: Path, setting: dict[str, Any]
    ) -> None:
        with pytest.raises(InputError, match=next(iter(setting))):
            device.measure(models, work_dir=tmp_path / "work", **setting)

    @pytest.mark.parametrize("setting", [{"visit_ms": 0.0}, {"sustained_s": math.nan}])
    def test_a_bad_time_of_a_model_is_refused(
        self, device: Device, models: list[ModelFile], tmp_path: Path, setting: dict[str, Any]
    ) -> None:
        with pytest.raises(InputError, match=next(iter(setting))):
            device.measure([*models[1:], replace(models[0], **setting)], work_dir=tmp_path / "work")

    def test_models_with_the_same_id_are_refused(self, device: Device, models: list[ModelFile], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="unique"):
            device.measure([models[0], models[0]], work_dir=tmp_path / "work")


# Names


@pytest.mark.parametrize(
    ("text", "device", "name", "slug"),
    [
        ("cpu", LocalDevice("cpu"), "cpu", "cpu"),
        ("cpu:threads=1", LocalDevice("cpu"), "cpu", "cpu"),
        ("cpu:threads=2", LocalDevice("cpu", threads=2), "cpu:threads=2", "cpu-threads-2"),
    ],
)
def test_a_name_stands_for_a_device(text: str, device: Device, name: str, slug: str) -> None:
    parsed = parse_device(text)
    assert parsed == device
    assert (parsed.name, parsed.slug) == (name, slug)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpq", "unknown device 'cpq'; did you mean 'cpu'"),
        ("", "unknown device ''"),
        ("CPU", r"unknown device 'CPU' .*known: cpu"),
        ("cpu:", "NAME:key=value"),
        ("cpu:threads", "'threads' is not an option"),
        ("cpu:thread=2", "unknown option of device 'cpu' 'thread'; did you mean 'threads'"),
        ("cpu:threads=2,threads=3", "given twice"),
        ("cpu:threads=two", "device 'cpu:threads=two': threads: .*integer"),
        ("cpu:threads=0", "at least 1, got 0"),
        ("cpu:threads=2,", "'' is not an option"),
    ],
)
def test_a_wrong_name_is_explained(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_device(text)


def test_a_device_without_threads_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        LocalDevice("cpu", threads=0)


# Fingerprints


@pytest.fixture(scope="module")
def fingerprint() -> Fingerprint:
    return LocalDevice("cpu").fingerprint()


def test_a_fingerprint_reads_back_from_json(fingerprint: Fingerprint) -> None:
    assert decode(Fingerprint, canonical_json(fingerprint), source="test") == fingerprint


def test_equal_fingerprints_have_one_hash(fingerprint: Fingerprint) -> None:
    assert LocalDevice("cpu").fingerprint().hash == fingerprint.hash
    assert fingerprint.differences(LocalDevice("cpu").fingerprint()) == []


def test_differences_are_named_and_change_the_hash(fingerprint: Fingerprint) -> None:
    other = replace(fingerprint, onnxruntime="1.0.0", threads=7)
    assert fingerprint.differences(other) == ["onnxruntime", "threads"]
    assert other.hash != fingerprint.hash


def test_threads_are_part_of_the_identity() -> None:
    assert LocalDevice("cpu").fingerprint().differences(LocalDevice("cpu", threads=2).fingerprint()) == ["threads"]


def test_a_fingerprint_of_a_bare_system_is_valid(fingerprint: Fingerprint) -> None:
    unreadable = ("cpu_model", "cores", "affinity", "cpu_quota", "governor", "turbo", "memory_gib")
    bare = asdict(fingerprint) | dict.fromkeys(unreadable) | {"isa_flags": ()}
    assert decode(Fingerprint, canonical_json(bare), source="test").differences(fingerprint)
