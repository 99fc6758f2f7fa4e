"""What can go wrong around a file, made on purpose: processes to kill, full and read-only disks."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

# A server forks each child from a small process that has the imports done: quick, and safe beside torch's threads.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["tests.nas.test_files", "tests.nas.test_ledger", "optuna", "sqlalchemy.orm", "alembic"]
)


@contextmanager
def running(target: Callable[..., None], *args: object) -> Iterator[BaseProcess]:
    """Run a function in another process during the block, and kill it with SIGKILL at the end."""
    process = _CONTEXT.Process(target=target, args=args, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the other process did not do its part"
        time.sleep(0.001)


@contextmanager
def small_disk(folder: Path, *, kilobytes: int) -> Iterator[Path]:
    """Mount a small file system for the block; skips the test where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root and the mount command")
    folder.mkdir()
    _mount_or_skip("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder refuse changes for the block; for root, who passes any permission, by remounting `small_disk`."""
    is_mount = folder.is_mount()
    if is_mount:
        _mount_or_skip("-o", "remount,ro", str(folder))
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if not is_mount:
            folder.chmod(0o755)


@contextmanager
def protectable(folder: Path) -> Iterator[Path]:
    """Give a folder that `read_only` can protect, whoever runs the tests."""
    if os.geteuid() == 0:
        with small_disk(folder / "disk", kilobytes=1024) as disk:
            yield disk
    else:
        yield folder


def _mount_or_skip(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
