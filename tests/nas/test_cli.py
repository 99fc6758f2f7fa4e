"""The command line itself: its options, its help, how fast it answers, and the keys of its JSON."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from nas import bench
from nas.cli import app
from tests.command_line import Stage, command, environment, nas, nas_here, refusal, succeed
from tests.conftest import EVALUATIONS
from tests.nas.hazards import wait_until
from tests.nas.small_models import conv, saved
from tests.source_tree import ROOT

OPTIONS = {
    "train": {
        "--run",
        "--space",
        "--data",
        "--steps",
        "--batch-size",
        "--config",
        "--init",
        "--teacher",
        "--accelerator",
        "--strict",
        "--tensorboard",
        "--seed",
        "--json",
    },
    "build-lut": {
        "--device",
        "--run",
        "--space",
        "--data",
        "--name",
        "--out",
        "--from",
        "--transfer-from",
        "--seed",
        "--json",
    },
    "devices": {"--json"},
    "analyze": {"--device", "--run", "--seed", "--json"},
    "lut show": {"--device", "--run", "--csv", "--json"},
    "lut check": {"--device", "--run", "--networks", "--allow-mismatch", "--seed", "--json"},
    "search": {
        *("--budget-ms", "--budget-at", "--max-params", "--max-size-mb", "--max-memory-mb", "--objective"),
        *("--device", "--joint"),
        *("--run", "--evaluations", "--time-limit", "--strategy", "--compare", "--dry-run", "--allow-mismatch"),
        *("--workers", "--ledger", "--seed", "--json"),
    },
    "work": {"--run", "--idle", "--threads", "--json"},
    "front": {
        *("--budget-ms", "--budget-at", "--max-params", "--max-size-mb", "--max-memory-mb", "--objective"),
        *("--device", "--joint"),
        *("--run", "--json"),
    },
    "status": {"--run", "--json"},
    "report": {"--run", "--out", "--json"},
    "export": {
        *("--pick", "--budget-ms", "--format", "--dynamic-batch", "--pixels", "--most-lost", "--finetuned", "--force"),
        *("--device", "--run", "--allow-mismatch", "--seed", "--json"),
    },
    "finetune": {
        *("--pick", "--precision", "--norms", "--steps", "--learning-rate", "--distillation", "--force", "--device"),
        *("--run", "--accelerator", "--seed", "--json"),
    },
    "verify": {"--data", "--test", "--run", "--seed", "--json"},
    "bench": {"--device", "--sustained", "--run", "--seed", "--json"},
    "baseline": {
        *("--preset", "--budget-ms", "--steps", "--seconds", "--device", "--run", "--accelerator", "--seed", "--json"),
        "--allow-mismatch",
    },
    "import-ofa": {"--run", "--space", "--data", "--new-classifier", "--json"},
    "space list": {"--json"},
    "space show": {"--channels", "--classes", "--json"},
    "space check": {"--channels", "--classes", "--json"},
    "space count": {"--channels", "--classes", "--json"},
    "data show": {"--out", "--run", "--space", "--data", "--columns", "--seed", "--json"},
}
HEAVY = {
    *("torch", "numpy", "onnx", "onnxruntime", "optuna", "pandas", "PIL", "pymoo", "scipy", "sklearn", "plotly"),
    "jinja2",
}
HELP = """
import sys
from nas.cli import run_command
code = run_command(sys.argv[1:])
print("LOADED", *sorted({name.split(".")[0] for name in sys.modules}))
sys.exit(code)
"""


def commands() -> dict[str, Any]:
    """Return every command by its words; those of a group, such as `data`, one by one."""
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, each in group.commands.items():
        inside = getattr(each, "commands", None)
        found |= {name: each} if inside is None else {f"{name} {word}": part for word, part in inside.items()}
    return found


@pytest.fixture
def quick_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make benchmarks short: how long they take is another test's."""
    monkeypatch.setattr(bench, "SPREAD_S", 0.2)
    monkeypatch.setattr(bench, "SUSTAINED_S", 0.2)


def test_the_options_of_every_command_are_these() -> None:
    found = {
        name: {option for parameter in each.params for option in parameter.opts if option.startswith("--")}
        for name, each in commands().items()
    }
    assert found == OPTIONS


def test_every_command_takes_json_and_where_it_has_a_run_and_draws_their_options() -> None:
    assert all("--json" in options for options in OPTIONS.values())
    assert {name for name, options in OPTIONS.items() if "--run" not in options} == {
        "devices",
        *(f"space {word}" for word in ("list", "show", "check", "count")),
    }
    without_seed = {name for name, options in OPTIONS.items() if "--run" in options and "--seed" not in options}
    assert without_seed == {"import-ofa", "lut show", "work", "front", "status", "report"}


