"""The process in which the CPU device measures: how it fails, and that it never outlives its caller."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.devices import LocalDevice, ModelFile
from search_spaces.errors import MachineError
from tests.nas.core_script import measuring_command, three_models
from tests.source_tree import ROOT


@pytest.fixture
def models(tmp_path: Path) -> list[ModelFile]:
    return three_models(tmp_path)


def children() -> set[int]:
    """Return the running measuring processes of this one; earlier tests may have left other children."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            measuring = b"nas.measure" in stat.with_name("cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == os.getpid() and state != "Z" and measuring:
            found.add(int(stat.parent.name))
    return found


@pytest.fixture
def _childless() -> Iterator[None]:
    """Fail the test if a process of it is still running at its end."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("no /proc: child processes cannot be listed")
    yield
    assert children() == set(), "the measuring process outlived its caller"


@pytest.mark.usefixtures("_childless")
def test_a_measuring_process_that_dies_is_reported(models: list[ModelFile], tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        for child in children():
            os.kill(child, signal.SIGKILL)

    with pytest.raises(MachineError, match="ended by SIGKILL"):
        LocalDevice("cpu").measure(models, rounds=1000, work_dir=tmp_path / "work", progress=kill)


@pytest.mark.usefixtures("_childless")
def test_an_interruption_ends_the_measuring_process(models: list[ModelFile], tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    # With its long pauses, the process would not notice by itself for ten seconds that nobody listens any more.
    with pytest.raises(KeyboardInterrupt):
        LocalDevice("cpu").measure(models, rounds=3, spread_s=20, work_dir=tmp_path / "work", progress=interrupt)


def test_a_folder_that_cannot_be_made_is_the_machines_failure(models: list[ModelFile], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot make the folder"):
        LocalDevice("cpu").measure(models, work_dir=tmp_path / "file" / "work")


def test_results_that_cannot_be_written_are_the_machines_failure(models: list[ModelFile], tmp_path: Path) -> None:
    (tmp_path / "work" / "results.jsonl").mkdir(parents=True)
    with pytest.raises(MachineError, match="directory"):
        LocalDevice("cpu").measure(models, work_dir=tmp_path / "work")


def test_measuring_loads_no_runtime_into_the_caller(models: list[ModelFile], tmp_path: Path) -> None:
    command = measuring_command(LocalDevice("cpu"), tmp_path / "work", models)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
