"""Reading the measuring core's results file, which may come from another machine and is not trusted."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

from nas.devices.base import Conditions, Fingerprint, Measurement, MeasurementRun, Sustained
from nas.measure import MIN_RUNS, Manifest
from search_spaces.documents import decode, document
from search_spaces.errors import InputError

_NS_PER_MS = 1e6
_Ns = Annotated[int, Field(gt=0)]
_Runs = Annotated[int, Field(ge=MIN_RUNS)]
_Round = Annotated[int, Field(ge=0)]


@document
@dataclass(frozen=True, kw_only=True)
class _StartLine:
    kind: Literal["start"]
    format_version: Literal[1]
    manifest_hash: str
    fingerprint: Fingerprint
    python: str
    numpy: str
    load_before: float | None
    temperature_before_c: float | None
    time_before_unix_s: float


@document
@dataclass(frozen=True, kw_only=True)
class _VisitLine:
    kind: Literal["visit"]
    round: _Round
    id: str
    runs: _Runs
    min_ns: _Ns
    median_ns: _Ns

    def __post_init__(self) -> None:
        if self.min_ns > self.median_ns:
            raise ValueError("the minimum is above the median")


@document
@dataclass(frozen=True, kw_only=True)
class _SustainedLine:
    kind: Literal["sustained"]
    id: str
    runs: _Runs
    duration_s: Annotated[float, Field(gt=0)]
    mean_ns: _Ns
    p10_ns: _Ns
    p50_ns: _Ns
    p90_ns: _Ns
    max_ns: _Ns

    def __post_init__(self) -> None:
        if not self.p10_ns <= self.p50_ns <= self.p90_ns <= self.max_ns:
            raise ValueError("the quantiles are not in order")


@document
@dataclass(frozen=True, kw_only=True)
class _EndLine:
    kind: Literal["end"]
    load_after: float | None
    temperature_after_c: float | None
    time_after_unix_s: float


@with_config(ConfigDict(extra="ignore"))
@dataclass(frozen=True)
class _AnyLine:
    """What a line must say before it is known which kind it is."""

    kind: Literal["visit", "sustained", "end"]


_RESULTS: dict[str, type[_VisitLine | _SustainedLine]] = {"visit": _VisitLine, "sustained": _SustainedLine}


def read_results(path: Path, manifest: Manifest) -> MeasurementRun:
    """Read a complete results file of the measuring core.

    Args:
        path: the results file.
        manifest: what was to be measured.

    Raises:
        InputError: the file is missing, damaged, incomplete, or belongs to another manifest.
    """
    start, middle, end = _lines(path)
    if start.manifest_hash != manifest.hash:
        raise InputError(f"{path}: holds results of another manifest")
    visits = {(line.id, line.round): line for line in middle if isinstance(line, _VisitLine)}
    sustained = {line.id: line for line in middle if isinstance(line, _SustainedLine)}
    ids = [model.id for model in manifest.models]
    all_visits = {(model_id, number) for model_id in ids for number in range(manifest.rounds)}
    all_sustained = set(ids) if manifest.sustained_s else set()
    if len(visits) + len(sustained) < len(middle):
        raise InputError(f"{path}: holds more than one result for the same visit")
    amiss: set[object] = {*(visits.keys() ^ all_visits), *(sustained.keys() ^ all_sustained)}
    if amiss:
        raise InputError(f"{path}: does not hold the results that the manifest asks for ({min(map(str, amiss))})")
    return MeasurementRun(
        fingerprint=start.fingerprint,
        measurements=tuple(
            _measurement([visits[each, number] for number in range(manifest.rounds)], sustained.get(each))
            for each in ids
        ),
        conditions=Conditions(
            python=start.python,
            numpy=start.numpy,
            load_before=start.load_before,
            load_after=end.load_after,
            temperature_before_c=start.temperature_before_c,
            temperature_after_c=end.temperature_after_c,
            time_before_unix_s=start.time_before_unix_s,
            time_after_unix_s=end.time_after_unix_s,
        ),
    )


def _lines(path: Path) -> tuple[_StartLine, list[_VisitLine | _SustainedLine], _EndLine]:
    try:
        texts = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if not texts:
        raise InputError(f"{path}: is empty")
    start = decode(_StartLine, texts[0], source=f"{path}, line 1")
    middle: list[_VisitLine | _SustainedLine] = []
    for number, text in enumerate(texts[1:], start=2):
        source = f"{path}, line {number}"
        kind = decode(_AnyLine, text, source=source).kind
        if kind == "end":
            if number < len(texts):
                raise InputError(f"{path}: goes on after its end line")
            return start, middle, decode(_EndLine, text, source=source)
        middle.append(decode(_RESULTS[kind], text, source=source))
    raise InputError(f"{path}: has no end line; start the measurement again, and it goes on where it stopped")


def _measurement(visits: Sequence[_VisitLine], sustained: _SustainedLine | None) -> Measurement:
    """Sum up one model's visits, given in the order of the rounds."""
    return Measurement(
        id=visits[0].id,
        min_ms=min(visit.min_ns for visit in visits) / _NS_PER_MS,
        rounds_ms=tuple(visit.min_ns / _NS_PER_MS for visit in visits),
        median_ms=statistics.median(visit.median_ns for visit in visits) / _NS_PER_MS,
        runs=sum(visit.runs for visit in visits),
        sustained=Sustained(
            p50_ms=sustained.p50_ns / _NS_PER_MS,
            p90_ms=sustained.p90_ns / _NS_PER_MS,
            mean_ms=sustained.mean_ns / _NS_PER_MS,
            runs=sustained.runs,
            duration_s=sustained.duration_s,
        )
        if sustained
        else None,
    )
