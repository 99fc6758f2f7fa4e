"""What a measuring device is, and the values it returns."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from nas.measure import ModelFile, halves_differ_percent, lower_quartile
from nas.progress import Progress, no_progress
from search_spaces.documents import content_hash, document

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")

_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0)]
_Index = Annotated[int, Field(ge=0)]


@document
@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a latency depends on besides the model. What could not be read on the device is None.

    Attributes:
        machine: instruction set family, such as ``x86_64``.
        cpu_model: name, family and stepping of the processor.
        isa_flags: instruction set extensions, sorted.
        cores: logical processors of the machine.
        affinity: logical processors that the measuring process may use.
        cpu_quota: how many cores' time a container limit allows.
        governor: frequency governor.
        turbo: whether the processor may exceed its base frequency.
        memory_gib: memory of the machine.
        system: operating system.
        kernel: its release.
        onnxruntime: version of ONNX Runtime.
        provider: execution provider.
        provider_options: how it is set up.
        threads: threads inside an operator.
        optimization_level: graph optimisation level of ONNX Runtime.
        allow_spinning: whether idle threads spin.
    """

    machine: str
    cpu_model: str | None
    isa_flags: tuple[str, ...]
    cores: _Count | None
    affinity: tuple[_Index, ...] | None
    cpu_quota: _Positive | None
    governor: str | None
    turbo: bool | None
    memory_gib: _Positive | None
    system: str
    kernel: str
    onnxruntime: str
    provider: str
    provider_options: dict[str, str]
    threads: _Count
    optimization_level: str
    allow_spinning: bool

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that are equal for equal fingerprints."""
        return content_hash(self)

    def differences(self, other: Fingerprint) -> list[str]:
        """Return the names of the fields in which two fingerprints differ, in field order."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@document
@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Circumstances of a measurement that do not identify the device; None is not known.

    Attributes:
        python: version of Python.
        numpy: version of numpy.
        load_before: one-minute load average when the measurement was started.
        load_max: the highest after any round.
        temperature_before_c: highest temperature sensor when the measurement was started.
        temperature_max_c: the highest after any round.
        clock_max_mhz: fastest clock of any processor after any round.
        clock_min_mhz: the slowest of those: far below the fastest, the device was throttled.
        started_unix_s: when the measurement was started.
        ended_unix_s: when it ended.
    """

    python: str | None = None
    numpy: str | None = None
    load_before: float | None = None
    load_max: float | None = None
    temperature_before_c: float | None = None
    temperature_max_c: float | None = None
    clock_max_mhz: float | None = None
    clock_min_mhz: float | None = None
    started_unix_s: float | None = None
    ended_unix_s: float | None = None


@document
@dataclass(frozen=True, kw_only=True)
class Sustained:
    """Latency of one model run back to back for a while.

    Attributes:
        p50_ms: median over the runs.
        p90_ms: 90th percentile over the runs.
        mean_ms: mean over the runs.
        runs: how many runs there were.
        duration_s: how long they took together.
    """

    p50_ms: _Positive
    p90_ms: _Positive
    mean_ms: _Positive
    runs: _Count
    duration_s: _Positive


@document
@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one model takes besides time.

    Attributes:
        file_mb: size of its file.
        memory_mb: what a process needs at most to load and run it, beyond the runtime itself; None where not told.
    """

    file_mb: _Positive
    memory_mb: _Positive | None


