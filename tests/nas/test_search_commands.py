"""`nas search` after a search, `nas front` and `nas status`: answers from what a run holds, without evaluating."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from nas.devices import LocalDevice, parse_device
from nas.goal import exact_costs
from nas.ledger import accuracy_evaluator
from nas.onnx_accuracy import onnx_accuracy
from nas.run import Run
from nas.runtime import open_session
from predictors.latency import LatencyPredictor
from tests.command_line import command, environment, nas_here, refusal, succeed
from tests.nas.hazards import wait_until
from tests.source_tree import ROOT

LOADED = """
import sys
from nas.cli import run_command
code = run_command(sys.argv[1:])
print("LOADED", *sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def copied(searched_run: Path, tmp_path: Path) -> Path:
    """A searched run of one's own."""
    return shutil.copytree(searched_run, tmp_path / "run")


def evaluations(path: Path) -> int:
    run = Run.existing(path, first="nas train")
    return run.ledger.count(accuracy_evaluator(run.require_supernet().supernet_hash, "validation"))


def contents(path: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() for each in path.rglob("*") if each.is_file() and each.name != ".lock"}


def loaded_by(*arguments: object) -> tuple[dict[str, object], set[str]]:
    """Run a command in a process of its own; return its JSON, and the packages that it has loaded."""
    words = [sys.executable, "-c", LOADED, *map(str, arguments), "--json"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    return json.loads(done.stdout), set(done.stderr.partition("LOADED ")[2].split())


@pytest.mark.parametrize("command", ["search", "front"])
def test_another_budget_is_answered_from_what_is_known(copied: Path, command: str) -> None:
    before, front_before = evaluations(copied), (copied / "front.json").read_bytes()
    value, loaded = loaded_by(command, "--run", copied, "--budget-ms", "80%")
    # A search compares the machine with the table's, which takes the runtime.
    assert not {"torch", "onnx", *({"onnxruntime"} if command == "front" else {})} & loaded
    assert ("file" in value) is (command == "search")
    assert evaluations(copied) == before
    assert value["evaluations"] == 0
    run = Run.existing(copied, first="nas train")
    table = run.latency_table(parse_device("cpu"))
    limit_ms = value["budget_ms"]
    assert isinstance(limit_ms, float)
    slower = LatencyPredictor(run.space, table).held_out_ratios().max()
    known = run.known_accuracies()
    for each in value["candidates"]:  # type: ignore[attr-defined]
        assert known[tuple(each["genes"])] == each["validation_accuracy"]
        if each["measured_latency_ms"] is None:
            assert each["predicted_latency_ms"] * max(slower, 1.0) <= limit_ms * (1 + 1e-12)
        else:
            assert each["measured_latency_ms"] <= limit_ms
    written = (copied / "front.json").read_bytes() != front_before
    assert written is (command == "search")
    if written:
        assert run.front().budget_ms == limit_ms


def test_a_front_writes_nothing_and_says_what_it_is_of(copied: Path) -> None:
    before = contents(copied)
    finished = succeed(nas_here("front", "--run", copied))
    assert contents(copied) == before
    assert "No budget on cpu; the space is predicted to reach from" in finished.stdout
    assert "that were evaluated before" in finished.stdout
    assert finished.stdout.splitlines()[-1] == f"Next: nas search --run {copied}"


def test_a_plan_says_what_can_be_reached_and_writes_nothing(copied: Path) -> None:
    before = contents(copied)
    value = succeed(nas_here("search", "--run", copied, "--budget-ms", "50%", "--dry-run", "--json")).json
    assert contents(copied) == before
    run = Run.existing(copied, first="nas train")
    latency = LatencyPredictor(run.space, run.latency_table(parse_device("cpu")))
    assert value["reachable"]["latency_ms"] == [latency.cheapest()[0], latency.dearest()[0]]
    assert {"params", "macs", "file_mb"} <= value["reachable"].keys()
    assert value["evaluations"] == 0
    assert 0 < value["known"] <= evaluations(copied)
    assert 0 < value["seconds_per_evaluation"] < 60
    arguments = ("--budget-ms", "50%", "--dry-run", "--evaluations", 500, "--max-params", 4e4)
    text = succeed(nas_here("search", "--run", copied, *arguments)).stdout
    assert re.search(r"params +\d+\S* +\S+ +40000 *\n", text)
    assert re.search(r"would evaluate at most 500 networks, of about \S+ s each: \S+ minutes;", text)


@pytest.mark.parametrize(
    ("options", "evaluations"),
    [
        ((), 0),
        (("--time-limit", "9"), 96),
        (("--seed", "1"), 96),
        (("--workers", "2"), 96),
        (("--compare", "random"), 192),
        (("--evaluations", "7"), 7),
    ],
)
def test_a_plan_is_what_the_command_would_do(copied: Path, options: tuple[str, ...], evaluations: int) -> None:
    arguments = ("--budget-ms", "50%", *options, "--dry-run", "--json")
    assert succeed(nas_here("search", "--run", copied, *arguments)).json["evaluations"] == evaluations


def test_a_plan_moves_no_ledger(copied: Path) -> None:
    arguments = ("--budget-ms", "50%", "--dry-run", "--ledger", "postgresql://nobody@nowhere/none")
    assert "leave one of them out" in refusal(nas_here("search", "--run", copied, *arguments))


def test_a_plan_before_any_search_is_to_search(measured_run: Path) -> None:
    planned = succeed(nas_here("search", "--run", measured_run, "--budget-ms", "50%", "--dry-run", "--json")).json
    assert planned["evaluations"] == 96


@pytest.mark.parametrize("change", [{"format_version": 2}, {"fronts": {"cpu": {}}}], ids=["older", "damaged"])
def test_a_front_that_cannot_be_read_is_searched_anew(copied: Path, change: dict[str, object]) -> None:
    path = copied / "front.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert str(path) in refusal(nas_here("front", "--run", copied))
    status = succeed(nas_here("status", "--run", copied, "--json")).json
    assert status["fronts"] == []
    assert str(path) in status["front_problem"]
    assert status["next"].startswith("nas search")
    # Which a plan says without searching.
    planned = nas_here("search", "--run", copied, "--budget-ms", "50%", "--dry-run", "--json")
    assert (planned.json["evaluations"], planned.code) == (96, 0)
    assert "searching anew" in planned.stderr


@pytest.mark.slow
def test_more_evaluations_search_on_inside_bounds_and_for_a_time(copied: Path) -> None:
    before = evaluations(copied)
    options = ("--objective", "params", "--objective", "latency_ms", "--max-params", 40_000, "--budget-at", "p90")
    value = succeed(
        nas_here("search", "--run", copied, *options, "--evaluations", 60, "--time-limit", 2, "--json")
    ).json
    assert 0 < value["evaluations"] < 60
    assert before < evaluations(copied) <= before + value["evaluations"]
    assert value["objectives"] == ["params", "latency_ms"]
    assert value["bounds"] == {"params": 40_000}
    assert (value["budget_ms"], value["budget_at"]) == (None, "p90")
    assert all(each["params"] <= 40_000 and each["measured_latency_ms"] > 0 for each in value["candidates"])
    exported = json.loads(nas_here("export", "--run", copied, "--json").stdout)
    assert (exported["budget_ms"], exported["budget_at"], exported["inside_budget"]) == (None, "p90", True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--objective", "latency"), "unknown cost on device cpu 'latency'; did you mean 'latency_ms'?"),
        (("--max-params", "5"), "no network of the space is known to keep params <= 5: it reaches from"),
        (("--max-size-mb", "inf"), "file_mb <= inf: it reaches from"),
        (("--budget-at", "p99"), "--budget-at is min, p50 or p90, not 'p99'"),
        (("--device", "cpu:threads=2"), "run `nas build-lut --device cpu:threads=2"),
    ],
)
@pytest.mark.parametrize("command", ["search", "front"])
def test_what_cannot_be_asked_for_is_refused(
    searched_run: Path, command: str, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in refusal(nas_here(command, "--run", searched_run, *arguments))


def test_a_front_before_any_search_names_the_command(measured_run: Path) -> None:
    error = refusal(nas_here("front", "--run", measured_run, "--budget-ms", "50%"))
    assert re.search(r"run `nas search --budget-ms \S+ --run \S+` first", error)


def test_a_front_of_other_weights_is_not_looked_at(copied: Path) -> None:
    path = copied / "front.json"
    stored = json.loads(path.read_text())
    stored["fronts"]["cpu"]["supernet_hash"] = "0" * 16
    path.write_text(json.dumps(stored))
    assert "no search has evaluated a network" in refusal(nas_here("front", "--run", copied))


# Status


def test_every_stage_names_the_next(trained_run: Path, measured_run: Path, searched_run: Path) -> None:
    told = [
        succeed(nas_here("status", "--run", run, "--json")).json for run in (trained_run, measured_run, searched_run)
    ]
    assert [each["next"].partition(" --run")[0] for each in told] == [
        "nas build-lut --device cpu",
        "nas search --budget-ms 50%",
        "nas export",
    ]
    for each in told:
        assert (each["space"], each["data"], each["supernet"], each["steps"]) == ("tiny", "clutter", "trained", 12)
    assert [len(each["tables"]) for each in told] == [0, 1, 1]
    assert told[0]["evaluated"] > 0
    front = Run.existing(searched_run, first="nas train").front()
    assert told[2]["fronts"] == [
        {
            "device": "cpu",
            "budget_ms": front.budget_ms,
            "budget_at": "min",
            "networks": len(front.candidates),
            "best": front.best.id,
            "validation_accuracy": front.best.validation_accuracy,
            "latency_ms": front.best.latency_ms,
        }
    ]


def test_status_is_read_by_people_and_loads_nothing_heavy(searched_run: Path) -> None:
    value, loaded = loaded_by("status", "--run", searched_run)
    assert not {"torch", "onnxruntime", "onnx", "pymoo"} & loaded
    text = succeed(nas_here("status", "--run", searched_run)).stdout
    assert "trained, 12 steps" in text
    assert str(value["evaluated"]) in text
    assert f"the best {value['fronts'][0]['best']} (" in text  # type: ignore[index]
    assert text.splitlines()[-1].startswith("Next: nas export --run ")


def test_a_training_that_was_stopped_goes_on(trained_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "supernet" / "training.json").unlink()
    value = succeed(nas_here("status", "--run", run, "--json")).json
    assert (value["supernet"], value["steps"], value["evaluated"]) == ("stopped", 12, 0)
    assert value["next"].startswith("nas train --run")
    assert "stopped after step 12" in succeed(nas_here("status", "--run", run)).stdout


def test_where_there_is_a_table_of_another_device_alone_it_is_searched_for(copied: Path) -> None:
    (copied / "front.json").unlink()
    table = json.loads((copied / "luts" / "cpu.json").read_text())
    (copied / "luts" / "cpu.json").unlink()
    assert "nas build-lut --device cpu" in succeed(nas_here("status", "--run", copied, "--json")).json["next"]
    path = copied / "luts" / f"{parse_device('cpu:threads=2').slug}.json"
    path.write_text(json.dumps(table | {"device": "cpu:threads=2"}))
    assert "--device cpu:threads=2" in succeed(nas_here("status", "--run", copied, "--json")).json["next"]


def test_a_table_that_cannot_be_used_is_told_with_the_reason(copied: Path) -> None:
    (copied / "luts" / "cpu.json").write_text("{}")
    value = succeed(nas_here("status", "--run", copied, "--json")).json
    (table,) = value["tables"]
    assert (table["device"], table["mape_percent"]) == ("cpu", None)
    assert "cpu.json" in table["problem"]
    assert value["next"].startswith("nas build-lut")


def test_status_prints_the_documented_keys(searched_run: Path) -> None:
    text = (ROOT / "docs" / "json-output.md").read_text()
    documented = set(
        re.findall(r"`([a-z_]+)`", next(line for line in text.splitlines() if line.startswith("| `status`")))
    )
    value = succeed(nas_here("status", "--run", searched_run, "--json")).json
    assert {*value, *value["tables"][0], *value["fronts"][0]} == documented - {"status"}
    planned = succeed(nas_here("search", "--run", searched_run, "--budget-ms", "50%", "--dry-run", "--json")).json
    plan = text[text.index("A plan (") :].partition("\n\n")[0]
    assert set(planned) == set(re.findall(r"`([a-z_]+)`", plan))


def test_the_command_alone_shows_where_the_run_stands(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = nas_here()
    assert "Commands:\n" in finished.stdout
    shutil.copytree(trained_run, tmp_path / "runs" / "default")
    assert succeed(nas_here()).stdout.splitlines()[-1] == "Next: nas build-lut --device cpu"


def test_status_without_a_run_names_the_first_command(tmp_path: Path) -> None:
    assert "run `nas train --run" in refusal(nas_here("status", "--run", tmp_path / "none"))


# Several devices, workers, and searching on


def with_table_of(run: Path, name: str, **fields: object) -> Path:
    """Give a run a table of another device, as if it had been measured: with the figures of the first one."""
    table = json.loads((run / "luts" / "cpu.json").read_text())
    device = parse_device(name)
    table |= {"device": name, "precision": device.precision, "batch": device.batch} | fields
    if isinstance(device, LocalDevice):
        fingerprint = device.fingerprint()
        table |= {"fingerprint": dataclasses.asdict(fingerprint), "fingerprint_hash": fingerprint.hash}
    (run / "luts" / f"{device.slug}.json").write_text(json.dumps(table))
    return run


def test_each_device_has_a_front_and_the_run_keeps_them_all(copied: Path) -> None:
    with_table_of(copied, "cpu:threads=2")
    both = ("--device", "cpu", "--device", "cpu:threads=2")
    value = succeed(
        nas_here("search", "--run", copied, *both, "--budget-ms", "70%", "--budget-ms", "80%", "--json")
    ).json
    first, second = value["fronts"]
    assert (first["device"], second["device"]) == ("cpu", "cpu:threads=2")
    assert first["budget_ms"] < second["budget_ms"]
    run = Run.existing(copied, first="nas train")
    assert [run.front(name).budget_ms for name in ("cpu", "cpu:threads=2")] == [first["budget_ms"], second["budget_ms"]]
    error = refusal(nas_here("export", "--run", copied))
    assert "add --device with one of 'cpu', 'cpu:threads=2'" in error
    # Another search of one device leaves the other's front as it is; together they are a third.
    succeed(nas_here("search", "--run", copied, "--budget-ms", "60%"))
    joint = succeed(nas_here("front", "--run", copied, *both, "--joint", "--budget-ms", "90%", "--json")).json
    assert joint["objectives"] == ["latency_ms", "latency_ms@cpu:threads=2"]
    assert [each["device"] for each in joint["others"]] == ["cpu:threads=2"]
    text = succeed(nas_here("search", "--run", copied, *both, "--joint", "--budget-ms", "90%")).stdout
    assert "ms on cpu" in text
    assert text.count("Budget: ") == 2
    kept = Run.existing(copied, first="nas train").fronts()
    assert kept.last == ("cpu + cpu:threads=2",)
    assert set(kept.fronts) == {"cpu", "cpu:threads=2", "cpu + cpu:threads=2"}
    assert kept.fronts["cpu:threads=2"].budget_ms == second["budget_ms"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--device", "cpu", "--device", "cpu"), "a device is named twice: cpu, cpu"),
        (("--budget-ms", "1", "--budget-ms", "2"), "2 budgets for 1 devices: give --budget-ms once for all"),
        (("--joint",), "--joint is for several devices: repeat --device"),
        (
            ("--device", "cpu", "--device", "cpu:precision=int8", "--joint"),
            "of one precision and one batch",
        ),
    ],
)
def test_devices_that_cannot_be_asked_for_are_refused(
    searched_run: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    run = searched_run
    if "cpu:precision=int8" in arguments:
        run = with_table_of(shutil.copytree(searched_run, tmp_path / "run"), "cpu:precision=int8")
    assert expected in refusal(nas_here("search", "--run", run, *arguments))


@pytest.mark.slow
def test_a_device_of_another_machine_is_searched_for_by_predictions(copied: Path) -> None:
    with_table_of(copied, "kit:target=pi")
    done = succeed(
        nas_here(
            "search", "--run", copied, "--device", "kit:target=pi", "--budget-ms", "70%", "--evaluations", 4, "--json"
        )
    )
    assert "kit:target=pi is not this machine" in done.stderr
    value = done.json
    assert value["evaluations"] == 4
    run = Run.existing(copied, first="nas train")
    latency = LatencyPredictor(run.space, run.latency_table(parse_device("kit:target=pi")))
    for each in value["candidates"]:
        assert each["measured_latency_ms"] is None
        assert each["predicted_latency_ms"] * latency.held_out_ratios().max() <= value["budget_ms"] * (1 + 1e-12)


def test_what_no_network_of_a_later_device_keeps_is_refused_before_anything_is_searched(copied: Path) -> None:
    with_table_of(copied, "cpu:threads=2")
    both = ("--device", "cpu", "--device", "cpu:threads=2", "--budget-ms", "90%", "--budget-ms", "0%")
    run = Run.existing(copied, first="nas train")
    latency = LatencyPredictor(run.space, run.latency_table(parse_device("cpu")))
    smallest = exact_costs(latency)["params"].cheapest()[0]
    before = evaluations(copied)
    error = refusal(nas_here("search", "--run", copied, *both, "--max-params", smallest, "--evaluations", 30))
    assert "no network keeps all bounds at once" in error
    assert evaluations(copied) == before


@pytest.mark.slow
def test_a_search_evaluates_as_many_more_and_goes_on_where_it_was_killed(copied: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copied, tmp_path / "other")
    words = ("search", "--budget-ms", "70%", "--evaluations", "12", "--json", "--run")
    before = evaluations(copied)
    whole = succeed(nas_here(*words, copied)).json
    assert evaluations(copied) == before + 12
    assert not (copied / "search.json").exists()
    process = subprocess.Popen([*command(*words), str(other)], env=environment(), stdout=subprocess.DEVNULL)
    wait_until(lambda: evaluations(other) >= before + 4)
    process.kill()
    process.wait()
    assert (other / "search.json").exists()
    succeed(nas_here("search", "--budget-ms", "90%", "--run", other))  # looks at what is known, and is another request
    assert before + 4 <= evaluations(other) < before + 12
    again = succeed(nas_here(*words, other)).json
    assert evaluations(other) == before + 12
    runs = [Run.existing(each, first="nas train") for each in (copied, other)]
    assert runs[0].known_accuracies() == runs[1].known_accuracies()
    assert whole["known"] == again["known"]
    # The same command again searches on.
    succeed(nas_here(*words, copied))
    assert evaluations(copied) == before + 24


@pytest.mark.slow
def test_workers_elsewhere_evaluate_what_a_search_asks_for(copied: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(copied, tmp_path / "alone")
    words = ("search", "--budget-ms", "70%", "--evaluations", "12", "--json", "--run")
    expected = succeed(nas_here(*words, alone)).json
    workers = [
        subprocess.Popen(
            command("work", "--run", copied, "--idle", 12, "--json"),
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    value = succeed(nas_here(*words, copied, "--workers", 0)).json
    told = [json.loads(worker.communicate(timeout=120)[0])["evaluated"] for worker in workers]
    assert sum(told) == 12
    runs = [Run.existing(each, first="nas train") for each in (alone, copied)]
    assert runs[0].known_accuracies() == runs[1].known_accuracies()
    assert value["known"] == expected["known"]


@pytest.mark.slow
def test_networks_in_8_bits_are_searched_by_their_own_accuracy_and_exported(copied: Path) -> None:
    with_table_of(copied, "cpu:precision=int8")
    on_int8 = ("--run", copied, "--device", "cpu:precision=int8", "--json")
    work = subprocess.Popen(command("work", "--run", copied), env=environment(), stdout=subprocess.DEVNULL)
    value = succeed(nas_here("search", *on_int8, "--evaluations", 6, "--workers", 0)).json
    work.terminate()
    work.wait()
    run = Run.existing(copied, first="nas train")
    known = run.known_accuracies("int8")
    assert len(known) == value["evaluations"] == 6
    exported = succeed(nas_here("export", *on_int8)).json
    assert [file["precision"] for file in exported["files"]] == ["int8"]
    path = Path(exported["path"])
    assert path.parent.name == f"{value['best']}-int8"
    session = open_session(path.read_bytes())
    split = (data := run.load_data()).split("validation")
    right = onnx_accuracy(session, data.normalise(split.images), split.labels)
    (best,) = [each for each in value["candidates"] if each["id"] == value["best"]]
    assert right == best["validation_accuracy"] == known[tuple(best["genes"])]
    assert {node.op_type for node in onnx.load(path).graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
