"""What the measuring core refuses: each time with one line that names what is wrong, and without damage."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from nas import measure as core
from nas.measure import Manifest, ModelFile, read_manifest
from nas.runtime import MeasureError
from tests.nas.core_script import COMMAND, error_of, results, run, three_models, visits, written
from tests.nas.small_models import conv, identity, model, saved, unknown_operator, with_external_weights


@pytest.fixture
def models(tmp_path: Path) -> list[ModelFile]:
    return three_models(tmp_path)


@pytest.mark.parametrize("changed", [{"rounds": 5}, {"seed": 1}, {"visit_ms": 2.0}, {"threads": 2}, {"spread_s": 0.1}])
def test_results_of_another_manifest_are_refused(
    tmp_path: Path, models: list[ModelFile], changed: dict[str, Any]
) -> None:
    written(tmp_path, models)
    run(tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    written(tmp_path, models, **changed)
    assert "another manifest" in error_of(tmp_path)["error"]
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_results_of_another_model_are_refused(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models)
    run(tmp_path)
    written(tmp_path, [saved(models[0].path, conv(9)), *models[1:]])
    assert "another manifest" in error_of(tmp_path)["error"]


def test_results_of_another_machine_are_refused_naming_what_differs(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models)
    run(tmp_path)
    path = tmp_path / "results.jsonl"
    start, *rest = path.read_text().splitlines(keepends=True)
    elsewhere = json.loads(start)
    elsewhere["fingerprint"] |= {"onnxruntime": "1.0.0", "memory_gib": 0.5}
    path.write_text(json.dumps(elsewhere) + "\n" + "".join(rest))
    assert "(memory_gib, onnxruntime)" in error_of(tmp_path)["error"]


@pytest.mark.parametrize("content", [b"my thesis, without a newline", b"my thesis\nmy notes", b'{"kind": "end"}\n'])
def test_a_file_that_is_not_ours_is_left_as_it_is(tmp_path: Path, models: list[ModelFile], content: bytes) -> None:
    written(tmp_path, models)
    (tmp_path / "results.jsonl").write_bytes(content)
    assert "not a results file" in error_of(tmp_path)["error"]
    assert (tmp_path / "results.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    "damage", ["", "{}", "[]", "3", '{"kind": "visit", "id": [], "round": 0, "runs": 3}', "[" * 10**5]
)
def test_a_damaged_results_file_is_refused(tmp_path: Path, models: list[ModelFile], damage: str) -> None:
    written(tmp_path, models)
    run(tmp_path)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write(damage + "\n")
    assert "damaged" in error_of(tmp_path)["error"]


@pytest.mark.slow
def test_two_processes_do_not_write_the_same_results(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models, rounds=100_000)
    command = [*COMMAND, "manifest.json", "results.jsonl"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert "another process is measuring" in error_of(tmp_path)["error"]
        finally:
            process.kill()


def bad_model(kind: str, folder: Path) -> bytes:
    good = conv().SerializeToString()
    square = helper.make_node("MatMul", ["x", "x"], ["y"])
    made: dict[str, bytes] = {
        "not ONNX": b"hello\nworld",
        "empty": b"",
        "cut off": good[:-100],
        "unknown operator": unknown_operator().SerializeToString(),
        "external data": with_external_weights(folder).SerializeToString(),
        "text input": identity(TensorProto.STRING).SerializeToString(),
        "unfit symbolic size": model([square], {"x": (TensorProto.FLOAT, ["n", 3])}).SerializeToString(),
    }
    return made[kind]


@pytest.mark.parametrize(
    "kind", ["not ONNX", "empty", "cut off", "unknown operator", "external data", "text input", "unfit symbolic size"]
)
def test_a_bad_model_is_named_in_one_line(tmp_path: Path, models: list[ModelFile], kind: str) -> None:
    bad = saved(tmp_path / "bad.onnx", bad_model(kind, tmp_path), model_id="the bad one")
    written(tmp_path, [*models, bad])
    message = error_of(tmp_path)
    assert message["id"] == "the bad one"
    assert "bad.onnx" in message["error"]
    assert visits(results(tmp_path)) == [], "nothing is measured before all models are known to be good"


def test_a_model_with_other_content_than_the_manifest_says_is_refused(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models)
    models[1].path.write_bytes(conv(9).SerializeToString())
    message = error_of(tmp_path)
    assert message["id"] == models[1].id
    assert "sha256" in message["error"]


def test_a_missing_model_is_refused(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models)
    models[2].path.unlink()
    message = error_of(tmp_path)
    assert message["id"] == models[2].id
    assert "No such file" in message["error"]


def test_a_manifest_reads_back_as_it_was(tmp_path: Path, models: list[ModelFile]) -> None:
    manifest = written(tmp_path, models, seed=3, sustained_s=2.5, spread_s=1)
    assert read_manifest(tmp_path / "manifest.json") == manifest


def test_the_hash_of_a_manifest_leaves_out_where_the_files_lie(models: list[ModelFile]) -> None:
    moved = tuple(ModelFile(each.id, Path("/elsewhere") / each.path.name, each.sha256) for each in models)
    assert Manifest(models=tuple(models)).hash == Manifest(models=moved).hash
    assert Manifest(models=tuple(models)).hash != Manifest(models=moved[:2]).hash


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 1},
        {"models": []},
        {"models": [{"id": "a", "path": "a"}]},
        {"models": [{"id": "a", "path": "a", "sha256": "0", "more": 1}]},
        {"models": [{"id": "a", "path": "a", "sha256": "0"}, {"id": "a", "path": "b", "sha256": "0"}]},
        {"models": [{"id": 1, "path": "a", "sha256": "0"}]},
        {"models": [{"id": "a", "path": "a", "sha256": "0", "group": "first"}]},
        {"models": [{"id": "a", "path": "a", "sha256": "0", "visit_ms": 0}]},
        {"models": [{"id": "a", "path": "a", "sha256": "0", "visit_ms": float("nan")}]},
        {"models": [{"id": "a", "path": "a", "sha256": "0", "sustained_s": float("inf")}]},
        {"provider": "abacus"},
        {"minimum_runtime": "new"},
        {"rounds": 0},
        {"rounds": 1.5},
        {"threads": "1"},
        {"seed": -1},
        {"spread_s": -1},
        {"warmup": 3},
    ],
)
def test_a_bad_manifest_is_refused_in_one_line(tmp_path: Path, models: list[ModelFile], change: dict[str, Any]) -> None:
    written(tmp_path, models)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(MeasureError, match=r"manifest\.json: ") as refusal:
        read_manifest(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "3"])
def test_a_file_that_is_no_manifest_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert "not a manifest" in error_of(tmp_path)["error"]
    assert not (tmp_path / "results.jsonl").exists()


def test_a_clock_that_stands_still_is_an_error(
    tmp_path: Path, models: list[ModelFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "perf_counter_ns", lambda: 7)
    with pytest.raises(MeasureError, match="clock"):
        core.measure(written(tmp_path, models), tmp_path / "results.jsonl", lambda done, total: None)


def test_a_runtime_that_is_too_old_for_the_models_is_refused(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models, minimum_runtime="99.1")
    assert "need onnxruntime >= 99.1, here is" in error_of(tmp_path)["error"]
    assert not (tmp_path / "results.jsonl").exists()


def test_a_provider_that_is_not_installed_is_refused_naming_its_package(
    tmp_path: Path, models: list[ModelFile]
) -> None:
    written(tmp_path, models, provider="openvino")
    message = error_of(tmp_path)["error"]
    assert "has no OpenVINOExecutionProvider" in message
    assert "onnxruntime-openvino" in message


def test_a_runtime_that_dies_on_import_is_told_in_one_line(tmp_path: Path, models: list[ModelFile]) -> None:
    # Some builds hold instructions that a processor lacks: importing them kills the process.
    broken = tmp_path / "broken" / "onnxruntime"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    written(tmp_path, models)
    done = subprocess.run(
        [*COMMAND, "manifest.json", "results.jsonl"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "broken")},
    )
    assert done.returncode == 3
    message = json.loads(done.stdout)["error"]
    assert "onnxruntime cannot be imported here (ended by signal 4)" in message
    assert "another version or build" in message