@pytest.mark.parametrize(
    "arguments", [(), *(tuple(name.split()) for name in OPTIONS)], ids=lambda value: " ".join(value) or "nas"
)
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    words = [sys.executable, "-c", HELP, *arguments, "--help"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text, _, loaded = done.stdout.partition("LOADED ")
    assert not HEAVY & set(loaded.split())
    assert "typer" in loaded.split()
    expected = OPTIONS[" ".join(arguments)] if arguments else {name.split()[0] for name in OPTIONS}
    assert [name for name in expected if name not in text] == []


@pytest.mark.device
def test_help_answers_within_three_tenths_of_a_second() -> None:
    # The promise is about an idle machine: on a busy one, one of several attempts gets a quiet moment.
    seconds = []
    for _ in range(20):
        start_s = time.monotonic()
        subprocess.run(command("--help"), env=environment(), stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.monotonic() - start_s)
        if seconds[-1] <= 0.3:
            return
    pytest.fail(f"the fastest of {len(seconds)} took {min(seconds):.2f} s")


def test_the_console_script_and_the_module_are_the_same_command() -> None:
    script = subprocess.run(
        [Path(sys.executable).with_name("nas"), "--help"], capture_output=True, text=True, check=True, env=environment()
    )
    module = succeed(nas("--help"))
    assert script.stdout == module.stdout
    assert "Usage: nas " in module.stdout


@pytest.mark.parametrize("group", ["data", "lut", "space"])
def test_a_group_alone_shows_its_help(group: str) -> None:
    text = succeed(nas_here(group)).stdout
    assert f"Usage: nas {group} " in text
    assert all(name.split()[1] in text for name in OPTIONS if name.startswith(f"{group} "))


def test_the_demo_gives_only_options_that_exist() -> None:
    lines = (ROOT / "scripts" / "demo").read_text().splitlines()
    stages = [shlex.split(line)[3:] for line in lines if re.match(r"stage \d+ nas ", line)]
    assert [words[0] for words in stages] == ["train", "build-lut", "search", "export"]
    for name, *words in stages:
        # Parses as the command line would, and stops there.
        context = commands()[name].make_context(name, list(words))
        assert str(context.params["run"]) == "$run"
    assert re.search(r"--budget-ms \d+%", " ".join(stages[2]))


def test_the_demo_runs_on_the_defaults_that_the_commands_name() -> None:
    for name in ("train", "build-lut"):
        text = succeed(nas_here(name, "--help")).stdout
        assert "[default: tiny]" in " ".join(text.split())
        assert "[default: clutter]" in " ".join(text.split())


# JSON

Keys = dict[str, Any]


def documented_keys() -> dict[str, set[str]]:
    """Return the keys that docs/json-output.md names, by command; those of a candidate and of a comparison apart."""
    text = (ROOT / "docs" / "json-output.md").read_text()
    rows = re.findall(r"^\| `([a-z -]+)` \| (.+) \|$", text, re.MULTILINE)
    found = {name: names(keys) for name, keys in rows}
    for kind in ("candidate", "comparison", "kit", "plan", "file"):
        (sentence,) = re.findall(rf"A {kind}(?: \([^)]*\))?: (.*?)\.(?:\s|$)", text, re.DOTALL)
        found[kind] = names(sentence)
    return found


def names(text: str) -> set[str]:
    return {word for word in re.findall(r"`([^`]+)`", text) if re.fullmatch("[a-z0-9_]+", word)}


def keys_of(value: Any, *, without: tuple[str, ...] = ()) -> set[str]:
    """Return all keys of a JSON value, those inside it too, but not those below some keys."""
    if isinstance(value, list):
        return set().union(*(keys_of(item, without=without) for item in value))
    if not isinstance(value, dict):
        return set()
    below = [keys_of(item, without=without) for key, item in value.items() if key not in without]
    return set(value).union(*below)


def test_the_documented_keys_are_read_as_they_are_written() -> None:
    documented = documented_keys()
    assert documented.keys() == {*OPTIONS, "candidate", "comparison", "kit", "plan", "file"}
    assert {"path", "test_reads"} <= documented["export"]
    assert "measured_latency_ms" in documented["candidate"]


def test_training_prints_the_documented_keys(train_stage: Stage) -> None:
    value = train_stage.finished.json
    assert keys_of(value) == documented_keys()["train"]
    assert value["run"] == str(train_stage.run)
    accuracy = value["validation_accuracy"]
    assert all(0 <= accuracy[name] <= 1 for name in ("largest", "smallest", "random"))
    assert accuracy["images"] == 1436


def test_measuring_prints_the_documented_keys(lut_stage: Stage) -> None:
    value = lut_stage.finished.json
    assert keys_of(value) == documented_keys()["build-lut"]
    assert value["blocks"] == 110
    assert value["file"] == str(lut_stage.run / "luts" / "cpu.json")


def test_searching_prints_the_documented_keys(search_stage: Stage) -> None:
    value, documented = search_stage.finished.json, documented_keys()
    assert value.keys() == documented["search"]
    assert value["candidates"]
    for candidate in value["candidates"]:
        assert candidate.keys() == documented["candidate"]
    assert value["comparison"].keys() == documented["comparison"]
    stored = json.loads((search_stage.run / "front.json").read_text())["fronts"]["cpu"]
    # Of what was asked for, in order, the ledger tells: it is kept for the report.
    assert len(stored.pop("asked")) == EVALUATIONS == len(stored["comparison"].pop("against_asked"))
    assert {key: value[key] for key in stored} == stored


def test_exporting_prints_the_documented_keys(export_stage: Stage) -> None:
    value, documented = export_stage.finished.json, documented_keys()
    assert value.keys() == documented["export"]
    assert value["candidate"].keys() == documented["candidate"]
    assert [file.keys() for file in value["files"]] == [documented["file"]]
    stored = json.loads(Path(value["path"]).with_name("export.json").read_text())
    assert {key: value[key] for key in stored} == stored


@pytest.mark.usefixtures("quick_bench")
def test_benching_prints_the_documented_keys_and_takes_the_exports_of_a_run(export_stage: Stage) -> None:
    path = export_stage.finished.json["path"]
    named = succeed(nas_here("bench", path, path, "--sustained", 0.5, "--json"))
    assert named.stderr == ""
    assert keys_of(named.json, without=("fingerprint",)) == documented_keys()["bench"]
    assert [row["file"] for row in named.json["models"]] == [path, path]
    of_the_run = succeed(nas_here("bench", "--run", export_stage.run, "--sustained", 0.5))
    assert "model.onnx" in of_the_run.stdout
    assert "p90" in of_the_run.stdout


def test_keys_that_are_times_carry_their_unit(lut_stage: Stage, search_stage: Stage, export_stage: Stage) -> None:
    for stage in (lut_stage, search_stage, export_stage):
        found = keys_of(stage.finished.json, without=("fingerprint",))
        assert [key for key in found if re.search("latency|budget|time|bias|mape|noise", key) and not unit(key)] == []


def unit(key: str) -> bool:
    return key.endswith(("_ms", "_percent")) or key in {"budget_binds", "budget_at", "inside_budget"}


# Ends that are not our own


def test_an_interrupted_command_says_so_in_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    model = saved(tmp_path / "model.onnx", conv()).path
    process = subprocess.Popen(
        command("bench", model), env=environment(TMPDIR=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: any(tmp_path.glob("nas-bench-*/rounds/results.jsonl")))
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, stdout) == (130, b"")
    assert re.fullmatch(rb"nas: interrupted; [^\n]*\n", stderr)
    assert children
    assert [child for child in children if Path("/proc", str(child)).exists()] == []
    assert not list(tmp_path.glob("nas-bench-*"))


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_reader_that_is_gone_is_no_error_worth_a_word() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.Popen(command("--help"), env=environment(), stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (1, b"")


def test_a_defect_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch, trained_run: Path) -> None:
    monkeypatch.setattr("nas.run.Run.existing", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        nas_here("export", "--run", trained_run)


# What people read


def test_training_again_with_the_same_settings_repeats_the_result_in_words(train_stage: Stage, tmp_path: Path) -> None:
    run = shutil.copytree(train_stage.run, tmp_path / "run")
    before = (run / "supernet" / "weights.safetensors").stat().st_mtime_ns
    again = succeed(nas_here("train", "--run", run, "--steps", 12, "--batch-size", 32))
    assert (run / "supernet" / "weights.safetensors").stat().st_mtime_ns == before
    accuracy = train_stage.finished.json["validation_accuracy"]
    assert f"largest {100 * accuracy['largest']:.1f} %" in again.stdout
    assert f"Next: nas build-lut --device cpu --run {run}\n" in again.stdout


def test_a_failed_command_with_json_prints_no_object(tmp_path: Path) -> None:
    assert "nas train" in refusal(nas_here("export", "--run", tmp_path, "--json"))
