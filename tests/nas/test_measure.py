"""The measuring core's protocol and its results file, and how it goes on after a kill."""

from __future__ import annotations

import ast
import collections
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nas import measure as core
from nas import runtime
from nas.measure import Manifest, ModelFile
from tests.nas.core_script import COMMAND, CORE, ROUNDS, results, run, three_models, timed, visits, written
from tests.nas.small_models import conv, saved
from tests.source_tree import imports


@pytest.fixture
def models(tmp_path: Path) -> list[ModelFile]:
    return three_models(tmp_path)


# What the file needs


def test_the_core_needs_only_the_standard_library_numpy_and_onnxruntime() -> None:
    names = {name.split(".")[0] for file in CORE for _, name in imports(ast.parse(file.read_text()))}
    # The core's second file goes by two names: in this package, and beside the first on another device.
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "nas", "runtime"}


def test_the_core_is_python_3_8() -> None:
    for file in CORE:
        ast.parse(file.read_text(), feature_version=(3, 8))


def test_the_core_runs_alone_in_a_folder_with_its_default_file_names(tmp_path: Path, models: list[ModelFile]) -> None:
    for file in CORE:
        shutil.copy(file, tmp_path)
    relative = [ModelFile(each.id, Path(each.path.name), each.sha256) for each in models]
    written(tmp_path, relative)
    done = subprocess.run([sys.executable, "measure.py"], cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path)[-1]["kind"] == "end"


# The protocol


def test_every_model_is_visited_once_per_round(tmp_path: Path, models: list[ModelFile]) -> None:
    manifest = written(tmp_path, models)
    run(tmp_path)
    start, *lines, end = results(tmp_path)
    assert (start["kind"], end["kind"]) == ("start", "end")
    assert start["manifest_hash"] == manifest.hash
    order = visits(lines)
    ids = sorted(each.id for each in models)
    for number in range(manifest.rounds):
        assert sorted(name for _, name in order[number * 3 : number * 3 + 3]) == ids
    assert [number for number, _ in order] == sorted(number for number, _ in order)


def test_a_visit_times_a_fixed_number_of_runs(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models)
    run(tmp_path)
    runs: dict[str, set[int]] = collections.defaultdict(set)
    for line in results(tmp_path):
        if line["kind"] != "visit":
            continue
        assert 0 < line["min_ns"] <= line["median_ns"] <= line["p90_ns"]
        assert line["first_ns"] >= line["min_ns"]
        runs[line["id"]].add(line["runs"])
    assert all(len(counts) == 1 and min(counts) >= core.MIN_RUNS for counts in runs.values())


def test_the_order_is_shuffled_afresh_in_each_round_and_follows_the_seed(tmp_path: Path) -> None:
    models = [saved(tmp_path / "conv.onnx", conv(), model_id=str(number)) for number in range(6)]
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        written(tmp_path / name, models, seed=seed, visit_ms=0.1)
        run(tmp_path / name)
        orders.append(visits(results(tmp_path / name)))
    rounds = [tuple(name for each, name in orders[0] if each == number) for number in range(ROUNDS)]
    assert len(set(rounds)) > 1
    assert orders[0] == orders[1] != orders[2]


def test_a_sustained_run_is_summed_up_in_one_line_per_model(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models, sustained_s=0.2)
    run(tmp_path)
    lines = [line for line in results(tmp_path) if line["kind"] == "sustained"]
    assert [line["id"] for line in lines] == [each.id for each in models]
    for line in lines:
        assert 0 < line["p10_ns"] <= line["p50_ns"] <= line["p90_ns"] <= line["max_ns"]
        assert line["p10_ns"] <= line["mean_ns"] <= line["max_ns"]
        assert line["duration_s"] >= 0.2
        assert line["runs"] * line["p10_ns"] <= 1.2e9 * line["duration_s"]


def test_pauses_spread_the_rounds(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models, spread_s=1.0)
    run(tmp_path)
    start, *_, end = results(tmp_path)
    assert end["conditions"]["time_unix_s"] - start["conditions"]["time_unix_s"] >= 1.0


def test_progress_ends_complete_and_is_not_told_too_often(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models, sustained_s=0.2, rounds=20)
    lines = run(tmp_path)
    done = [line["done"] for line in lines]
    assert done == sorted(done)
    assert done[-1] == lines[-1]["total"]
    assert len(done) < 15, "at most about five lines per second"


def test_what_identifies_the_machine_is_written_first(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models, threads=2)
    run(tmp_path)
    start = results(tmp_path)[0]
    fingerprint = start["fingerprint"]
    assert fingerprint == runtime.describe_machine(2)
    assert fingerprint["threads"] == 2
    assert fingerprint["provider"] == "CPUExecutionProvider"
    assert fingerprint["kernel"] == platform.release()
    assert fingerprint["onnxruntime"] == runtime.load_runtime().__version__
    assert "load" in start["conditions"]
    assert "load" not in fingerprint


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc: the processor cannot be described")
def test_the_processor_is_described_from_proc() -> None:
    described = runtime.describe_machine(1)
    assert described["cpu_model"]
    assert described["isa_flags"] == sorted(described["isa_flags"]) != []
    assert described["memory_gib"] > 0
    assert described["affinity"] == sorted(os.sched_getaffinity(0))


def test_the_affinity_is_that_of_the_process(tmp_path: Path, models: list[ModelFile]) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no processor affinity")
    one = min(os.sched_getaffinity(0))
    code = f"import os, sys; os.sched_setaffinity(0, [{one}]); os.execv(sys.executable, {COMMAND!r} + sys.argv[1:])"
    written(tmp_path, models)
    subprocess.run(
        [sys.executable, "-c", code, "manifest.json", "results.jsonl"],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert results(tmp_path)[0]["fingerprint"]["affinity"] == [one]


# Going on after a kill


def killed_midway(folder: Path, *, after_lines: int) -> bytes:
    """Start the core, kill it when it has written some lines, and return the file's content."""
    path = folder / "results.jsonl"
    command = [*COMMAND, "manifest.json", "results.jsonl"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while not path.exists() or path.read_bytes().count(b"\n") < after_lines:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    return path.read_bytes()


TORN = {
    "nothing": b"",
    "half a line": b'{"kind": "visit", "round": 39, "id": "conv8", "ru',
    "zeros": b"\0" * 100,
    "junk": b"\xff",
}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
def test_a_killed_measurement_goes_on(tmp_path: Path, models: list[ModelFile], torn: bytes) -> None:
    manifest = written(tmp_path, models, rounds=40, visit_ms=5, sustained_s=0.05)
    content = killed_midway(tmp_path, after_lines=8)
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(torn)
    kept = content[: content.rfind(b"\n") + 1]
    assert kept.count(b"\n") < 1 + 3 * 40, "it was killed too late to have anything left to do"
    run(tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes().startswith(kept)
    lines = results(tmp_path)
    found = visits(lines, rounds=manifest.rounds)
    assert len(found) == len(set(found)) == 3 * manifest.rounds
    counts = collections.Counter(line["kind"] for line in lines)
    assert (counts["start"], counts["sustained"], counts["end"]) == (1, 3, 1)
    runs = {(line["id"], line["runs"]) for line in lines if line["kind"] == "visit"}
    assert len(runs) == len(models), "a visit has as many runs after the kill as before"


def test_a_kill_before_the_first_whole_line_starts_anew(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models)
    (tmp_path / "results.jsonl").write_bytes(b'{"kind": "start", "format_ver')
    run(tmp_path)
    assert [line["kind"] for line in results(tmp_path)][:2] == ["start", "visit"]


def test_a_finished_measurement_is_left_alone(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models)
    run(tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    (last,) = run(tmp_path)
    assert last["done"] == last["total"]
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_a_measurement_goes_on_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    only = saved(here / "conv.onnx", conv())
    written(here, [ModelFile(only.id, Path("conv.onnx"), only.sha256)])
    run(here)
    here.rename(there)
    run(there)


def test_nobody_listening_ends_the_measurement(tmp_path: Path, models: list[ModelFile]) -> None:
    written(tmp_path, models, rounds=100_000)
    command = [*COMMAND, "manifest.json", "results.jsonl"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=20) == 3


def test_a_foreign_model_is_measured(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "onnx_light" / "light_squeezenet.onnx"
    written(tmp_path, [saved(tmp_path / "foreign.onnx", source.read_bytes())], rounds=2)
    run(tmp_path)
    assert visits(results(tmp_path), rounds=2) == [(0, "foreign"), (1, "foreign")]


# Models that disagree with themselves


def test_only_a_restless_model_is_visited_again_and_at_most_as_often_again(
    tmp_path: Path, models: list[ModelFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 6
    manifest = written(tmp_path, models, rounds=rounds)
    restless, healed = models[0].id, models[1].id
    actual = core._timed_runs
    calls: collections.Counter[str] = collections.Counter()

    def scripted(subject: core._Subject, count: int) -> list[int]:
        actual(subject, 1)
        name = subject.model.id
        calls[name] += 1
        if name == restless:
            return [1000 if calls[name] % 2 else 2000] * count
        # The second model is disturbed in its regular rounds, and quiet afterwards.
        if name == healed and len(journal_of(tmp_path)[name]) in (1, 3, 5):
            return [1500] * count
        return [1000] * count

    def journal_of(folder: Path) -> dict[str, list[int]]:
        found: dict[str, list[int]] = collections.defaultdict(list)
        path = folder / "results.jsonl"
        for line in map(json.loads, path.read_text().splitlines() if path.exists() else ()):
            if line["kind"] == "visit":
                found[line["id"]].append(line["round"])
        return found

    monkeypatch.setattr(core, "_timed_runs", scripted)
    core.measure(manifest, tmp_path / "results.jsonl", lambda done, total: None)
    found = journal_of(tmp_path)
    assert len(found[restless]) == 2 * rounds
    assert rounds < len(found[healed]) < 2 * rounds
    assert len(found[models[2].id]) == rounds


@pytest.mark.parametrize("rounds", [[5.0], [5.0, 5.0], [3.0, 3.0, 3.0, 9.0]])
def test_the_figure_of_rounds_is_their_lower_quartile(rounds: list[float]) -> None:
    assert core.lower_quartile(rounds) == min(rounds)


def test_rounds_that_take_turns_disagree_with_themselves() -> None:
    assert core.halves_differ_percent([1.0, 1.0, 1.0, 1.0]) == 0.0
    assert core.halves_differ_percent([7.0]) == 0.0
    assert core.halves_differ_percent([1.0, 2.0] * 8) == pytest.approx(100.0)


# Little memory


def test_models_of_one_group_stay_together_where_memory_is_too_short_for_all(
    tmp_path: Path, models: list[ModelFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [replace(model, group=number % 2) for number, model in enumerate(timed(models))]
    manifest = Manifest(models=tuple(files), rounds=ROUNDS)
    monkeypatch.setattr(runtime, "free_bytes", lambda: int(2.5 * core._SESSION_BYTES / core._MEMORY_SHARE))
    core.measure(manifest, tmp_path / "results.jsonl", lambda done, total: None)
    order = [name for _, name in visits(results(tmp_path))]
    assert set(order[: 2 * ROUNDS]) == {models[0].id, models[2].id}
    assert order[2 * ROUNDS :] == [models[1].id] * ROUNDS


@pytest.mark.parametrize("together", [1, 2])
def test_where_memory_is_short_loads_of_models_take_turns_of_a_few_rounds(
    together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [saved(tmp_path / f"conv{size}.onnx", conv(size)) for size in (8, 9, 10, 11, 12, 13)]
    turns, rounds_per_turn = 3, core._ROUNDS_PER_TURN
    rounds = turns * rounds_per_turn
    manifest = written(tmp_path, models, visit_ms=0.1, rounds=rounds)
    session_bytes = core._loaded_bytes(manifest, range(len(models))) / len(models)
    monkeypatch.setattr(runtime, "free_bytes", lambda: (together + 0.1) * session_bytes / core._MEMORY_SHARE)
    monkeypatch.setattr(core, "UNSTABLE_PERCENT", math.inf)
    core.measure(manifest, tmp_path / "results.jsonl", lambda done, total: None)
    order = visits(results(tmp_path), rounds=rounds)
    assert sorted(order) == sorted((number, model.id) for number in range(rounds) for model in models)
    size = together * rounds_per_turn
    loads = [order[start : start + size] for start in range(0, len(order), size)]
    for number, load in enumerate(loads):
        first = number // (len(models) // together) * rounds_per_turn
        assert sorted({each for each, _ in load}) == list(range(first, first + rounds_per_turn))
        assert len({name for _, name in load}) == together
    if together > 1:
        assert len({frozenset(name for _, name in load) for load in loads}) > len(loads) // turns
