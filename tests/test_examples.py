"""Every example runs as it stands, in a process of its own and an empty folder, and does what it says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import nas
from nas.run import Run
from tests.command_line import environment
from tests.source_tree import ROOT, SourceFile, imports, source_files
from tests.test_imports import LAYERS

FOLDER = ROOT / "examples"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
BLOCK_PAGE = ROOT / "docs" / "extend-block.md"


def run_example(name: str, folder: Path, *arguments: str | Path) -> list[str]:
    """Run an example in a folder and return the lines that it printed."""
    words, variables = (sys.executable, FOLDER / name, *arguments), environment(ORT_DISABLE_TELEMETRY="1")
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


def numbers(pattern: str, line: str) -> list[float]:
    """Return the numbers that a pattern finds in a line, which it must match."""
    found = re.search(pattern, line)
    assert found is not None, line
    return [float(group.replace(",", "")) for group in found.groups()]


def not_public(file: SourceFile, told: str) -> list[str]:
    """Return what a file imports of our packages that is neither public nor on the page that tells of blocks."""
    public = {"nas", *(f"nas.{name}" for name in nas.__all__)}
    ours = [name for _, name in imports(file.tree) if name.split(".")[0] in LAYERS and name not in public]
    return [name for name in ours if not is_told(*name.rpartition(".")[::2], told)]


def is_told(module: str, name: str, page: str) -> bool:
    """Return whether the code of a page imports a name from a module."""
    return re.search(rf"^from {re.escape(module)} import .*\b{name}\b", page, re.MULTILINE) is not None


def test_searching_a_table_finds_most_of_its_true_front(tmp_path: Path) -> None:
    by_random, by_predictor, _, *rows = run_example("search_a_table.py", tmp_path)
    pattern = r"^\w+: (\d+) of the (\d+) networks of the true front, after (\d+) evaluations of (\d+)$"
    at_random, in_front, *_ = numbers(pattern, by_random)
    found, same, evaluated, networks = numbers(pattern, by_predictor)
    assert (same, evaluated, networks) == (in_front, 60, 2304)
    assert found >= 0.7 * in_front
    assert found > at_random
    front = [tuple(map(float, row.split()[:2])) for row in rows]
    assert found <= len(front) <= evaluated
    # The most accurate first: whatever is faster is less accurate.
    assert front == sorted(front, reverse=True)
    assert [latency_ms for _, latency_ms in front] == sorted((latency_ms for _, latency_ms in front), reverse=True)
    assert all(accuracy >= 80.0 and latency_ms <= 4.0 for accuracy, latency_ms in front)
    assert list(tmp_path.iterdir()) == []


def test_a_block_of_ones_own_is_counted_and_extracted_as_it_computes(tmp_path: Path) -> None:
    first, *lines = run_example("your_own_block.py", tmp_path)
    # A block is one of two families with 2 x 2 sizes each; a stage has two widths and one or two blocks.
    assert numbers(r"^([\d,]+) networks, .* (\d+) of them residual$", first) == [(2 * (8 + 8**2)) ** 2, 16]
    networks = [lines[start : start + 3] for start in range(0, len(lines), 3)]
    assert len(networks) == 3
    assert any(" residual " in blocks for blocks, _, _ in networks)
    for _, sizes, difference in networks:
        counted, in_torch = numbers(r"([\d,]+) parameters counted, ([\d,]+) in torch$", sizes)
        assert counted == in_torch > 0
        assert numbers(r"differ by (\S+) at most$", difference)[0] <= 1e-4


@pytest.mark.slow
@pytest.mark.device
def test_another_machine_is_measured_by_a_kit_and_its_networks_predicted(bare_python: Path, tmp_path: Path) -> None:
    lines = run_example("your_own_device.py", tmp_path, "out", bare_python)
    assert any(line.startswith("24 blocks measured on kit:target=board: ") for line in lines)
    *_, head, fastest, slowest, one, two, three = lines
    assert head.split() == ["network", "latency_ms", "low_ms", "high_ms", "p90_ms", "file_mb"]
    shown = [[float(value) for value in line.split()[-5:]] for line in (fastest, one, two, three, slowest)]
    assert all(low_ms < latency_ms < high_ms for latency_ms, low_ms, high_ms, _, _ in shown)
    latencies_ms = [row[0] for row in shown]
    assert 0.0 < min(latencies_ms) == latencies_ms[0] < latencies_ms[-1] == max(latencies_ms)
    assert (tmp_path / "out" / "run" / "luts" / "kit-target-board.json").exists()
    # What came back was written where the kit was unpacked, by the Python that has no more than it needs.
    assert (tmp_path / "out" / "there" / "results.jsonl").exists()
    assert not (tmp_path / "out" / "python").exists()


@pytest.mark.slow
@pytest.mark.device
def test_photos_become_a_file_that_classifies_them(tmp_path: Path) -> None:
    *_, exported, answer = run_example("photos_to_onnx.py", tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]
    path, _, told = exported.partition(": ")
    assert numbers(r"^(\d+) % of the test pictures right$", told)[0] >= 75
    assert numbers(r"^runs/photos_to_onnx/new\.png: triangle, (\d+) %$", answer)[0] > 50
    (value,) = onnx.load(tmp_path / path).graph.input
    assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    run = Run.existing(tmp_path / "runs" / "photos_to_onnx" / "run", first="nas train")
    assert run.settings.class_names == ("circle", "square", "triangle")
    assert run.front().budget_ms is not None


def test_every_example_is_listed_and_says_what_it_needs() -> None:
    page = (FOLDER / "README.md").read_text()
    assert sorted(re.findall(r"^\| \[(\w+\.py)\]", page, re.MULTILINE)) == SCRIPTS
    for name in SCRIPTS:
        said = ast.get_docstring(ast.parse((FOLDER / name).read_text())) or ""
        for word in ("Shows", "Needs: ", "Takes: ", "Writes: ", "Prints: ", f"python examples/{name}"):
            assert word in said, (name, word)


def test_examples_use_what_users_are_told_of() -> None:
    told = BLOCK_PAGE.read_text()
    assert [(file.path, name) for file in source_files("examples") for name in not_public(file, told)] == []


@pytest.mark.parametrize(
    "text",
    ["import nas.lut", "from nas.supernet import extract", "from predictors.latency import LatencyPredictor"],
)
def test_an_example_that_reaches_inside_is_found(text: str) -> None:
    assert len(not_public(SourceFile("examples/a.py", text), BLOCK_PAGE.read_text())) == 1
