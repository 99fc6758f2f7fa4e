"""What all studies do alike: parts that go on where they were stopped, tables, where figures come from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from nas.devices import parse_device
from nas.files import make_folder, write_atomic

Rows = list[dict[str, Any]]
Study = TypeVar("Study")
Parts = Mapping[str, tuple[str, Callable[[Study], None]]]
"""From the name of a part to the last file that it writes and what makes it."""


def run_parts(
    parts: Parts[Study], results: Path, parser: argparse.ArgumentParser, load: Callable[[argparse.Namespace], Study]
) -> None:
    """Run the parts that the command line names, all of them by default, but those whose files are there."""
    known = ", ".join(parts)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {known}; all by default")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in parts]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; known: {known}")
    study = load(arguments)
    for part in arguments.parts or parts:
        file, function = parts[part]
        if (results / file).exists():
            say(f"{part}: done, {os.path.relpath(results / file)} is there")
        else:
            function(study)


def say(text: str) -> None:
    """Tell how far the study is."""
    print(text, file=sys.stderr, flush=True)


def save_table(results: Path, frame: pd.DataFrame, name: str) -> None:
    """Write a table of results."""
    make_folder(results)
    write_atomic(results / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))


@dataclass(frozen=True)
class ConfiguredStudy:
    """The settings of a study in its ``config.toml``, and the folder where what it makes on the way is kept."""

    config: dict[str, Any]
    work: Path

    @classmethod
    def load(cls, here: Path, work: Path) -> Self:
        """Read the settings of the study in a folder."""
        return cls(tomllib.loads((here / "config.toml").read_text()), work.resolve())

    def once(self, name: str, make: Callable[[], Rows]) -> Rows:
        """Return some rows, made on the first call and kept for a study that is started again."""
        path = self.work / "rows" / f"{name}.json"
        if not path.exists():
            say(name)
            make_folder(path.parent)
            write_atomic(path, json.dumps(make(), allow_nan=False))
        rows: Rows = json.loads(path.read_text())
        return rows

    def recipe(self, name: str, settings: Mapping[str, object]) -> Path:
        """Write settings of a training, and return the file for ``nas train --config``."""
        path = self.work / "recipes" / f"{name}.toml"
        make_folder(path.parent)
        write_atomic(path, "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        return path


def nas(*arguments: object) -> dict[str, Any]:
    """Run a command as a user would, in a process of its own, and return its JSON."""
    command = [sys.executable, "-m", "nas", *map(str, arguments), "--json"]
    say(" ".join(command[2:]))
    value: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return value


def draws(n: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return 2000 bootstrap draws of `n` rows, ``int64[2000, n]``."""
    return np.random.default_rng(seed).integers(n, size=(2000, n))


def commit() -> str:
    """Return the commit that is checked out; "-dirty" if what is tracked has been changed, results aside."""
    here = Path(__file__).parent

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=False)

    changed = git("diff", "--quiet", "HEAD", "--", ".", ":!experiments/*/results/*").returncode
    return git("rev-parse", "HEAD").stdout.strip() + ("-dirty" if changed else "")


def provenance(packages: Sequence[str], **more: str) -> pd.DataFrame:
    """Return what figures depend on besides settings: commit, processor, versions, and what the study adds."""
    found = {
        "commit": commit(),
        "cpu": str(parse_device("cpu").fingerprint().cpu_model),
        "python": platform.python_version(),
        **more,
        **{name: version(name) for name in packages},
    }
    return pd.DataFrame({"what": found.keys(), "value": found.values()})
