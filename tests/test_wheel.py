"""The wheel holds the three packages and nothing else, and its command works where nothing of ours is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.source_tree import ROOT, WHEEL_PACKAGES

pytestmark = pytest.mark.slow

LIGHT_DEPENDENCIES = ("numpy", "pydantic", "rich", "typer")
"""What the command line needs to explain itself; the wheel's other dependencies would take a gigabyte."""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout and return its standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, since the build leaves files beside what it reads."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*WHEEL_PACKAGES, "examples", "experiments", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that holds the wheel and the light dependencies."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=True)
    pip = (home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "-c", ROOT / "constraints.txt", *LIGHT_DEPENDENCIES, cwd=home)
    run(*pip, "--no-deps", wheel, cwd=home)
    return home / "bin"


def test_the_wheel_holds_every_file_of_the_three_packages_and_no_other(wheel: Path) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in WHEEL_PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert {f"{package}/py.typed" for package in WHEEL_PACKAGES} <= packed


def test_the_wheel_carries_its_licence(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        assert message_from_bytes(archive.read(metadata))["License-Expression"] == "Apache-2.0"


def test_the_command_explains_itself_in_a_clean_environment(clean_bin: Path, tmp_path: Path) -> None:
    script = run(clean_bin / "nas", "--help", cwd=tmp_path)
    module = run(clean_bin / "python", "-m", "nas", "--help", cwd=tmp_path)
    for command in ("train", "build-lut", "search", "export", "bench"):
        assert command in script
        assert command in module


def test_the_clean_environment_is_clean(clean_bin: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u, nas; print(nas.__file__, [n for n in ('torch', 'tests') if u.find_spec(n)])"
    found = run(clean_bin / "python", "-c", code, cwd=tmp_path)
    assert found.strip().endswith("site-packages/nas/__init__.py []")
