"""Commands as a user gives them, in processes of their own or, where that would only cost time, in this one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.cli import run_command
from tests.source_tree import ROOT

STYLING = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES", "TERM")
"""Variables by which a terminal, or a CI service, changes what is printed."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> str:
        """The one line of a command that was refused, without the program's name."""
        assert self.stdout == ""
        assert self.stderr.startswith("nas: ")
        assert self.stderr.endswith("\n")
        assert self.stderr.count("\n") == 1, self.stderr
        return self.stderr.removeprefix("nas: ").rstrip()


@dataclass(frozen=True)
class Stage:
    """A command of the main job that ended well: the run directory as it left it, and what it printed."""

    run: Path
    finished: Finished


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without styling, in which the packages beside these tests are found first."""
    plain = {name: value for name, value in os.environ.items() if name not in STYLING}
    return {**plain, "PYTHONPATH": str(ROOT), **variables}


def command(*arguments: object) -> list[str]:
    """Return the words that start the command line in a new process."""
    return [sys.executable, "-m", "nas", *map(str, arguments)]


def nas(*arguments: object, cwd: Path | None = None) -> Finished:
    """Run a command in a process of its own, its output into pipes."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=900
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def on_terminal(words: Sequence[str | Path], columns: int) -> list[str]:
    """Return the lines that a program prints on a terminal of so many columns, without colour."""
    ours, theirs = pty.openpty()
    variables = environment(COLUMNS=str(columns), TERM="dumb")
    with subprocess.Popen(words, stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        printed = b""
        with contextlib.suppress(OSError):  # what Linux says where the other end is closed
            while part := os.read(ours, 4096):
                printed += part
        assert process.wait() == 0, printed
    os.close(ours)
    return printed.decode().replace("\r", "").splitlines()


def nas_here(*arguments: object) -> Finished:
    """Run a command in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = run_command([str(argument) for argument in arguments])
    return Finished(code, stdout.getvalue(), stderr.getvalue())


def succeed(finished: Finished) -> Finished:
    """Return a command that ended well; shows what it printed otherwise."""
    assert finished.code == 0, (finished.code, finished.stdout, finished.stderr)
    return finished


def exported(finished: Finished) -> Finished:
    """Return an export that was written, in JSON.

    A file that was measured above its budget is written too, with exit code 1; a busy machine can do that to a network
    that stood close to the budget.
    """
    assert finished.code in (0, 1), (finished.code, finished.stdout, finished.stderr)
    assert finished.code == (0 if finished.json["inside_budget"] else 1)
    return finished


def refusal(finished: Finished, *, code: int = 2) -> str:
    """Return the one line of a command that was refused with an exit code."""
    assert finished.code == code, (finished.code, finished.stdout, finished.stderr)
    return finished.error
