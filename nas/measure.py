"""The measuring core: latency of ONNX models under ONNX Runtime, on this machine.

This one file is also shipped alone to other devices, so it needs nothing but the standard library, numpy and
onnxruntime, and runs on Python 3.8. As a script it measures every model of a manifest:

    python measure.py [MANIFEST.json [RESULTS.jsonl]]

Manifest: ``{"format_version": 1, "models": [{"id", "path", "sha256"}], "threads": 1, "rounds": 12, "visit_ms": 10,
"seed": 0, "sustained_s": 0, "spread_s": 0}``; a relative path counts from the manifest's folder.

Protocol: all models are loaded and warmed up; then, in each of `rounds` rounds, every model is visited once in a
freshly shuffled order. A visit runs the model back to back for about `visit_ms` and times every run. The rounds are
spread over at least `spread_s` by pauses. Last, each model runs back to back for `sustained_s`. Interleaving is what
makes the minimum over rounds repeatable: a disturbance hits one round of all models, not all rounds of one.

Results: one JSON object per line, only ever appended. ``start`` identifies machine and manifest, ``visit`` is one
(round, model), ``sustained`` one model's long run, ``end`` closes the file. A measurement that was killed goes on where
it stopped when it is started again with the same two files. Progress goes to standard output as JSON lines
``{"done", "total"}``, an error as ``{"error", "id"}``. Exit status: 0 done, 2 unusable input, 3 the machine failed.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FORMAT_VERSION = 1
PROVIDER = "CPUExecutionProvider"
MIN_RUNS = 3
"""Fewest runs of a visit, however slow the model is."""

_REPORT_INTERVAL_S = 0.2
_LOCK_PATIENCE_S = 5.0
_HEAD = b'{"kind": "start", "format_version": '


class MeasureError(ValueError):
    """The manifest, a model or a results file cannot be used.

    Attributes:
        model_id: the model at fault, None when it is none in particular.
    """

    def __init__(self, message: str, model_id: str | None = None) -> None:
        super().__init__(message)
        self.model_id = model_id


@dataclass(frozen=True)
class ModelFile:
    """One ONNX file to measure: the name its results carry, where it lies, and its SHA-256 in hexadecimal."""

    id: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What to measure and how; the module's docstring explains the settings.

    Raises:
        MeasureError: a setting has a wrong type or is out of range, an id is not unique, or there is no model.
    """

    models: tuple[ModelFile, ...]
    threads: int = 1
    rounds: int = 12
    visit_ms: float = 10.0
    seed: int = 0
    sustained_s: float = 0.0
    spread_s: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("rounds", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise MeasureError(f"{name} must be a whole number of at least {least}, got {value!r}")
        for name, least_s in (("visit_ms", 0.001), ("sustained_s", 0.0), ("spread_s", 0.0)):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not least_s <= value < math.inf:
                raise MeasureError(f"{name} must be a number of at least {least_s}, got {value!r}")
        ids = [model.id for model in self.models]
        if not ids or len(set(ids)) < len(ids) or not all(isinstance(each, str) and each for each in ids):
            raise MeasureError("a manifest needs at least one model, and models need ids that are unique texts")

    @property
    def hash(self) -> str:
        """SHA-256 of what is measured and how; where the files lie is left out, so a folder may be moved."""
        content = {**vars(self), "models": [[model.id, model.sha256] for model in self.models]}
        return hashlib.sha256(json.dumps([FORMAT_VERSION, content], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text of a manifest file."""
        models = [{**vars(model), "path": str(model.path)} for model in self.models]
        return json.dumps({"format_version": FORMAT_VERSION, **vars(self), "models": models}, indent=1) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file; relative model paths become relative to its folder.

    Raises:
        MeasureError: the file cannot be read, or is not a manifest of this format.
    """
    try:
        fields = json.loads(path.read_bytes())
        if fields.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format_version")
        models = tuple(ModelFile(**{**model, "path": path.parent / model["path"]}) for model in fields.pop("models"))
        return Manifest(models=models, **fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MeasureError(f"{path}: not a manifest of format {FORMAT_VERSION}: {error}") from None


def load_runtime() -> Any:
    """Import onnxruntime with its telemetry off, and return the module."""
    # Since 1.29 it writes a device id into the user's cache folder and uploads events unless this is set beforehand.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def open_session(model: bytes | str | Path, threads: int = 1) -> Any:
    """Open an ONNX model for inference on the CPU, exactly as it is opened for measuring.

    Args:
        model: the content of the file, or its path. External data is refused.
        threads: threads inside an operator; operators run one after the other.

    Returns:
        The ``onnxruntime.InferenceSession``.

    Raises:
        MeasureError: the file cannot be read, or ONNX Runtime does not accept the model.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Weights outside the file escape its SHA-256, and would be looked for in the working directory: point to nowhere.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    with _explained():
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        session = runtime.InferenceSession(content, options, providers=[PROVIDER], enable_fallback=0)
    if session.get_providers() != [PROVIDER]:
        raise MeasureError(f"asked for {[PROVIDER]}, but the session runs on {session.get_providers()}")
    return session


def random_inputs(session: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Make one value for every input of a session: symbolic dimensions are 1.

    Floats are normal, 8-bit integers uniform. Wider integers and booleans are ones, since they tend to be indices,
    lengths and masks, which a random number would put out of range.

    Raises:
        MeasureError: an input is neither a tensor of numbers nor of booleans.
    """
    values = {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in node.shape]
        name = node.type[len("tensor(") : -1] if node.type.startswith("tensor(") else ""
        if name in ("float", "double", "float16"):
            values[node.name] = rng.standard_normal(shape).astype("float32" if name == "float" else name)
        elif name in ("uint8", "int8"):
            limits = np.iinfo(name)
            values[node.name] = rng.integers(limits.min, limits.max, shape, name, endpoint=True)
        elif re.fullmatch(r"bool|u?int(16|32|64)", name):
            values[node.name] = np.ones(shape, name)
        else:
            raise MeasureError(f"input {node.name!r} is a {node.type}, for which no value can be made")
    return values


@contextlib.contextmanager
def _explained(model: ModelFile | None = None) -> Iterator[None]:
    """Turn whatever ONNX Runtime or the file system raises into a `MeasureError` of one line, blaming a model."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the runtime has fifteen error types without a base of their own
        text = " ".join(str(error).split())
        raise MeasureError(f"{model.path}: {text}" if model else text, model.id if model else None) from None


def describe_machine(threads: int) -> dict[str, Any]:
    """Return what a latency depends on besides the model: hardware, limits, runtime and its settings.

    What cannot be read on this system is None.
    """
    first_cpu = (_text("/proc/cpuinfo") or "").split("\n\n")[0]
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first_cpu.splitlines())}
    flags = cpu.get("flags") or cpu.get("Features") or ""
    detail = ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant", "CPU revision")
    names = [cpu["model name"]] if "model name" in cpu else []
    names += [f"{key} {cpu[key]}" for key in detail if key in cpu]
    no_turbo = _text("/sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = _text("/sys/devices/system/cpu/cpufreq/boost")
    memory = re.search(r"MemTotal:\s+(\d+) kB", _text("/proc/meminfo") or "")
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "machine": platform.machine(),
        "cpu_model": ", ".join(names) or platform.processor() or None,
        "isa_flags": sorted(flags.split()),
        "cores": os.cpu_count(),
        "affinity": sorted(affinity(0)) if affinity else None,
        "cpu_quota": _cpu_quota(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "turbo": no_turbo == "0" if no_turbo else (boost == "1" if boost else None),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "system": platform.system(),
        "kernel": platform.release(),
        "onnxruntime": load_runtime().__version__,
        "provider": PROVIDER,
        "threads": threads,
        "optimization_level": "all",
        "allow_spinning": True,
    }


def _conditions(when: str) -> dict[str, Any]:
    """Return what changes from minute to minute: one-minute load average and temperature."""
    temperatures = [_text(str(zone)) for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    millidegrees = [int(text) for text in temperatures if text and text.lstrip("-").isdigit()]
    return {
        f"load_{when}": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        f"temperature_{when}_c": max(millidegrees) / 1000 if millidegrees else None,
        f"time_{when}_unix_s": round(time.time(), 3),
    }


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _cpu_quota() -> float | None:
    """Return how many cores' time the container may use: the tightest limit of its control group and those above."""
    quotas = []
    for line in (_text("/proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            own = Path("/sys/fs/cgroup", "cpu" if controllers else "", group.lstrip("/"))
            quotas += [_quota_of(folder) for folder in (own, *own.parents)]
    return min((quota for quota in quotas if quota), default=None)


def _quota_of(group: Path) -> float | None:
    both = _text(str(group / "cpu.max"))
    if both is None:
        both = f"{_text(str(group / 'cpu.cfs_quota_us'))} {_text(str(group / 'cpu.cfs_period_us'))}"
    numbers = [int(word) for word in both.split() if word.isdigit()]
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else None


class _Journal:
    """A results file that is only appended to; knows what it already holds.

    Raises:
        MeasureError: the file is damaged, in use by another process, or of another manifest or machine.
    """

    def __init__(self, file: BinaryIO, manifest: Manifest) -> None:
        self.visited: set[tuple[int, str]] = set()
        self.runs_per_visit: dict[str, int] = {}
        self.sustained: set[str] = set()
        self.finished = False
        self._file = file
        self._lock()
        file.seek(0)
        content = file.read()
        if not content.startswith(_HEAD[: len(content)]):
            raise MeasureError(f"{file.name}: not a results file; name another one")
        complete = content[: content.rfind(b"\n") + 1]
        machine = describe_machine(manifest.threads)
        if complete:
            self._take(complete.splitlines(), manifest, machine)
        file.truncate(len(complete))  # a line without its end was torn by a kill or a full disk
        if not complete:
            software = {"python": platform.python_version(), "numpy": np.__version__}
            identity = {"format_version": FORMAT_VERSION, "manifest_hash": manifest.hash, "fingerprint": machine}
            self.append("start", **identity, **software, **_conditions("before"))

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
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() > deadline_s:
                raise MeasureError(f"{self._file.name}: another process is measuring into this file")
            time.sleep(_REPORT_INTERVAL_S)

    def _take(self, texts: list[bytes], manifest: Manifest, machine: dict[str, Any]) -> None:
        """Note what an earlier attempt finished, after making sure that it measured the same thing."""
        name = self._file.name
        try:
            start, *lines = [json.loads(text) for text in texts]
            same = start["format_version"] == FORMAT_VERSION and start["manifest_hash"] == manifest.hash
            changed = ", ".join(key for key in machine if start["fingerprint"][key] != machine[key])
            visits = [line for line in lines if line["kind"] == "visit"]
            self.visited = {(line["round"], line["id"]) for line in visits}
            self.runs_per_visit = {line["id"]: int(line["runs"]) for line in visits}
            self.sustained = {line["id"] for line in lines if line["kind"] == "sustained"}
            self.finished = any(line["kind"] == "end" for line in lines)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise MeasureError(f"{name}: is damaged ({error}); remove it to start anew") from None
        if not same:
            raise MeasureError(f"{name}: holds results of another manifest; remove it or name another file")
        if changed:
            raise MeasureError(f"{name}: was started under other conditions ({changed}); remove it to start anew")


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
        MeasureError: a model or the results file cannot be used.
        OSError: the results file cannot be written.
    """
    with results.open("a+b") as file:
        journal = _Journal(file, manifest)
        sustained_units = math.ceil(manifest.sustained_s * 1000 / manifest.visit_ms)
        total = len(manifest.models) * (2 + manifest.rounds + sustained_units)
        if journal.finished:
            report(total, total)
            return
        progress = _Progress(total, report)
        subjects = [_load(manifest, index, progress) for index in range(len(manifest.models))]
        for subject in subjects:
            _warm_up(subject, manifest.visit_ms, journal)
            progress.advance()
        _interleaved(manifest, subjects, journal, progress)
        for subject in subjects if manifest.sustained_s else ():
            if subject.model.id not in journal.sustained:
                _sustained(manifest.sustained_s, subject, journal, progress, sustained_units)
            else:
                progress.advance(sustained_units)
        journal.append("end", **_conditions("after"))


def _load(manifest: Manifest, index: int, progress: _Progress) -> _Subject:
    model = manifest.models[index]
    with _explained(model):
        content = model.path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != model.sha256:
            raise MeasureError(f"content has sha256 {found[:12]}…, the manifest says {model.sha256[:12]}…")
        session = open_session(content, manifest.threads)
        inputs = random_inputs(session, np.random.default_rng([manifest.seed, index]))
    progress.advance()
    return _Subject(model, functools.partial(session.run, None, inputs))


def _timed_runs(subject: _Subject, count: int) -> list[int]:
    times_ns = []
    with _explained(subject.model):
        for _ in range(count):
            start_ns = time.perf_counter_ns()
            subject.run()
            times_ns.append(time.perf_counter_ns() - start_ns)
        if min(times_ns) <= 0:
            raise MeasureError("the clock of this machine did not advance during a run")
    return times_ns


def _warm_up(subject: _Subject, visit_ms: float, journal: _Journal) -> None:
    """Run for one visit's time, and fix how many runs a visit has, unless an earlier attempt did."""
    times_ns: list[int] = []
    end_ns = time.perf_counter_ns() + visit_ms * 1e6
    while not times_ns or time.perf_counter_ns() < end_ns:
        times_ns += _timed_runs(subject, MIN_RUNS)
    fitting = int(visit_ms * 1e6 / min(times_ns))
    subject.runs_per_visit = max(MIN_RUNS, journal.runs_per_visit.get(subject.model.id, fitting))


def _interleaved(manifest: Manifest, subjects: Sequence[_Subject], journal: _Journal, progress: _Progress) -> None:
    pause_s = manifest.spread_s / max(1, manifest.rounds - 1)
    due_s = time.monotonic()
    for number in range(manifest.rounds):
        # Seeded by round, so that a resumed round goes on in the same order.
        order = np.random.default_rng([manifest.seed, number]).permutation(len(subjects))
        waiting = [subjects[index] for index in order if (number, subjects[index].model.id) not in journal.visited]
        progress.advance(len(subjects) - len(waiting))
        if waiting:
            time.sleep(max(0.0, due_s - time.monotonic()))
            due_s += pause_s
        for subject in waiting:
            times_ns = _timed_runs(subject, subject.runs_per_visit)
            figures = {"runs": len(times_ns), "min_ns": min(times_ns), "median_ns": round(float(np.median(times_ns)))}
            journal.append("visit", round=number, id=subject.model.id, **figures)
            progress.advance()


def _sustained(seconds: float, subject: _Subject, journal: _Journal, progress: _Progress, units: int) -> None:
    times_ns: list[int] = []
    start_s = time.perf_counter()
    duration_s, told = 0.0, 0
    while duration_s < seconds:
        times_ns += _timed_runs(subject, subject.runs_per_visit)
        duration_s = time.perf_counter() - start_s
        passed = min(units, int(units * duration_s / seconds))
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
        measure(read_manifest(paths.manifest), paths.results, lambda done, total: _say(done=done, total=total))
    except MeasureError as error:
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
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
