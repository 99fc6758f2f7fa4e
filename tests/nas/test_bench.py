"""Benchmarks of any ONNX files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas import bench
from nas.bench import bench_files
from nas.devices import LocalDevice, MeasurementRun, ModelFile
from search_spaces.errors import InputError
from tests.nas.small_models import conv, model, saved


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make benchmarks short, for what does not depend on how long they take."""
    monkeypatch.setattr(bench, "SPREAD_S", 0.2)
    monkeypatch.setattr(bench, "SUSTAINED_S", 0.2)


def test_the_promised_durations() -> None:
    assert bench.SPREAD_S >= 5
    assert bench.SUSTAINED_S >= 5


@pytest.mark.usefixtures("quick")
def test_files_of_the_same_name_and_a_file_given_twice_get_a_row_each(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = saved(tmp_path / "model.onnx", conv(8)).path
    second = saved(tmp_path / "other" / "model.onnx", conv(128)).path
    report = bench_files([first, second, first], device=LocalDevice("cpu"), seed=0)
    assert [row.file for row in report.rows] == [str(first), str(second), str(first)]
    small, large, small_again = report.rows
    assert large.latency_ms > 2 * small.latency_ms
    assert 0.5 < small.latency_ms / small_again.latency_ms < 2
    for row in report.rows:
        assert 0 < row.latency_ms < math.inf
        assert row.noise_percent >= 0
        assert 0 < row.p50_ms <= row.p90_ms
        assert row.runs >= 3


@pytest.mark.usefixtures("quick")
def test_files_are_visited_for_as_long_as_networks_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visits: list[float] = []
    honest = LocalDevice.measure

    def noting(self: LocalDevice, models: Sequence[ModelFile], **options: Any) -> MeasurementRun:
        visits.extend(model.visit_ms for model in models)
        return honest(self, models, **options)

    monkeypatch.setattr(LocalDevice, "measure", noting)
    weights = numpy_helper.from_array(np.ones((1100, 1100), dtype=np.float32), "w")
    large = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (TensorProto.FLOAT, (1, 1100))}, weights=[weights]
    )
    paths = [saved(tmp_path / "small.onnx", conv()).path, saved(tmp_path / "large.onnx", large).path]
    megabytes = [path.stat().st_size / 1e6 for path in paths]
    bench_files(paths, device=LocalDevice("cpu"))
    assert megabytes[0] < 0.1
    assert megabytes[1] > 4
    # A few ms for little, up to 20 for what has to come into the caches first.
    assert visits[:2] == [pytest.approx(4 + 4 * megabytes[0]), 20.0]


@pytest.mark.usefixtures("quick")
def test_the_report_is_plain_json_with_units_in_its_keys(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", conv()).path
    device = LocalDevice("cpu", threads=2)
    report = json.loads(json.dumps(bench_files([path], device=device).to_json()))
    assert report.keys() == {"device", "fingerprint_hash", "fingerprint", "models"}
    assert report["device"] == "cpu:threads=2"
    assert report["fingerprint_hash"] == device.fingerprint().hash
    assert report["fingerprint"]["threads"] == 2
    (row,) = report["models"]
    assert list(row) == ["file", "latency_ms", "noise_percent", "p50_ms", "p90_ms", "runs"]


@pytest.mark.usefixtures("quick")
def test_the_rounds_of_a_lone_file_are_spread_by_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SPREAD_S", 1.5)
    path = saved(tmp_path / "model.onnx", conv()).path
    stages: list[tuple[float, int]] = []
    bench_files([path], device=LocalDevice("cpu"), progress=lambda done, _: stages.append((time.monotonic(), done)))
    first_s = stages[0][0]
    rounds_end_s = next(moment_s for moment_s, done in stages if done >= 1000)
    assert rounds_end_s - first_s >= 1.4


@pytest.mark.usefixtures("quick")
def test_progress_runs_through_all_stages(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", conv()).path
    told: list[tuple[int, int]] = []
    bench_files([path, path], device=LocalDevice("cpu"), progress=lambda *each: told.append(each))
    assert told == sorted(told)
    assert told[-1] == (3000, 3000)
    assert {total for _, total in told} == {3000}


@pytest.mark.usefixtures("quick")
def test_a_foreign_model_is_measured(shared_data: Path) -> None:
    path = shared_data / "onnx_light" / "light_shufflenet.onnx"
    (row,) = bench_files([path], device=LocalDevice("cpu")).rows
    assert row.latency_ms > 0
    assert 0 < row.p50_ms <= row.p90_ms
    assert row.runs >= 1


def test_no_file_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        bench_files([], device=LocalDevice("cpu"))


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    good = saved(tmp_path / "good.onnx", conv()).path
    bad = tmp_path / "bad.onnx"
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.onnx"):
        bench_files([good, bad], device=LocalDevice("cpu"))


@pytest.mark.slow
@pytest.mark.device
def test_a_lone_file_takes_as_long_as_promised(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", conv()).path
    start_s = time.monotonic()
    (row,) = bench_files([path], device=LocalDevice("cpu")).rows
    assert time.monotonic() - start_s >= bench.SPREAD_S + bench.SUSTAINED_S
    assert row.runs * row.p90_ms > 1000 * bench.SUSTAINED_S / 2
