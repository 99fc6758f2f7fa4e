"""Progress: a bar on a terminal, nothing into a pipe."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from nas.progress import no_progress, progress_bar, tell_pace
from tests.command_line import command, environment

COUNT = """
import sys
from nas.progress import progress_bar

with progress_bar("counting", quiet=len(sys.argv) > 1) as progress:
    progress(1, 7)
    progress(7, 7)
print("done")
"""


def on_a_terminal(*words: str) -> tuple[int, str, str]:
    """Run a program whose standard error is a terminal; return its exit code, its output and what the terminal got."""
    ours, theirs = pty.openpty()
    variables = environment(TERM="xterm", COLUMNS="100")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, env=variables, text=True) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # what Linux raises once the other end is closed
            while piece := os.read(ours, 4096):
                shown += piece
        assert process.stdout is not None
        printed = process.stdout.read()
    os.close(ours)
    return process.returncode, printed, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def test_a_terminal_shows_what_is_done_and_how_far_it_is() -> None:
    code, printed, shown = on_a_terminal(sys.executable, "-c", COUNT)
    assert (code, printed) == (0, "done\n")
    assert "counting" in shown
    assert "7/7" in shown


STAGES = """
from nas.progress import progress_bars

with progress_bars("preparing", "measuring", "never begun") as (preparing, measuring, _):
    preparing(3, 3)
    measuring(5, 5)
"""


def test_stages_share_a_display_and_are_shown_once_they_begin() -> None:
    code, _, shown = on_a_terminal(sys.executable, "-c", STAGES)
    assert code == 0
    last = shown.rstrip().splitlines()[-2:]
    assert "preparing" in last[0]
    assert "3/3" in last[0]
    assert "measuring" in last[1]
    assert "5/5" in last[1]
    assert "never begun" not in shown


def test_a_quiet_bar_shows_nothing_on_a_terminal_either() -> None:
    assert on_a_terminal(sys.executable, "-c", COUNT, "quiet") == (0, "done\n", "")


def test_a_command_shows_its_progress_on_a_terminal(trained_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run")
    code, printed, shown = on_a_terminal(*command("train", "--run", run, "--steps", 12, "--batch-size", 32))
    assert code == 0
    assert printed.startswith("Supernet of space tiny")
    assert "evaluating" in shown
    assert re.search(r"\b([1-9]\d*)/\1\b", shown)


def paced(reports: Iterable[tuple[int, float]], total: int) -> list[str]:
    """Return what is told of work whose units are reported at given seconds."""
    told: list[str] = []
    clock = 0.0
    progress = tell_pace(told.append, now=lambda: clock)
    for done, clock in reports:  # noqa: B007 - read by the clock
        progress(done, total)
    return told


@pytest.mark.parametrize("start", [0, 300], ids=["from the start", "resumed"])
def test_how_long_it_will_take_is_told_once_after_fifty_units(start: int) -> None:
    slow_start = [(start + done, 100.0 * min(done, 10) + 0.5 * max(0, done - 10)) for done in range(120)]
    (told,) = paced(slow_start, 1050)
    assert told.startswith(f"{1000 - start:,} of 1,050 to go, 0.5 s each: about 0:0{8 if start == 0 else 5}:")
    assert not paced(slow_start[:50], 1050)


def test_what_is_only_looked_up_at_first_is_not_taken_for_the_pace() -> None:
    found = [(done, 0.0 if done < 60 else 0.5 * (done - 59)) for done in range(200)]
    (told,) = paced(found, 1050)
    assert told.startswith("950 of 1,050 to go, 0.5 s each: about 0:07:55")


def test_nothing_is_told_of_what_is_short_or_reported_late() -> None:
    assert not paced([(done, 0.5 * done) for done in range(101)], 100)
    assert not paced([(0, 0.0), (5000, 9.0)], 6000)


def test_a_terminal_is_told_how_long_it_will_take() -> None:
    program = """
import time
from nas.progress import progress_bar

with progress_bar("counting [all]") as progress:
    for done in range(60):
        progress(done, 100_000)
        time.sleep(0.002)
"""
    code, _, shown = on_a_terminal(sys.executable, "-c", program)
    assert code == 0
    assert re.search(r"counting \[all\]: 99,950 of 100,000 to go, 0\.\d+ s each: about 0:0\d:\d\d, until ", shown)


def test_nothing_is_shown_where_there_is_no_terminal() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), progress_bar("counting") as progress:
        progress(1, 7)
    assert stdout.getvalue() == stderr.getvalue() == ""


def test_an_error_in_the_work_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError), progress_bar("counting") as progress:
        progress(1, 1 // 0)


def test_reporting_to_nobody_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    no_progress(1, 7)
    assert capsys.readouterr() == ("", "")
