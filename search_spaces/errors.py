"""The errors a person can mend, and the exit code each one means at the command line.

    ToolError
    ├── InputError        what was given cannot be used          exit code 2
    ├── CheckError        a promise was tested and did not hold  exit code 1
    └── MachineError      the disk or the device failed          exit code 3

A message says what was given, what is allowed and what to do next. Anything else that is raised is a defect of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class ToolError(Exception):
    """Base of all errors that are explained to the user in one line."""

    exit_code: ClassVar[int]


class InputError(ToolError, ValueError):
    """The user's input (argument, file, data) cannot be used."""

    exit_code = 2


class CheckError(ToolError):
    """A check that the tool promises (parity, integrity) failed."""

    exit_code = 1


class MachineError(ToolError, OSError):
    """The environment failed: disk full, permission denied, device absent."""

    exit_code = 3


def unknown_name(kind: str, given: object, known: Iterable[object]) -> InputError:
    """Build the error for a name that is not known, naming the nearest known one.

    Args:
        kind: what the name stands for, such as ``"device"``.
        given: the name as it was given.
        known: every allowed name.
    """
    names = [str(name) for name in known]
    nearest = difflib.get_close_matches(str(given), names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return InputError(f"unknown {kind} {given!r}{hint} (known: {', '.join(names) or 'none'})")


def first_line(error: BaseException) -> str:
    """Return what another library's error says in its first line, or the kind of error if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def kind_and_first_line(error: BaseException) -> str:
    """Return the kind of an error that a user's own code raised, and what it says in its first line."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"
