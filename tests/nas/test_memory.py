from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from nas.memory import keep_freed_memory
told = keep_freed_memory() if sys.argv[1] == "kept" else True
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):  # until the heap has grown to where such blocks find room
    torch.ones(20_000_000).sum()
before = faults()
for _ in range(10):
    torch.ones(20_000_000).sum()
print(told, faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_pages_that_were_freed_are_used_again() -> None:
    def faults(how: str) -> int:
        told = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout
        known, count = told.split()
        assert known == "True"
        return int(count)

    # Eighty megabytes each time: above what glibc would learn to keep by itself.
    assert 2 * faults("kept") < faults("given back")


def test_where_the_library_cannot_be_told_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    from nas.memory import keep_freed_memory

    assert not keep_freed_memory()
