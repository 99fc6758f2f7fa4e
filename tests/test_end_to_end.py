"""The main job by its commands: each stage real, connected to the one before, and the same when it is repeated."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from nas import present
from nas.budget import parse_budget
from nas.devices import parse_device
from nas.export.onnx_file import read_metadata
from nas.ledger import LedgerRow
from nas.run import Run
from predictors.latency import LatencyPredictor
from predictors.quality import standard_error
from tests.command_line import Stage, exported, nas, nas_here, succeed
from tests.conftest import EVALUATIONS
from tests.nas.image_folders import save


def test_no_stage_shows_progress_in_a_pipe(
    train_stage: Stage, lut_stage: Stage, search_stage: Stage, export_stage: Stage
) -> None:
    for stage in (train_stage, lut_stage, search_stage, export_stage):
        assert stage.finished.stdout.count("\n") == 1
        # An export outside its budget is an error in one line.
        assert stage.finished.stderr.count("\n") == stage.finished.code


def test_each_stage_leaves_what_the_next_one_needs(
    train_stage: Stage, lut_stage: Stage, search_stage: Stage, export_stage: Stage
) -> None:
    expected = [
        (train_stage, {"space.json", "supernet", "ledger.db"}),
        (lut_stage, {"blocks", "luts"}),
        (search_stage, {"front.json"}),
        (export_stage, {"exports"}),
    ]
    there: set[str] = {".lock"}
    for stage, added in expected:
        there |= added
        assert {path.name for path in stage.run.iterdir()} == there


def test_measuring_changes_nothing_of_the_training(train_stage: Stage, lut_stage: Stage) -> None:
    for path in train_stage.run.rglob("*"):
        if path.is_file():
            assert (lut_stage.run / path.relative_to(train_stage.run)).read_bytes() == path.read_bytes()


def test_every_network_of_the_front_is_inside_the_budget_and_none_beats_another(search_stage: Stage) -> None:
    run = Run.existing(search_stage.run, first="nas train")
    front = run.front()
    low, high = front.reachable_ms
    assert front.budget_ms is not None
    assert front.budget_ms == pytest.approx((low + high) / 2)
    assert front.budget_binds
    assert front.candidates
    measured = [candidate.latency_ms for candidate in front.candidates]
    assert all(candidate.measured_latency_ms is not None for candidate in front.candidates)
    safe_ms = front.budget_ms / (1 + run.latency_table(parse_device("cpu")).error.noise_floor_percent / 100)
    assert max(measured) <= safe_ms
    assert measured == sorted(measured)
    accuracies = [candidate.validation_accuracy for candidate in front.candidates]
    assert accuracies == sorted(set(accuracies))
    assert search_stage.finished.json["best"] == front.candidates[-1].id
    assert all(candidate.latency_ms > safe_ms for candidate in front.dropped)
    for candidate in front.candidates:
        error = standard_error(candidate.validation_accuracy, front.validation_images)
        assert candidate.validation_standard_error == error


def test_the_accuracies_of_the_front_are_those_of_the_ledger(search_stage: Stage) -> None:
    run = Run.existing(search_stage.run, first="nas train")
    front = run.front()
    known = run.ledger.values(f"accuracy:{front.supernet_hash}:validation:fp32", run.space.hash)
    measured = run.ledger.values(f"latency:{front.fingerprint_hash}", run.space.hash)
    for candidate in front.candidates:
        assert known[candidate.genes] == candidate.validation_accuracy
        assert measured[candidate.genes] == candidate.measured_latency_ms


def test_both_arms_of_the_comparison_spent_the_same(search_stage: Stage) -> None:
    front = Run.existing(search_stage.run, first="nas train").front()
    assert front.evaluations == EVALUATIONS
    comparison = front.comparison
    assert comparison is not None
    assert (comparison.strategy, comparison.evaluations) == ("predictor", EVALUATIONS)
    assert (comparison.against, comparison.against_evaluations) == ("random-predictor", EVALUATIONS)
    assert comparison.hypervolume > 0
    assert comparison.against_hypervolume > 0
    assert front.budget_ms is not None
    assert comparison.reference["latency_ms"] <= front.budget_ms


def evaluations_of(run_path: Path) -> list[LedgerRow]:
    run = Run.existing(run_path, first="nas train")
    return run.ledger.rows(f"accuracy:{run.front().supernet_hash}:validation:fp32", run.space.hash)


@pytest.mark.slow
def test_the_same_seed_and_table_search_the_same_networks_in_the_same_order(
    search_stage: Stage, measured_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(measured_run, tmp_path / "run")
    options = ("--budget-ms", "50%", "--evaluations", EVALUATIONS, "--compare", "random-predictor")
    again = succeed(nas("search", "--run", run, *options))
    first, second = evaluations_of(search_stage.run), evaluations_of(run)
    assert len(first) > EVALUATIONS
    assert second == first
    front = Run.existing(search_stage.run, first="nas train").front()
    again_front = Run.existing(run, first="nas train").front()
    assert (again_front.budget_ms, again_front.margin) == (front.budget_ms, front.margin)
    assert_words_about_the_front(again.stdout, run)


def assert_words_about_the_front(text: str, run: Path) -> None:
    """Check what a person reads: the table, the budget, the comparison and its label."""
    front = Run.existing(run, first="nas train").front()
    low, high = front.reachable_ms
    for title in ("id", "val. accuracy", "predicted ms", "measured ms", "params", "MACs"):
        assert title in text
    for candidate in front.candidates:
        mark = " *" if candidate == front.best else " =" if candidate in front.ties else ""
        assert f"{candidate.id}{mark} " in text
    assert front.budget_ms is not None
    assert f"Budget: {front.budget_ms:.4f} ms on cpu, of which the best uses " in text
    assert f"the space is predicted to reach from {low:.4f} ms to {high:.4f} ms." in text
    assert "does not bind" not in text
    assert "one seed" in text
    assert re.search(r"\d+\.\d ± \d+\.\d %", text)


def test_a_budget_that_does_not_bind_is_said_not_to(search_stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.existing(search_stage.run, first="nas train")
    budget = parse_budget("10", LatencyPredictor(run.space, run.latency_table(parse_device("cpu"))))
    assert not budget.binds
    present.fronts(
        run,
        [replace(run.front(), budget_ms=budget.limit_ms, budget_binds=budget.binds)],
        next_step="",
        written=True,
        as_json=False,
    )
    assert "Budget: 10.000 ms on cpu" in (text := capsys.readouterr().out)
    assert "so the budget does not bind." in text


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["10", "10000"])
def test_a_budget_above_the_slowest_network_succeeds(measured_run: Path, tmp_path: Path, budget: str) -> None:
    run = shutil.copytree(measured_run, tmp_path / "run")
    finished = succeed(nas("search", "--run", run, "--budget-ms", budget, "--evaluations", 40))
    assert f"Budget: {budget}.000 ms on cpu" in finished.stdout
    assert "so the budget does not bind." in finished.stdout
    assert not Run.existing(run, first="nas train").front().budget_binds


def make_pictures(folder: Path, *, channels: int) -> None:
    """Save images of three classes, which differ by where they are bright, of different sizes and formats."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("left", "middle", "right")):
        for number in range(24):
            height, width = int(rng.integers(20, 50)), 45
            pixels = rng.integers(0, 90, (height, width, channels), dtype=np.uint8)
            pixels[:, 15 * label : 15 * label + 15] += 120
            image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
            save(folder / name / f"{number}.{'jpg' if number % 2 else 'png'}", image)


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_folder_of_images_is_trained_on_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    make_pictures(tmp_path / "pictures", channels=channels)
    monkeypatch.chdir(tmp_path)
    options = ("--steps", 2, "--batch-size", 8, "--json")
    first = succeed(nas_here("train", "--run", "run", "--data", "folder:pictures", *options)).json
    settings = Run.existing(tmp_path / "run", first="nas train").settings
    assert (settings.channels, settings.class_names) == (channels, ("left", "middle", "right"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = succeed(nas_here("train", "--run", "../run", *options)).json
    assert again["validation_accuracy"] == first["validation_accuracy"]


@pytest.mark.slow
@pytest.mark.device
def test_the_whole_job_on_a_folder_of_images(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", channels=3)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    succeed(nas("build-lut", "--run", "run", "--data", "folder:pictures", cwd=tmp_path))
    succeed(nas("train", "--run", "../run", "--steps", 40, "--batch-size", 16, cwd=elsewhere))
    succeed(nas("search", "--run", "../run", "--budget-ms", "50%", "--evaluations", 40, cwd=elsewhere))
    record = exported(nas("export", "--run", "../run", "--json", cwd=elsewhere)).json
    assert record["files"][0]["test_accuracy"] > 0.5
    path = elsewhere / record["path"]
    metadata = read_metadata(onnx.load(path))
    assert metadata["preprocessing"]["colour"] == "RGB"
    assert len(metadata["preprocessing"]["mean"]) == 3
    assert metadata["class_names"] == ["left", "middle", "right"]
    assert str(tmp_path).encode() not in path.read_bytes(), "the file tells where the images lie on this machine"


@pytest.mark.slow
@pytest.mark.device
def test_every_command_works_with_no_other_flag(tmp_path: Path) -> None:
    # As in the README, in an empty folder; the promised times are the demo's.
    succeed(nas("train", cwd=tmp_path))
    succeed(nas("build-lut", "--device", "cpu", cwd=tmp_path))
    assert "does not bind" in succeed(nas("search", "--budget-ms", "10", cwd=tmp_path)).stdout
    finished = succeed(nas("export", cwd=tmp_path))
    path, then = finished.stdout.splitlines()[-2:]
    assert path.startswith("runs/default/exports/")
    assert then == f"Next: nas verify {path.rpartition('/')[0]}"
    assert "p90 ms" in succeed(nas("bench", path, cwd=tmp_path)).stdout
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]
    accuracy = re.search(r"Test accuracy of the file: (\d+\.\d)", finished.stdout)
    assert accuracy is not None
    # Chance is 10; the smallest network has 80, the best ones 87 to 88 depending on what the latencies here select.
    assert float(accuracy.group(1)) > 83
