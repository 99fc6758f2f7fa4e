"""The measuring core: latency of ONNX models under ONNX Runtime, on this machine.

This file and `runtime.py` beside it are also shipped alone to other devices, so they need nothing but the standard
library, numpy and onnxruntime, and run on Python 3.8. As a script it measures every model of a manifest:

    python measure.py [MANIFEST.json [RESULTS.jsonl]]

Manifest: ``{"format_version": 2, "models": [{"id", "path", "sha256", "visit_ms", "sustained_s", "group",
"footprint"}],
"provider": "cpu", "threads": 1, "rounds": 12, "seed": 0, "spread_s": 0, "minimum_runtime": "1.14"}``; paths count from
its folder.

Protocol: all models are loaded and warmed up; then, in each of `rounds` rounds, every model is visited once in a
freshly shuffled order, group by group. A visit runs the model back to back for about its `visit_ms` and times every
run; the first finds what other models left in the caches, and warms them. The rounds are spread over at least
`spread_s` by pauses. Models whose even and odd rounds disagree get up to as many rounds more. Last, each model runs
back to back for its `sustained_s`. Interleaving is what makes figures repeatable: a disturbance hits one round of all
models, not all rounds of one. A model's figure is the lower quartile of its rounds' minima. Where memory is too short
for all models, loads of them take turns of a few rounds each, and are drawn anew for every turn: a bad half minute
hits a few rounds of models that spend their other rounds beside others, and so can be told from slow models.

Results: one JSON object per line, only ever appended. ``start`` identifies machine and manifest, ``visit`` is one
(round, model), ``round`` tells load and clock after a round, ``sustained`` is one model's long run, ``footprint`` the
size of its file and the memory that a process needs for it, ``end`` closes the file. A measurement that was killed goes
on where it stopped when it is started again with the same two files. Progress goes to standard output: JSON lines
``{"done", "total"}`` into a pipe, a counter on a terminal; errors likewise. Exit status: 0 done, 2 unusable input, 3
the machine failed.
"""

from __future__ import annotations

import argparse
import functools
import gc
import hashlib
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

if __package__:
    from nas import runtime
else:  # on another device, where the two files of the core lie side by side
    import runtime  # type: ignore[import-not-found,no-redef]

FORMAT_VERSION = 2
MIN_RUNS = 3
"""Fewest runs of a visit, however slow the model is."""
UNSTABLE_PERCENT = 3.0
"""Models whose even and odd rounds differ by more are visited again."""

# What a session was found to take: a multiple of its file, and something; and what share of memory a load may take.
_SESSION_PER_FILE, _SESSION_BYTES, _MEMORY_SHARE = 2.6, 3e6, 0.8
_ROUNDS_PER_TURN = 4  # take about as long as loading the models
_REPORT_INTERVAL_S = 0.2
_LOCK_PATIENCE_S = 5.0
_HEAD = b'{"kind": "start", "format_version": '


@dataclass(frozen=True)
class ModelFile:
    """One ONNX file to measure.

    Attributes:
        id: the name that its results carry.
        path: where it lies.
        sha256: of the content, hexadecimal.
        visit_ms: about how long it runs back to back in a visit; caches need some ms to hold a network.
        sustained_s: how long it runs back to back after the rounds.
        group: models of one group are visited one after the other in every round, so that what they tell of the
            machine's ups and downs is told of models of their kind. Where memory is too short for all, no load is of
            two groups.
        footprint: whether its size and the memory it needs are told, too.
    """

    id: str
    path: Path
    sha256: str
    visit_ms: float = 10.0
    sustained_s: float = 0.0
    group: int = 0
    footprint: bool = False


@dataclass(frozen=True)
class Manifest:
    """What to measure and how; the module's docstring explains the settings.

    Raises:
        runtime.MeasureError: a setting has a wrong type or is out of range, an id is not unique, or there is no model.
    """

    models: tuple[ModelFile, ...]
    provider: str = "cpu"
    threads: int = 1
    rounds: int = 12
    seed: int = 0
    spread_s: float = 0.0
    minimum_runtime: str = "0"

    def __post_init__(self) -> None:
        counts = [("threads", 1, self.threads), ("rounds", 1, self.rounds), ("seed", 0, self.seed)]
        for name, least, value in counts + [("group", 0, model.group) for model in self.models]:
            if not isinstance(value, int) or value < least:
                raise runtime.MeasureError(f"{name} must be a whole number of at least {least}, got {value!r}")
        times = [("spread_s", 0.0, self.spread_s)]
        times += [("visit_ms", 0.001, model.visit_ms) for model in self.models]
        times += [("sustained_s", 0.0, model.sustained_s) for model in self.models]
        if not all(isinstance(model.footprint, bool) for model in self.models):
            raise runtime.MeasureError("footprint must be true or false")
        for name, least_s, time_s in times:
            if not isinstance(time_s, (int, float)) or not least_s <= time_s < math.inf:
                raise runtime.MeasureError(f"{name} must be a number of at least {least_s}, got {time_s!r}")
        if self.provider not in runtime.PROVIDERS:
            raise runtime.MeasureError(f"provider must be one of {', '.join(runtime.PROVIDERS)}, got {self.provider!r}")
        if not isinstance(self.minimum_runtime, str) or not re.fullmatch(r"\d+(\.\d+)*", self.minimum_runtime):
            raise runtime.MeasureError(f"minimum_runtime must be a version such as 1.14, got {self.minimum_runtime!r}")
        ids = [model.id for model in self.models]
        if not ids or len(set(ids)) < len(ids) or not all(isinstance(each, str) and each for each in ids):
            raise runtime.MeasureError("a manifest needs at least one model, and models need ids that are unique texts")

    @property
    def hash(self) -> str:
        """SHA-256 of what is measured and how; where the files lie is left out, so a folder may be moved."""
        models = [{key: value for key, value in vars(model).items() if key != "path"} for model in self.models]
        content = {**vars(self), "models": models}
        return hashlib.sha256(json.dumps([FORMAT_VERSION, content], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text of a manifest file."""
        models = [{**vars(model), "path": str(model.path)} for model in self.models]
        return json.dumps({"format_version": FORMAT_VERSION, **vars(self), "models": models}, indent=1) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file; relative model paths become relative to its folder.

    Raises:
        runtime.MeasureError: the file cannot be read, or is not a manifest of this format.
    """
    try:
        fields = json.loads(path.read_bytes())
        if fields.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format_version")
        models = tuple(ModelFile(**{**model, "path": path.parent / model["path"]}) for model in fields.pop("models"))
        return Manifest(models=models, **fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise runtime.MeasureError(f"{path}: not a manifest of format {FORMAT_VERSION}: {error}") from None


def lower_quartile(rounds: Sequence[float]) -> float:
    """Return the one figure of a model's rounds: most are disturbed, and a minimum is luck where runs are long."""
    return float(np.quantile(rounds, 0.25))


def halves_differ_percent(rounds: Sequence[float]) -> float:
    """Return how far the figures of even and odd rounds are apart, relative to all; 0 for a single round."""
    even, odd = lower_quartile(rounds[0::2]), lower_quartile(rounds[1::2] or rounds)
    return 100.0 * abs(even - odd) / lower_quartile(rounds)


class _Journal:
    """A results file that is only appended to; knows what it already holds.

    Raises:
        runtime.MeasureError: the file is damaged, in use by another process, or of another manifest or machine.
    """

    def __init__(self, file: BinaryIO, manifest: Manifest) -> None:
        self.visits: dict[str, dict[int, int]] = {}
        self.runs_per_visit: dict[str, int] = {}
        self.sustained: set[str] = set()
        self.footprints: set[str] = set()
        self.finished = False
        self._file = file
        self._lock()
        file.seek(0)
        content = file.read()
        if not content.startswith(_HEAD[: len(content)]):
            raise runtime.MeasureError(f"{file.name}: not a results file; name another one")
        complete = content[: content.rfind(b"\n") + 1]
        machine = runtime.describe_machine(manifest.threads, manifest.provider)
        if complete:
            self._take(complete.splitlines(), manifest, machine)
        file.truncate(len(complete))  # a line without its end was torn by a kill or a full disk
        if not complete:
            software = {"python": platform.python_version(), "numpy": np.__version__}
            identity = {"format_version": FORMAT_VERSION, "manifest_hash": manifest.hash, "fingerprint": machine}
            self.append("start", **identity, **software, conditions=runtime.conditions())

    def is_unstable(self, model_id: str, before: int) -> bool:
        """Return whether a model's even and odd rounds disagree, of the rounds before a number."""
        visits = [time_ns for number, time_ns in sorted(self.visits[model_id].items()) if number < before]
        return halves_differ_percent(visits) > UNSTABLE_PERCENT

    def append(self, kind: str, **fields: Any) -> None:
        """Write one line and hand it to the system at once."""
        self._file.write(json.dumps({"kind": kind, **fields}, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def _lock(self) -> None:
        """Keep a second process out; a dying one gets a moment, since an orphan notices only when it next reports."""
        if os.name != "posix":  # elsewhere nothing keeps two processes apart
            return
        import fcntl

        deadline_s = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            except OSError:  # some network file systems have no locks
                return
            if time.monotonic() > deadline_s:
                raise runtime.MeasureError(f"{self._file.name}: another process is measuring into this file")
            time.sleep(_REPORT_INTERVAL_S)

    def _take(self, texts: list[bytes], manifest: Manifest, machine: dict[str, Any]) -> None:
        """Note what an earlier attempt finished, after making sure that it measured the same thing."""
        name = self._file.name
        try:
            start, *lines = [json.loads(text) for text in texts]
            same = start["format_version"] == FORMAT_VERSION and start["manifest_hash"] == manifest.hash
            changed = ", ".join(key for key in machine if start["fingerprint"][key] != machine[key])
            visits = [line for line in lines if line["kind"] == "visit"]
            for line in visits:
                self.visits.setdefault(line["id"], {})[int(line["round"])] = int(line["min_ns"])
            self.runs_per_visit = {line["id"]: int(line["runs"]) for line in visits}
            self.sustained = {line["id"] for line in lines if line["kind"] == "sustained"}
            self.footprints = {line["id"] for line in lines if line["kind"] == "footprint"}
            self.finished = any(line["kind"] == "end" for line in lines)
            if any(time_ns <= 0 for rounds in self.visits.values() for time_ns in rounds.values()):
                raise ValueError("a time that is not positive")
        except (KeyError, TypeError, ValueError, RecursionError, ArithmeticError) as error:
            raise runtime.MeasureError(f"{name}: is damaged ({error}); remove it to start anew") from None
        if not same:
            raise runtime.MeasureError(f"{name}: holds results of another manifest; remove it or name another file")
        if changed:
            raise runtime.MeasureError(f"{name}: was started on another device ({changed}); remove it to start anew")


@dataclass
class _Subject:
    """A loaded model with its inputs bound: what a visit runs."""

    model: ModelFile
    run: Callable[[], object]
    runs_per_visit: int = 0


class _Progress:
    """Counts work in units of visits, and tells it a few times per second."""

    def __init__(self, total: int, report: Callable[[int, int], None]) -> None:
        self._done, self._total, self._report = 0, total, report
        self._next_s = 0.0

    def advance(self, units: int = 1) -> None:
        self._done += units
        now_s = time.monotonic()
        if now_s >= self._next_s or self._done == self._total:
            self._next_s = now_s + _REPORT_INTERVAL_S
            self._report(self._done, self._total)


def measure(manifest: Manifest, results: Path, report: Callable[[int, int], None]) -> None:
    """Measure the models of a manifest into a results file, going on where an earlier attempt stopped.

    Args:
        manifest: what to measure.
        results: the file to append to; it is created when missing.
        report: called now and then as ``report(done, total)``.

    Raises:
        runtime.MeasureError: a model, the results file or the runtime cannot be used.
        OSError: the results file cannot be written.
    """
    found = runtime.load_runtime().__version__
    if runtime.version_of(found) < runtime.version_of(manifest.minimum_runtime):
        raise runtime.MeasureError(f"these models need onnxruntime >= {manifest.minimum_runtime}, here is {found}")
    with results.open("a+b") as file:
        journal = _Journal(file, manifest)
        schedule = _schedule(manifest)
        total = 1 + sum(2 * len(members) for _, members in schedule)
        total += sum(manifest.rounds + _sustained_units(model) + model.footprint for model in manifest.models)
        progress = _Progress(total, report)
        if not journal.finished:
            for numbers, members in schedule:
                _measure_load(manifest, members, numbers, journal, progress)
            _footprints(manifest, journal, progress)
            journal.append("end", conditions=runtime.conditions())
            progress.advance()
        report(total, total)


def _schedule(manifest: Manifest) -> list[tuple[range, list[int]]]:
    """Return rounds (beyond `rounds` the extra ones) and the models to load for them: all, unless memory is short."""
    free = runtime.free_bytes()
    room = free * _MEMORY_SHARE if free else math.inf
    everything = list(range(len(manifest.models)))
    if _loaded_bytes(manifest, everything) <= room:
        return [(range(2 * manifest.rounds), everything)]
    result = []
    for first in range(0, manifest.rounds, _ROUNDS_PER_TURN):
        last_turn = first + _ROUNDS_PER_TURN >= manifest.rounds
        numbers = range(first, 2 * manifest.rounds if last_turn else first + _ROUNDS_PER_TURN)
        # Seeded by turn, so that an attempt that goes on where another stopped loads the same models together.
        order = np.random.default_rng([manifest.seed, 0, first]).permutation(len(everything)).tolist()
        for group in sorted({model.group for model in manifest.models}):
            members = [index for index in order if manifest.models[index].group == group]
            count = min(len(members), max(1, math.ceil(_loaded_bytes(manifest, members) / room)))
            result += [(numbers, sorted(members[start::count])) for start in range(count)]
    return result


def _loaded_bytes(manifest: Manifest, members: Sequence[int]) -> float:
    paths = [manifest.models[index].path for index in members]
    return sum(_SESSION_PER_FILE * path.stat().st_size + _SESSION_BYTES for path in paths if path.exists())


def _measure_load(
    manifest: Manifest, members: Sequence[int], numbers: range, journal: _Journal, progress: _Progress
) -> None:
    """Measure some rounds of the models of one load; with the extra rounds comes the long run."""
    models = [manifest.models[index] for index in members]
    last_turn = numbers[-1] >= manifest.rounds
    if not last_turn and all(numbers[-1] in journal.visits.get(model.id, ()) for model in models):
        progress.advance((2 + len(numbers)) * len(models))  # an earlier attempt did it all
        return
    subjects = [_load(manifest, index, progress) for index in members]
    for subject in subjects:
        _warm_up(subject, journal)
        progress.advance()
    pause_s = manifest.spread_s / max(1, manifest.rounds - 1)
    due_s = time.monotonic()
    for number in numbers:
        visited, extra = subjects, number >= manifest.rounds
        if extra:
            visited = [each for each in subjects if journal.is_unstable(each.model.id, number)]
        # Seeded by round, so that a resumed round goes on in the same order.
        order = np.random.default_rng([manifest.seed, number]).permutation(len(visited)).tolist()
        order.sort(key=lambda each: visited[each].model.group)
        waiting = [visited[each] for each in order if number not in journal.visits.get(visited[each].model.id, ())]
        progress.advance(0 if extra else len(visited) - len(waiting))
        if waiting:
            time.sleep(max(0.0, due_s - time.monotonic()))
            due_s += pause_s
        for subject in waiting:
            _visit(number, subject, journal)
            progress.advance(0 if extra else 1)
        if waiting:
            journal.append("round", round=number, conditions=runtime.conditions())
    for subject in subjects if last_turn else []:
        units = _sustained_units(subject.model)
        if units and subject.model.id not in journal.sustained:
            _sustained(subject, journal, progress, units)
        else:
            progress.advance(units)


def _load(manifest: Manifest, index: int, progress: _Progress) -> _Subject:
    model = manifest.models[index]
    with runtime.explained(model.path, model.id):
        content = model.path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != model.sha256:
            raise runtime.MeasureError(f"content has sha256 {found[:12]}…, the manifest says {model.sha256[:12]}…")
        session = runtime.open_session(content, manifest.threads, manifest.provider)
        inputs = runtime.random_inputs(session, np.random.default_rng([manifest.seed, index]))
        run = _runner(session, inputs, runtime.PROVIDERS[manifest.provider].memory)
    progress.advance()
    return _Subject(model, run)


def _runner(session: Any, inputs: dict[str, Any], memory: str) -> Callable[[], object]:
    """Return what runs a session once; inputs and outputs stay in the provider's memory."""
    if memory == "cpu":
        return functools.partial(session.run, None, inputs)
    binding, make = session.io_binding(), runtime.load_runtime().OrtValue.ortvalue_from_numpy
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, make(value, memory, 0))
    for node in session.get_outputs():
        binding.bind_output(node.name, memory)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _timed_runs(subject: _Subject, count: int) -> list[int]:
    times_ns = []
    with runtime.explained(subject.model.path, subject.model.id):
        for _ in range(count):
            start_ns = time.perf_counter_ns()
            subject.run()
            times_ns.append(time.perf_counter_ns() - start_ns)
        if min(times_ns) <= 0:
            raise runtime.MeasureError("the clock of this machine did not advance during a run")
    return times_ns


def _warm_up(subject: _Subject, journal: _Journal) -> None:
    """Run for one visit's time, and fix how many runs a visit has, unless an earlier load or attempt did."""
    times_ns: list[int] = []
    end_ns = time.perf_counter_ns() + subject.model.visit_ms * 1e6
    while not times_ns or time.perf_counter_ns() < end_ns:
        times_ns += _timed_runs(subject, MIN_RUNS)
    fitting = int(subject.model.visit_ms * 1e6 / min(times_ns))
    subject.runs_per_visit = max(MIN_RUNS, journal.runs_per_visit.setdefault(subject.model.id, fitting))


def _visit(number: int, subject: _Subject, journal: _Journal) -> None:
    times_ns = _timed_runs(subject, subject.runs_per_visit)
    p50, p90 = (round(float(value)) for value in np.percentile(times_ns, [50, 90]))
    journal.visits.setdefault(subject.model.id, {})[number] = min(times_ns)
    figures = {"runs": len(times_ns), "first_ns": times_ns[0]}
    figures.update(min_ns=min(times_ns), median_ns=p50, p90_ns=p90)
    journal.append("visit", round=number, id=subject.model.id, **figures)


def _footprints(manifest: Manifest, journal: _Journal, progress: _Progress) -> None:
    for model in manifest.models:
        progress.advance(int(model.footprint))
        if model.footprint and model.id not in journal.footprints:
            with runtime.explained(model.path, model.id):
                file_bytes = model.path.stat().st_size
            memory_bytes = runtime.footprint_bytes(model.path, manifest.threads, manifest.provider)
            journal.append("footprint", id=model.id, file_bytes=file_bytes, memory_bytes=memory_bytes)


def _sustained_units(model: ModelFile) -> int:
    return math.ceil(model.sustained_s * 1000 / model.visit_ms)


def _sustained(subject: _Subject, journal: _Journal, progress: _Progress, units: int) -> None:
    times_ns: list[int] = []
    start_s = time.perf_counter()
    duration_s, told = 0.0, 0
    while duration_s < subject.model.sustained_s:
        times_ns += _timed_runs(subject, subject.runs_per_visit)
        duration_s = time.perf_counter() - start_s
        passed = min(units, int(units * duration_s / subject.model.sustained_s))
        progress.advance(passed - told)
        told = passed
    p10, p50, p90 = (round(float(value)) for value in np.percentile(times_ns, [10, 50, 90]))
    runs = {"runs": len(times_ns), "duration_s": round(duration_s, 6), "mean_ns": round(float(np.mean(times_ns)))}
    journal.append("sustained", id=subject.model.id, **runs, p10_ns=p10, p50_ns=p50, p90_ns=p90, max_ns=max(times_ns))


def main(arguments: Sequence[str]) -> int:
    """Run the script and return its exit status."""
    parser = argparse.ArgumentParser(description="Measure the latency of ONNX models with ONNX Runtime.")
    parser.add_argument("manifest", nargs="?", type=Path, default=Path("manifest.json"))
    parser.add_argument("results", nargs="?", type=Path, default=Path("results.jsonl"))
    paths = parser.parse_args(arguments)
    gc.disable()  # a collection in the middle of a run would be timed with it
    try:
        runtime.probe_runtime()
        measure(read_manifest(paths.manifest), paths.results, lambda done, total: _say(done=done, total=total))
    except runtime.MeasureError as error:
        _say(error=str(error), id=error.model_id)
        return 2
    except BrokenPipeError:
        os._exit(3)  # nobody listens any more: whoever started this process is gone
    except (OSError, ImportError) as error:
        _say(error=str(error), id=None)
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


def _say(**fields: Any) -> None:
    """Print a line of JSON into a pipe; on a terminal, words, of which progress overwrites itself."""
    text = json.dumps(fields) + "\n"
    if sys.stdout.isatty():
        done, total = fields.get("done", 0), fields.get("total", 0)
        share = f"\rmeasuring {100 * done // total:3} %" if total else f"\n{fields['error']}\n"
        text = share + ("\n" if total and done == total else "")
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
