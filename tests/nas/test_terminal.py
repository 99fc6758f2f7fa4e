"""What people see: whole words and figures on any terminal, whole lines in a pipe, names that shells offer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nas.run import Run
from tests.command_line import command, environment, nas, on_terminal

TABLE = """
from nas.terminal import print_table
print_table(["what it is", "latency ms", "rate"], [["a name of many words", "0.123456", "50120.499"]], title="T")
"""
LINE = """
from nas.terminal import say
say("some words that are too long for a narrow terminal, see `nas search --budget-ms 50%` or /a/path/of/some/length")
"""


def in_pipe(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(COLUMNS="30"), capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("columns", [20, 34, 50, 200])
def test_figures_of_a_table_are_never_broken(columns: int) -> None:
    lines = on_terminal([sys.executable, "-c", TABLE], columns)
    assert any("0.123456" in line and "50120.499" in line for line in lines)
    assert "latency" in " ".join(lines)


def test_a_table_in_a_pipe_has_a_line_for_each_row() -> None:
    lines = in_pipe(TABLE)
    assert any("a name of many words" in line and "50120.499" in line for line in lines)
    assert [line for line in lines if line != line.rstrip()] == []


def test_texts_break_between_words_and_commands_stay_whole() -> None:
    lines = on_terminal([sys.executable, "-c", LINE], 40)
    assert len(lines) > 2
    assert any("`nas search --budget-ms 50%`" in line for line in lines)
    assert any("/a/path/of/some/length" in line for line in lines)
    words = LINE.split('"')[1].split()
    assert " ".join(lines).split() == words
    assert len(in_pipe(LINE)) == 1


def test_signs_that_an_output_cannot_show_are_no_error(searched_run: Path) -> None:
    done = subprocess.run(
        command("front", "--run", searched_run),
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Run.open(searched_run).front().best.id in done.stdout


def offered(*words: str) -> list[str]:
    """Return what bash would offer for the last word."""
    variables = {
        "COMP_WORDS": " ".join(("nas", *words)),
        "COMP_CWORD": str(len(words)),
        "_NAS_COMPLETE": "complete_bash",
    }
    script = Path(sys.executable).with_name("nas")
    done = subprocess.run([script], env=environment(**variables), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("bui",), ["build-lut"]),
        (("train", "--space", "mob"), ["mobile", "mobile-int8"]),
        (("search", "--strategy", "ran"), ["random", "random-predictor"]),
        (("search", "--device", "cp"), ["cpu"]),
        (("baseline", "--preset", "mob"), ["mobilenetv2", "mobilenetv3"]),
        (("export", "--format", "onnx,s"), ["onnx,safetensors"]),
        (("train", "--data", "fo"), ["folder:"]),
    ],
)
def test_shells_offer_the_names_that_there_are(words: tuple[str, ...], names: list[str]) -> None:
    assert sorted(offered(*words)) == names


def test_shells_offer_the_networks_of_the_run(searched_run: Path, tmp_path: Path) -> None:
    best = Run.open(searched_run).front().best.id
    assert best in offered("export", "--run", str(searched_run), "--pick", best[:3])
    damaged = shutil.copytree(searched_run, tmp_path / "run")
    (damaged / "front.json").write_text("{")
    assert offered("export", "--run", str(damaged), "--pick", "b") == []


def test_a_refused_option_names_the_help_of_its_command() -> None:
    refused = nas("search", "--nonsense")
    assert (refused.code, refused.stdout) == (2, "")
    assert "nas search --help" in refused.stderr
