"""Environments of their own, in which nothing of ours is installed."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

from tests.source_tree import ROOT


def environment_with(home: Path, *packages: str, constrained: bool = True) -> Path:
    """Make a virtual environment that holds some packages, and return its interpreter.

    Args:
        home: where to make it.
        packages: as pip takes them.
        constrained: take the versions of ``constraints.txt``.
    """
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    versions = ("-c", ROOT / "constraints.txt") if constrained else ()
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *versions, *packages, cwd=home)
    return python


def run(*words: str | Path, cwd: Path, **variables: str) -> str:
    """Run a program outside the checkout, with onnxruntime's telemetry off, and return its output."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        words,
        cwd=cwd,
        env=plain | {"ORT_DISABLE_TELEMETRY": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout
