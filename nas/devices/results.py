"""Reading the measuring core's results files, which may come from another machine and are not trusted.

Files of the same manifest and device are merged as sets of visits: in any order, any number of times, also a copy that
was taken before the measurement ended.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, with_config

from nas.devices.base import Conditions, Fingerprint, Footprint, Measurement, MeasurementRun, Sustained
from nas.devices.drift import slowness
from nas.measure import MIN_RUNS, Manifest
from search_spaces.documents import content_hash, decode, document
from search_spaces.errors import InputError

_NS_PER_MS = 1e6
_BYTES_PER_MB = 1e6
_MOST = 10**15
"""A run of eleven days in nanoseconds: whatever is larger was not measured, and would overflow what is fitted to it."""
_MOST_BYTES = 2**29
_Bytes = Annotated[int, Field(gt=0, le=_MOST)]
_Ns = Annotated[int, Field(gt=0, le=_MOST)]
_Runs = Annotated[int, Field(ge=MIN_RUNS, le=_MOST)]
_Round = Annotated[int, Field(ge=0, le=_MOST)]


@document
@dataclass(frozen=True, kw_only=True)
class _ConditionsNow:
    load: float | None
    temperature_c: float | None
    clock_mhz: float | None
    time_unix_s: float


@document
@dataclass(frozen=True, kw_only=True)
class _StartLine:
    kind: Literal["start"]
    format_version: Literal[2]
    manifest_hash: str
    fingerprint: Fingerprint
    python: str
    numpy: str
    conditions: _ConditionsNow


@document
@dataclass(frozen=True, kw_only=True)
class _VisitLine:
    kind: Literal["visit"]
    round: _Round
    id: str
    runs: _Runs
    first_ns: _Ns
    min_ns: _Ns
    median_ns: _Ns
    p90_ns: _Ns

    def __post_init__(self) -> None:
        if not self.min_ns <= self.median_ns <= self.p90_ns or self.first_ns < self.min_ns:
            raise ValueError("the quantiles are not in order")


@document
@dataclass(frozen=True, kw_only=True)
class _RoundLine:
    kind: Literal["round"]
    round: _Round
    conditions: _ConditionsNow


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
class _FootprintLine:
    kind: Literal["footprint"]
    id: str
    file_bytes: _Bytes
    memory_bytes: _Bytes | None


@document
@dataclass(frozen=True, kw_only=True)
class _EndLine:
    kind: Literal["end"]
    conditions: _ConditionsNow


@with_config(ConfigDict(extra="ignore"))
@dataclass(frozen=True)
class _AnyLine:
    """What a line must say before it is known which kind it is."""

    kind: Literal["visit", "round", "sustained", "footprint", "end"]


_KINDS: dict[str, type[_VisitLine | _RoundLine | _SustainedLine | _FootprintLine | _EndLine]] = {
    "visit": _VisitLine,
    "round": _RoundLine,
    "sustained": _SustainedLine,
    "footprint": _FootprintLine,
    "end": _EndLine,
}


@dataclass(frozen=True)
class Results:
    """What one or more results files of one manifest and one device hold.

    Attributes:
        manifest_hash: of what was to be measured.
        fingerprint: of the device.
        starts: the attempts: when each was started, its own hash, and its software.
        visits: (attempt, position in its file, line).
        sustained: (attempt, line).
        footprints: (attempt, line).
        conditions: what was read at start, after rounds and at the end.
    """

    manifest_hash: str
    fingerprint: Fingerprint
    starts: frozenset[tuple[float, str, str, str]]
    visits: frozenset[tuple[str, int, _VisitLine]]
    sustained: frozenset[tuple[str, _SustainedLine]]
    footprints: frozenset[tuple[str, _FootprintLine]]
    conditions: frozenset[tuple[bool, _ConditionsNow]]

    def merged(self, other: Results) -> Results:
        """Return what both hold together; commutative, associative and idempotent.

        Raises:
            InputError: they are of other manifests or devices, or contradict each other.
        """
        if self.manifest_hash != other.manifest_hash:
            raise InputError("the results are of different manifests; give the files of one kit")
        differing = self.fingerprint.differences(other.fingerprint)
        if differing:
            raise InputError(f"the results are of different devices ({', '.join(differing)} differ); give those of one")
        both = Results(
            self.manifest_hash,
            self.fingerprint,
            self.starts | other.starts,
            self.visits | other.visits,
            self.sustained | other.sustained,
            self.footprints | other.footprints,
            self.conditions | other.conditions,
        )
        if (
            _repeats((start, line.id, line.round) for start, _, line in both.visits)
            or _repeats((start, line.id) for start, line in both.sustained)
            or _repeats((start, line.id) for start, line in both.footprints)
        ):
            raise InputError("the results contradict each other: two figures for the same visit")
        return both

    def run(self, manifest: Manifest) -> MeasurementRun:
        """Return the figures, models in the order of the manifest.

        Raises:
            InputError: the results are of another manifest, name unknown models, or lack some.
        """
        if self.manifest_hash != manifest.hash:
            raise InputError("holds results of another manifest")
        order = {attempt: position for position, (_, attempt, _, _) in enumerate(sorted(self.starts))}
        in_time = sorted(self.visits, key=lambda each: (order[each[0]], each[1]))
        visits: dict[str, list[_Visit]] = defaultdict(list)
        for visit in _with_slowness(
            [line for _, _, line in in_time], {each.id: each.group for each in manifest.models}
        ):
            visits[visit.line.id].append(visit)
        sustained: dict[str, _SustainedLine] = {}
        for _, long in sorted(self.sustained, key=lambda each: order[each[0]]):
            sustained.setdefault(long.id, long)
        footprints: dict[str, _FootprintLine] = {}
        for _, each in sorted(self.footprints, key=lambda each: order[each[0]]):
            footprints.setdefault(each.id, each)
        strange = (visits.keys() | sustained.keys() | footprints.keys()) - {model.id for model in manifest.models}
        if strange:
            raise InputError(f"holds results for {min(strange)[:80]!r}, which the manifest does not ask for")
        lacking = [
            model.id
            for model in manifest.models
            if len(visits[model.id]) < manifest.rounds
            or (model.sustained_s and model.id not in sustained)
            or (model.footprint and model.id not in footprints)
        ]
        if lacking:
            raise InputError(
                f"lacks results for {len(lacking)} of {len(manifest.models)} models, such as {lacking[0]}; start the "
                f"measurement again, and it goes on where it stopped"
            )
        return MeasurementRun(
            fingerprint=self.fingerprint,
            measurements=tuple(
                _measurement(visits[model.id], manifest.rounds, sustained.get(model.id), footprints.get(model.id))
                for model in manifest.models
            ),
            conditions=self._summary(),
        )

    def _summary(self) -> Conditions:
        before = [now for first, now in self.conditions if first]
        after = [now for first, now in self.conditions if not first]
        loads, temperatures, clocks = (
            [value for now in after if (value := getattr(now, name)) is not None]
            for name in ("load", "temperature_c", "clock_mhz")
        )
        earliest = min(before, key=lambda now: (now.time_unix_s, str(now)))
        pythons, numpys = zip(*((python, numpy) for _, _, python, numpy in self.starts), strict=True)
        return Conditions(
            python=", ".join(sorted(set(pythons))),
            numpy=", ".join(sorted(set(numpys))),
            load_before=earliest.load,
            load_max=max(loads, default=None),
            temperature_before_c=earliest.temperature_c,
            temperature_max_c=max(temperatures, default=None),
            clock_max_mhz=max(clocks, default=None),
            clock_min_mhz=min(clocks, default=None),
            started_unix_s=earliest.time_unix_s,
            ended_unix_s=max((now.time_unix_s for now in after), default=None),
        )


def read_results(path: Path, manifest: Manifest) -> MeasurementRun:
    """Read one complete results file of the measuring core.

    Args:
        path: the results file.
        manifest: what was to be measured.

    Raises:
        InputError: the file is missing, damaged, incomplete, or belongs to another manifest.
    """
    results = parse_results(path)
    try:
        return results.run(manifest)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_results(path: Path) -> Results:
    """Read a results file, complete or not; a last line that a kill has torn is left out.

    Raises:
        InputError: the file is missing, damaged or contradicts itself.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: is larger than any results file")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    texts = content[: content.rfind(b"\n") + 1].splitlines()
    if not texts:
        raise InputError(f"{path}: is empty")
    start = decode(_StartLine, texts[0], source=f"{path}, line 1")
    visits: list[tuple[int, _VisitLine]] = []
    sustained: list[_SustainedLine] = []
    footprints: list[_FootprintLine] = []
    conditions = [(True, start.conditions)]
    for number, text in enumerate(texts[1:], start=2):
        source = f"{path}, line {number}"
        line = decode(_KINDS[decode(_AnyLine, text, source=source).kind], text, source=source)
        if isinstance(line, _VisitLine):
            visits.append((number, line))
        elif isinstance(line, _SustainedLine):
            sustained.append(line)
        elif isinstance(line, _FootprintLine):
            footprints.append(line)
        else:
            conditions.append((False, line.conditions))
        if isinstance(line, _EndLine) and number < len(texts):
            raise InputError(f"{path}: goes on after its end line")
    if (
        _repeats((line.id, line.round) for _, line in visits)
        or _repeats(line.id for line in sustained)
        or _repeats(line.id for line in footprints)
    ):
        raise InputError(f"{path}: holds more than one result for the same visit")
    attempt = content_hash(start)
    return Results(
        manifest_hash=start.manifest_hash,
        fingerprint=start.fingerprint,
        starts=frozenset([(start.conditions.time_unix_s, attempt, start.python, start.numpy)]),
        visits=frozenset((attempt, number, line) for number, line in visits),
        sustained=frozenset((attempt, line) for line in sustained),
        footprints=frozenset((attempt, line) for line in footprints),
        conditions=frozenset(conditions),
    )


def _repeats(keys: Iterable[object]) -> bool:
    listed = list(keys)
    return len(set(listed)) < len(listed)


@dataclass(frozen=True)
class _Visit:
    line: _VisitLine
    slowness: float


def _with_slowness(visits: Sequence[_VisitLine], group_of: Mapping[str, int]) -> list[_Visit]:
    """Return visits, given in the order of time, with how slow the machine was around each for models of its group."""
    slow = np.ones(len(visits))
    groups = np.array([group_of.get(visit.id, -1) for visit in visits])
    numbers = {name: number for number, name in enumerate(group_of)}
    models = np.array([numbers.get(visit.id, -1) for visit in visits])
    times = np.array([visit.min_ns for visit in visits], dtype=np.float64)
    for group in np.unique(groups):
        slow[groups == group] = slowness(models[groups == group], times[groups == group])
    return [_Visit(line, float(each)) for line, each in zip(visits, slow, strict=True)]


def _measurement(
    visits: Sequence[_Visit], rounds: int, sustained: _SustainedLine | None, footprint: _FootprintLine | None
) -> Measurement:
    """Sum up one model's visits.

    In rounds beyond those that were asked for, few models are visited, so that caches still hold something of each.
    """
    lines = [visit.line for visit in visits]
    return Measurement(
        id=lines[0].id,
        rounds_ms=tuple(line.min_ns / _NS_PER_MS for line in lines),
        first_ms=tuple(
            visit.line.first_ns / _NS_PER_MS / visit.slowness for visit in visits if visit.line.round < rounds
        ),
        slowness=tuple(visit.slowness for visit in visits),
        median_ms=statistics.median(line.median_ns for line in lines) / _NS_PER_MS,
        p90_ms=statistics.median(line.p90_ns for line in lines) / _NS_PER_MS,
        runs=sum(line.runs for line in lines),
        sustained=Sustained(
            p50_ms=sustained.p50_ns / _NS_PER_MS,
            p90_ms=sustained.p90_ns / _NS_PER_MS,
            mean_ms=sustained.mean_ns / _NS_PER_MS,
            runs=sustained.runs,
            duration_s=sustained.duration_s,
        )
        if sustained
        else None,
        footprint=Footprint(
            file_mb=footprint.file_bytes / _BYTES_PER_MB,
            memory_mb=footprint.memory_bytes / _BYTES_PER_MB if footprint.memory_bytes is not None else None,
        )
        if footprint
        else None,
    )