@document
@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Latency of one model over interleaved rounds.

    Attributes:
        id: the model's id.
        rounds_ms: minimum of each round, in the order of the rounds.
        slowness: how slow the machine was around each of those visits, by the models visited before and after,
            see `nas.devices.drift`; empty where it is not known.
        first_ms: first run of each round in which all models were visited, once the machine's ups and downs are taken
            out; where models are many, caches then hold nothing of this one.
        median_ms: median of the rounds' medians.
        p90_ms: median of the rounds' 90th percentiles.
        runs: timed runs in all rounds together.
        sustained: the run back to back, None when it was not asked for.
        footprint: size and memory, None when it was not asked for.
    """

    id: str
    rounds_ms: Annotated[tuple[_Positive, ...], Field(min_length=1)]
    first_ms: Annotated[tuple[_Positive, ...], Field(min_length=1)]
    slowness: tuple[_Positive, ...] = ()
    median_ms: _Positive
    p90_ms: _Positive
    runs: _Count
    sustained: Sustained | None = None
    footprint: Footprint | None = None

    @property
    def latency_ms(self) -> float:
        """The lower quartile of the steady rounds: the one figure that everything else in the toolkit uses."""
        return lower_quartile(self.steady_ms)

    @property
    def cold_ms(self) -> float:
        """The lower quartile of the first runs."""
        return lower_quartile(self.first_ms)

    @property
    def noise_percent(self) -> float:
        """How far the figures of even and odd rounds are apart, relative to `latency_ms`; 0 for a single round."""
        return halves_differ_percent(self.steady_ms)

    @property
    def steady_ms(self) -> tuple[float, ...]:
        """The rounds as they would have been had the machine always been equally fast."""
        if not self.slowness:
            return self.rounds_ms
        return tuple(each / slow for each, slow in zip(self.rounds_ms, self.slowness, strict=True))


@document
@dataclass(frozen=True, kw_only=True)
class MeasurementRun:
    """Latencies of several models that were measured together, and on what.

    Attributes:
        fingerprint: identifies the device.
        measurements: one per model, in the order in which the models were given.
        conditions: circumstances that do not identify the device.
    """

    fingerprint: Fingerprint
    measurements: tuple[Measurement, ...]
    conditions: Conditions = Conditions()


class Device(Protocol):
    """A target on which ONNX files are measured.

    An implementation is a frozen dataclass; its fields with a default are the options of the device's name.
    """

    @property
    def precision(self) -> Precision:
        """In which arithmetic the networks of its table are measured."""

    @property
    def batch(self) -> int:
        """With how many images at a time they are measured."""

    @property
    def obstacle(self) -> str | None:
        """Why this machine cannot measure on the device; None if it can."""

    @property
    def name(self) -> str:
        """The device as `nas.devices.parse_device` reads it, without options that have their default."""

    @property
    def slug(self) -> str:
        """The name as a part of a file name."""

    def fingerprint(self) -> Fingerprint:
        """Return what identifies the device now.

        Raises:
            MachineError: the device cannot be reached.
        """

    def measure(
        self,
        models: Sequence[ModelFile],
        *,
        rounds: int = 12,
        spread_s: float = 0.0,
        seed: int = 0,
        work_dir: Path,
        progress: Progress = no_progress,
    ) -> MeasurementRun:
        """Measure models in interleaved rounds, each visiting every model once in shuffled order.

        A measurement that was killed goes on where it stopped when it is asked for again with the same arguments; one
        that is complete is returned as it is. To measure anew, give another folder.

        Args:
            models: the files, with unique ids, and how long each runs back to back in a visit and after the rounds;
                symbolic dimensions are 1.
            rounds: how often each model is visited; those that disagree with themselves up to twice as often.
            spread_s: time over which the rounds are spread by pauses, if they take less.
            seed: of the inputs' values and of the orders.
            work_dir: folder of this one measurement; it is created when missing.
            progress: called with visits, loads and the like that are done, and their total.

        Raises:
            InputError: a model cannot be used, or `work_dir` holds another measurement.
            MachineError: the device failed.
        """


def options_of(device: Any) -> list[dataclasses.Field[Any]]:
    """Return the fields of a device, or of a class of devices, that are options of its name: those with a default."""
    return [field for field in dataclasses.fields(device) if field.default is not dataclasses.MISSING]


def spell(kind: str, device: Any) -> str:
    """Return a device's name: its registered kind and those options that differ from their default."""
    given = ((field.name, getattr(device, field.name), field.default) for field in options_of(device))
    options = [f"{name}={value}" for name, value, default in given if value != default]
    return kind + (":" + ",".join(options) if options else "")


def slug_of(name: str) -> str:
    """Return a device's name with everything but letters and digits turned into hyphens."""
    return re.sub("[^A-Za-z0-9]+", "-", name)
