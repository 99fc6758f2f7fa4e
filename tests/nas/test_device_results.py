"""Results files come from other machines too: whatever is wrong with one is an input error of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.devices.results import read_results
from nas.measure import Manifest, measure
from search_spaces.errors import InputError
from tests.nas.core_script import three_models, timed

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, str]:
    """A manifest and the text of its results: start, two rounds of three visits, long runs, a footprint, end."""
    folder = tmp_path_factory.mktemp("measured")
    models = [replace(model, footprint=number == 1) for number, model in enumerate(three_models(folder))]
    manifest = Manifest(models=tuple(timed(models, sustained_s=0.01)), rounds=2)
    measure(manifest, folder / "results.jsonl", lambda done, total: None)
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    # Without what a restless machine adds: visits of models that disagree with themselves.
    regular = [line for line in lines if line.get("round", 0) < 2]
    assert [line["kind"] for line in regular] == [
        "start", *["visit"] * 3, "round", *["visit"] * 3, "round", *["sustained"] * 3, "footprint", "end"
    ]  # fmt: skip
    return manifest, "".join(json.dumps(line) + "\n" for line in regular)


def test_figures_are_those_of_the_lines(measured: tuple[Manifest, str], tmp_path: Path) -> None:
    manifest, text = measured
    (tmp_path / "results.jsonl").write_text(text)
    run = read_results(tmp_path / "results.jsonl", manifest)
    lines = [json.loads(line) for line in text.splitlines()]
    for measurement in run.measurements:
        visits = [line for line in lines if line["kind"] == "visit" and line["id"] == measurement.id]
        assert [round(each * 1e6) for each in measurement.rounds_ms] == [line["min_ns"] for line in visits]
        # So few models tell nothing of the machine's ups and downs, so that first runs are as they were.
        assert [round(each * 1e6) for each in measurement.first_ms] == [line["first_ns"] for line in visits]
        assert measurement.median_ms * 1e6 == pytest.approx(sum(line["median_ns"] for line in visits) / 2)
        assert measurement.runs == sum(line["runs"] for line in visits)
        (long,) = (line for line in lines if line["kind"] == "sustained" and line["id"] == measurement.id)
        assert measurement.sustained is not None
        assert round(measurement.sustained.p90_ms * 1e6) == long["p90_ns"]
    sizes = [measurement.footprint for measurement in run.measurements]
    assert (sizes[0], sizes[2]) == (None, None)
    assert sizes[1] is not None
    assert sizes[1].memory_mb is not None
    assert sizes[1].file_mb * 1e6 == pytest.approx(manifest.models[1].path.stat().st_size)
    assert 1 < sizes[1].memory_mb < 500
    assert run.conditions.ended_unix_s == lines[-1]["conditions"]["time_unix_s"]
    assert run.conditions.load_max == max(lines[i]["conditions"]["load"] for i in (4, 8, 13))
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
        (_drop(3), r"lacks results for 1 of 3 models, such as conv\d+"),
        (_drop(9), "lacks results for 1 of 3 models, such as conv8"),
        (lambda lines: [*lines[:2], *lines[1:]], "more than one result"),
        (lambda lines: [*lines[:10], lines[9], *lines[10:]], "more than one result"),
        (lambda lines: [*lines, lines[-1]], "goes on after its end line"),
        (lambda lines: [*lines[:-1], lines[0], lines[-1]], "line 14: kind"),
        (_change(0, format_version=1), "line 1: format_version"),
        (_change(0, manifest_hash="0"), "another manifest"),
        (_change(0, password="x"), "line 1: password"),
        (_change_machine(threads=0), "line 1: fingerprint.threads"),
        (_change_machine(memory_gib=float("nan")), "line 1: "),
        (_change_machine(gpu="x"), "line 1: fingerprint.gpu"),
        (_change(1, id="stranger"), "results for 'stranger', which the manifest does not ask for"),
        (_change(1, min_ns=0), "line 2: min_ns"),
        (_change(1, min_ns=-5), "line 2: min_ns"),
        (_change(1, min_ns=float("nan")), "line 2: "),
        (_change(1, min_ns=float("inf")), "line 2: "),
        (_change(1, min_ns=10**400, median_ns=10**400, p90_ns=10**400), "line 2: min_ns"),
        (_change(1, round=10**30), "line 2: round"),
        (_change(1, min_ns=10**14), "line 2: .*not in order"),
        (_change(1, first_ns=1), "line 2: .*not in order"),
        (_change(1, runs=0), "line 2: runs"),
        (_change(1, round="first"), "line 2: round"),
        (_change(1, kind="import os"), "line 2: kind"),
        (_change(9, p50_ns=10**14), "line 10: .*not in order"),
        (_change(9, duration_s=0), "line 10: duration_s"),
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
    (tmp_path / "results.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(InputError, match=rf"results\.jsonl, line {line + 1}: "):
        read_results(tmp_path / "results.jsonl", manifest)


def test_results_without_an_end_are_taken_if_nothing_else_is_missing(
    measured: tuple[Manifest, str], tmp_path: Path
) -> None:
    manifest, text = measured
    (tmp_path / "results.jsonl").write_text(text[: text.rstrip().rfind("\n") + 1] + '{"kind": "en')
    assert len(read_results(tmp_path / "results.jsonl", manifest).measurements) == 3


def test_missing_results_are_refused(measured: tuple[Manifest, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_results(tmp_path / "results.jsonl", measured[0])
