"""What a report says: the figures of the run, in any state of it, and nothing that a reader's browser would run."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from nas.devices import parse_device
from nas.front import DeviceBudget, Front
from nas.report.holdings import search_options
from nas.run import Run
from predictors.latency import LatencyPredictor
from predictors.quality import kendall_tau
from tests.command_line import Finished, nas_here, refusal, succeed

SECTIONS = ["front", "network", "likes", "trust", "efficiency", "training", "provenance"]
MOST_BYTES = 8 * 2**20


@pytest.fixture(scope="session")
def reported(searched_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A searched run with its report."""
    run = shutil.copytree(searched_run, tmp_path_factory.mktemp("reported") / "run")
    return run, succeed(nas_here("report", "--run", run, "--json"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_page_of_all_sections_that_loads_nothing(reported: tuple[Path, Finished]) -> None:
    run, finished = reported
    told = finished.json
    page = (run / "report.html").read_text()
    assert list(told["sections"]) == SECTIONS
    assert told["file"] == str(run / "report.html")
    assert len(page.encode()) <= MOST_BYTES
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # plotly's names some hosts in texts
    assert not re.search(r"""(src|href|action)\s*=\s*["'](?!data:|#)""", own)
    assert "default-src 'none'" in own
    assert all(f'id="{name}"' in own for name in SECTIONS)


def test_the_front_is_the_run_s(reported: tuple[Path, Finished]) -> None:
    run, _ = reported
    front: Front = Run.open(run).front()
    rows = [row for row in rows_of(run / "report-tables" / "front-0.csv") if row["what"] == "front, validated"]
    assert [row["network"] for row in rows] == [each.id for each in front.candidates]
    for row, each in zip(rows, front.candidates, strict=True):
        assert float(row["accuracy %"]) == pytest.approx(100 * each.validation_accuracy, rel=1e-4)
        assert float(row["± points"]) == pytest.approx(100 * each.validation_standard_error, rel=1e-4)
        assert float(row["latency ms"]) == pytest.approx(each.latency_ms, rel=1e-4)
        assert float(row["MMACs"]) == pytest.approx(each.macs / 1e6, rel=1e-4)


def test_what_the_search_and_its_rival_asked_for_is_told_apart(reported: tuple[Path, Finished]) -> None:
    run, _ = reported
    front = Run.open(run).front()
    assert front.comparison is not None
    rows = rows_of(run / "report-tables" / "volume-0.csv")
    for strategy, evaluations, volume in (
        (front.comparison.strategy, front.comparison.evaluations, front.comparison.hypervolume),
        (front.comparison.against, front.comparison.against_evaluations, front.comparison.against_hypervolume),
    ):
        own = [float(row["hypervolume"]) for row in rows if row["strategy"] == strategy]
        assert len(own) == evaluations
        assert own == sorted(own)
        # Its reference is the budget and the worst error that either has seen, which is that of the search's own.
        assert own[-1] == pytest.approx(volume, rel=1e-3)


def test_the_network_is_drawn_with_what_its_blocks_cost(reported: tuple[Path, Finished]) -> None:
    run, _ = reported
    opened = Run.open(run)
    best = opened.front().best
    spec = opened.space.lower(opened.space.check([best.genes])[0])
    rows = rows_of(run / "report-tables" / "network-0.csv")
    assert [row["slot"] for row in rows] == [placed.slot for placed in spec]
    assert sum(float(row["MMACs"]) for row in rows) == pytest.approx(best.macs / 1e6, rel=1e-2)
    assert sum(int(row["params"]) for row in rows) == best.params
    page = (run / "report.html").read_text()
    drawn = re.findall(r'data-network="(\w+)"', page)
    assert drawn == [each.id for each in opened.front().candidates]


def test_errors_of_predictions_are_those_of_the_table(reported: tuple[Path, Finished]) -> None:
    run, finished = reported
    opened = Run.open(run)
    table = LatencyPredictor(opened.space, opened.latency_table(parse_device("cpu"))).table
    errors = rows_of(run / "report-tables" / "lut-errors-0.csv")
    assert float(errors[0]["mean error %"]) == pytest.approx(table.error.mape_percent, rel=1e-3)
    assert len(rows_of(run / "report-tables" / "lut-0.csv")) == len(table.held_out)
    told = rows_of(run / "report-tables" / "predictor-0.csv")
    predicted, true = (_column(told, name) for name in ("predicted accuracy %", "true accuracy %"))
    tau = kendall_tau(predicted, true)
    (line,) = (line for line in finished.json["sections"]["trust"]["lines"] if "Kendall" in line)
    assert float(re.findall(r"of (-?\d\.\d\d)", line)[0]) == pytest.approx(tau, abs=0.03)  # ties of rounded figures


def _column(rows: list[dict[str, str]], name: str) -> npt.NDArray[np.float64]:
    return np.array([float(row[name]) for row in rows])


def test_the_tables_beside_it_are_those_of_the_json(reported: tuple[Path, Finished]) -> None:
    run, finished = reported
    told = finished.json
    assert sorted(told["tables"]) == sorted(str(path) for path in (run / "report-tables").glob("*.csv"))
    for section in told["sections"].values():
        for name, table in section["tables"].items():
            rows = rows_of(run / "report-tables" / f"{name}.csv")
            assert [list(row) for row in rows] == [table["columns"]] * len(table["rows"])


@pytest.mark.parametrize(
    ("kept", "commands"),
    [
        ((), ["nas train", "nas build-lut"]),
        (("supernet",), ["nas build-lut"]),
        (("luts", "supernet"), ["nas search"]),
        (("luts",), ["nas train", "nas search"]),
    ],
)
def test_a_run_in_any_state_has_a_report_that_says_what_makes_the_rest(
    searched_run: Path, tmp_path: Path, kept: tuple[str, ...], commands: list[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(searched_run / "space.json", run)
    for name in kept:
        shutil.copytree(searched_run / name, run / name)
    told = succeed(nas_here("report", "--run", run, "--json")).json
    named = {each["command"].split(" --")[0] for each in told["missing"]}
    assert set(commands) <= named
    assert all(each["command"].endswith(f"--run {run}") for each in told["missing"])
    assert list(told["sections"]) == SECTIONS


def test_damaged_files_are_named_and_the_rest_is_shown(searched_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(searched_run, tmp_path / "run")
    (run / "front.json").write_text("{}")
    (run / "luts" / "cpu.json").write_text("no json")
    (run / "supernet" / "training.csv").write_bytes(bytes(200_000))
    for name in ("analyses/x-cpu.json", "baselines/x/baseline.json", "exports/x/export.json"):
        (run / name).parent.mkdir(parents=True)
        (run / name).write_text("{}")
    told = succeed(nas_here("report", "--run", run, "--json")).json
    said = " ".join(each["what"] for each in told["missing"])
    assert "front.json" in said
    assert "cpu.json" in said
    assert "nas train" in {each["command"].partition(" --")[0] for each in told["missing"]}
    left_out = [line for line in told["sections"]["trust"]["lines"] if "left out" in line]
    assert len(left_out) == 3
    assert (run / "report.html").exists()


def test_names_of_users_are_texts_and_nothing_else(searched_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(searched_run, tmp_path / "<b>run</b>")
    settings = json.loads((run / "space.json").read_text())
    payload = "</script><img src=x onerror=alert(1)>"
    settings["data"] = f"folder:/nowhere/{payload}"
    (run / "space.json").write_text(json.dumps(settings))
    succeed(nas_here("report", "--run", run, "--json"))
    page = (run / "report.html").read_text()
    assert html.escape(payload) in page
    assert payload not in page
    assert "<b>run</b>" not in page


def test_two_runs_are_compared(searched_run: Path, tmp_path: Path) -> None:
    first, second = (shutil.copytree(searched_run, tmp_path / name) for name in ("one", "other"))
    kept = json.loads((second / "front.json").read_text())
    candidates = kept["fronts"]["cpu"]["candidates"]
    for each in candidates:
        each["validation_accuracy"] /= 2
    (second / "front.json").write_text(json.dumps(kept))
    out = tmp_path / "both.html"
    told = succeed(nas_here("report", first, second, "--out", out, "--json")).json
    table = told["sections"]["front"]["tables"]["budgets-0"]
    assert table["columns"][1:3] == ["one %", "other %"]
    for row in table["rows"]:
        assert row[2] == pytest.approx(row[1] / 2, rel=1e-3)
        assert row[3] < 0
    settings = told["sections"]["provenance"]["tables"]["settings"]["rows"]
    assert {row[-1] for row in settings} == {""}
    assert "the same run" in refusal(nas_here("report", first, first, "--out", out))
    assert len(rows_of(tmp_path / "both-tables" / "fronts-0.csv")) == 2 * len(candidates)


def test_fronts_of_other_statistics_are_not_compared(searched_run: Path, tmp_path: Path) -> None:
    first, second = (shutil.copytree(searched_run, tmp_path / name) for name in ("one", "other"))
    kept = json.loads((second / "front.json").read_text())
    kept["fronts"]["cpu"]["budget_at"] = "p90"
    (second / "front.json").write_text(json.dumps(kept))
    told = succeed(nas_here("report", first, second, "--out", tmp_path / "both.html", "--json")).json
    assert "budgets-0" not in told["sections"]["front"]["tables"]
    assert any("not of the same statistic" in line for line in told["sections"]["front"]["lines"])


def test_the_command_of_a_front_asks_for_what_was_asked(searched_run: Path) -> None:
    front = Run.open(searched_run).front()
    words = search_options(front).split()
    assert words[:3] == ["nas", "search", "--budget-ms"]
    assert front.budget_ms is not None
    assert float(words[3]) == pytest.approx(front.budget_ms)
    assert {"--evaluations", "--compare"} <= set(words)
    other = DeviceBudget(
        device="kit:target=phone",
        fingerprint_hash="",
        budget_ms=2.0,
        reachable_ms=(1.0, 3.0),
        budget_binds=True,
        margin=0.1,
    )
    joint = replace(front, others=(other,), bounds={"params": 1e5}, objectives=("latency_ms", "params"))
    said = search_options(joint)
    assert "--device cpu --device kit:target=phone --joint" in said
    assert "--max-params 100000" in said
    assert "--objective latency_ms --objective params" in said


def test_what_cannot_be_reported_is_refused(searched_run: Path, tmp_path: Path) -> None:
    assert "there is no run in" in refusal(nas_here("report", "--run", tmp_path / "none"))
    assert "compares two; got 3" in refusal(nas_here("report", searched_run, searched_run, searched_run))
    assert "as an argument or with --run" in refusal(nas_here("report", searched_run, "--run", tmp_path))
    assert "HTML file" in refusal(nas_here("report", searched_run, "--out", tmp_path / "report.pdf"))
    (tmp_path / "file").write_text("")
    refusal(nas_here("report", searched_run, "--out", tmp_path / "file" / "report.html"), code=3)


def test_made_again_it_is_the_same_and_a_terminal_shows_its_figures(
    reported: tuple[Path, Finished], tmp_path: Path
) -> None:
    run, finished = reported
    out = tmp_path / "again" / "report.html"
    printed = succeed(nas_here("report", run, "--out", out)).stdout
    assert out.read_bytes() == (run / "report.html").read_bytes()
    for section in finished.json["sections"].values():
        assert section["title"].upper() in printed
        assert all(line in printed for line in section["lines"])
    assert Run.open(run).front().best.id in printed
    assert printed.endswith(f"all figures in {out.with_name('report-tables')}\n")
