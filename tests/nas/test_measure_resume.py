"""A measurement killed at any moment: a results file is only appended to, so it has been cut somewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nas import measure as core
from nas import runtime
from nas.measure import Manifest, measure
from tests.nas.core_script import three_models, timed

ROUNDS = 3


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Memory is short, so single models take turns; each is unstable, so gets extra rounds; a long run, a footprint."""
    monkeypatch.setattr(core, "UNSTABLE_PERCENT", -1.0)
    monkeypatch.setattr(runtime, "free_bytes", lambda: 1.0)
    monkeypatch.setattr(core, "_ROUNDS_PER_TURN", 2)
    monkeypatch.setattr(runtime, "footprint_bytes", lambda *model: 1_000_000)  # of which other tests run the real one
    models = [replace(each, group=number % 2, footprint=True) for number, each in enumerate(three_models(tmp_path))]
    return Manifest(models=tuple(timed(models, visit_ms=0.1, sustained_s=0.001)), rounds=ROUNDS)


def done_in(results: Path) -> Counter[tuple[object, ...]]:
    """Return what the lines of a results file say was done; load and clock of a round may be told again."""
    lines = [json.loads(line) for line in results.read_bytes().splitlines()]
    return Counter(tuple(line.get(key) for key in ("kind", "round", "id")) for line in lines if line["kind"] != "round")


def nothing(done: int, total: int) -> None:
    del done, total


def test_it_goes_on_wherever_it_was_cut(manifest: Manifest, tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    measure(manifest, whole, nothing)
    expected = done_in(whole)
    models = [each.id for each in manifest.models]
    assert expected == Counter(
        [
            ("start", None, None),
            *(("visit", number, each) for number in range(2 * ROUNDS) for each in models),
            *((kind, None, each) for kind in ("sustained", "footprint") for each in models),
            ("end", None, None),
        ]
    )
    lines = whole.read_bytes().splitlines(keepends=True)
    for count in range(1, len(lines)):
        cut = tmp_path / f"{count}.jsonl"
        torn = lines[count][: len(lines[count]) // 2]
        cut.write_bytes(b"".join(lines[:count]) + torn)
        measure(manifest, cut, nothing)
        assert done_in(cut) == expected
        assert cut.read_bytes().startswith(b"".join(lines[:count]))


def test_progress_ends_complete_wherever_it_goes_on(manifest: Manifest, tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    seen: list[tuple[int, int]] = []
    report: Callable[[int, int], None] = lambda done, total: seen.append((done, total))  # noqa: E731
    measure(manifest, whole, report)
    lines = whole.read_bytes().splitlines(keepends=True)
    for count in (1, len(lines) // 2, len(lines) - 1):
        cut = tmp_path / f"{count}.jsonl"
        cut.write_bytes(b"".join(lines[:count]))
        seen.clear()
        measure(manifest, cut, report)
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[-1][1]
