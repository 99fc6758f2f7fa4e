"""Results files come from other machines too: whatever is wrong with one is an input error of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.devices.results import read_results
from nas.measure import Manifest, measure
from search_spaces.errors import InputError
from tests.nas.core_script import three_models

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, str]:
    """A manifest and the text of its results: a start line, six visits, three sustained runs, an end line."""
    folder = tmp_path_factory.mktemp("measured")
    manifest = Manifest(models=tuple(three_models(folder)), rounds=2, visit_ms=1.0, sustained_s=0.01)
    measure(manifest, folder / "results.jsonl", lambda done, total: None)
    return manifest, (folder / "results.jsonl").read_text()


def test_figures_are_those_of_the_lines(measured: tuple[Manifest, str], tmp_path: Path) -> None:
    manifest, text = measured
    (tmp_path / "results.jsonl").write_text(text)
    run = read_results(tmp_path / "results.jsonl", manifest)
    lines = [json.loads(line) for line in text.splitlines()]
    for measurement in run.measurements:
        visits = [line for line in lines if line["kind"] == "visit" and line["id"] == measurement.id]
        assert [round(each * 1e6) for each in measurement.rounds_ms] == [line["min_ns"] for line in visits]
        assert measurement.median_ms * 1e6 == pytest.approx(sum(line["median_ns"] for line in visits) / 2)
        assert measurement.runs == sum(line["runs"] for line in visits)
        (long,) = (line for line in lines if line["kind"] == "sustained" and line["id"] == measurement.id)
        assert measurement.sustained is not None
        assert round(measurement.sustained.p90_ms * 1e6) == long["p90_ns"]
    assert run.conditions.load_after == lines[-1]["load_after"]
    assert run.conditions.numpy == lines[0]["numpy"]


def _drop(index: int) -> Callable[[Lines], Lines]:
    return lambda lines: lines[:index] + lines[index + 1 :]


def _change(index: int, **fields: Any) -> Callable[[Lines], Lines]:
    return lambda lines: [{**line, **fields} if line is lines[index] else line for line in lines]


def _change_machine(**fields: Any) -> Callable[[Lines], Lines]:
    return lambda lines: [{**lines[0], "fingerprint": {**lines[0]["fingerprint"], **fields}}, *lines[1:]]


@pytest.mark.parametrize(
    ("tampered", "message"),
    [
        (lambda lines: [], "is empty"),
        (_drop(0), "line 1"),
        (lambda lines: lines[:-1], "no end line"),
        (_drop(3), r"does not hold the results .*\('conv\d+', [01]\)"),
        (_drop(7), r"does not hold the results .*\(conv8\)"),
        (lambda lines: [*lines[:2], *lines[1:]], "more than one result"),
        (lambda lines: [*lines[:8], lines[7], *lines[8:]], "more than one result"),
        (lambda lines: [*lines, lines[-1]], "goes on after its end line"),
        (lambda lines: [*lines[:-1], lines[0], lines[-1]], "line 11: kind"),
        (_change(0, format_version=2), "line 1: format_version"),
        (_change(0, manifest_hash="0"), "another manifest"),
        (_change(0, password="x"), "line 1: password"),
        (_change_machine(threads=0), "line 1: fingerprint.threads"),
        (_change_machine(memory_gib=float("nan")), "line 1: "),
        (_change_machine(gpu="x"), "line 1: fingerprint.gpu"),
        (_change(1, id="stranger"), "does not hold the results"),
        (_change(1, id="conv8", round=2), "does not hold the results"),
        (_change(1, min_ns=0), "line 2: min_ns"),
        (_change(1, min_ns=-5), "line 2: min_ns"),
        (_change(1, min_ns=float("nan")), "line 2: "),
        (_change(1, min_ns=float("inf")), "line 2: "),
        (_change(1, min_ns=10**15), "line 2: .*minimum is above the median"),
        (_change(1, runs=0), "line 2: runs"),
        (_change(1, round="first"), "line 2: round"),
        (_change(1, kind="import os"), "line 2: kind"),
        (_change(7, p50_ns=10**15), "line 8: .*not in order"),
        (_change(7, duration_s=0), "line 8: duration_s"),
    ],
)
def test_tampered_results_are_refused(
    measured: tuple[Manifest, str], tmp_path: Path, tampered: Callable[[Lines], Lines], message: str
) -> None:
    manifest, text = measured
    lines = tampered([json.loads(line) for line in text.splitlines()])
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=message) as refusal:
        read_results(tmp_path / "results.jsonl", manifest)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b"{}", b"\0" * 50, b'{"kind": ["visit"]}'])
@pytest.mark.parametrize("line", [0, 3])
def test_junk_in_place_of_a_line_is_refused(
    measured: tuple[Manifest, str], tmp_path: Path, junk: bytes, line: int
) -> None:
    manifest, text = measured
    lines = text.encode().splitlines()
    lines[line] = junk
    (tmp_path / "results.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=rf"results\.jsonl, line {line + 1}: "):
        read_results(tmp_path / "results.jsonl", manifest)


def test_missing_results_are_refused(measured: tuple[Manifest, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_results(tmp_path / "results.jsonl", measured[0])
