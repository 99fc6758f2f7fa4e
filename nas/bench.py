"""Latency of any ONNX files on a device, foreign ones too, by the same protocol that fills a lookup table."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nas.budget import Statistic
from nas.devices import Device, Fingerprint, Measurement, ModelFile
from nas.files import sha256_file
from nas.lut_plan import whole_network
from nas.progress import Progress, no_progress
from search_spaces.errors import InputError

SPREAD_S = 5.0
"""The rounds take at least this long together, so that a short disturbance cannot touch all rounds of a lone file."""

SUSTAINED_S = 5.0
"""How long each file runs back to back for its percentiles."""

_STEPS = 1000


def sustained_s(at: Statistic) -> float:
    """Return how long a file runs back to back for a statistic of running."""
    return 0.0 if at == "min" else SUSTAINED_S


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """Latency of one file.

    Attributes:
        file: the path as it was given.
        latency_ms: lower quartile of interleaved rounds.
        noise_percent: how far the figures of the even and of the odd rounds are apart, relative to `latency_ms`.
        p50_ms: median of a sustained run in a process of its own.
        p90_ms: 90th percentile of that run.
        runs: how many runs the percentiles rest on.
    """

    file: str
    latency_ms: float
    noise_percent: float
    p50_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Latencies of some files, in the order in which they were given, and the device they were measured on."""

    device: str
    fingerprint: Fingerprint
    rows: tuple[BenchRow, ...]

    def to_json(self) -> dict[str, object]:
        """Return the report as a plain value.

        Keys: ``device`` (its name), ``fingerprint_hash``, ``fingerprint`` (the fields of `Fingerprint`), and
        ``models``, a list with the fields of `BenchRow`: ``file``, ``latency_ms``, ``noise_percent``, ``p50_ms``,
        ``p90_ms``, ``runs``.
        """
        return {
            "device": self.device,
            "fingerprint_hash": self.fingerprint.hash,
            "fingerprint": asdict(self.fingerprint),
            "models": [asdict(row) for row in self.rows],
        }


def bench_files(
    paths: Sequence[Path],
    *,
    device: Device,
    sustained_s: float | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> BenchReport:
    """Measure ONNX files: all of them interleaved, then each one back to back in a process of its own.

    Args:
        paths: the files; one may be given twice. Symbolic input dimensions are 1.
        device: what to measure on.
        sustained_s: how long each file runs back to back for its percentiles; None is `SUSTAINED_S`.
        seed: of the inputs' values and of the orders.
        progress: called with thousandths of a stage; there is one stage for the rounds and one per file.

    Raises:
        InputError: no file is given, or one is missing or is not a model that the device can run.
        MachineError: the device failed.
    """
    if not paths:
        raise InputError("no file to measure: name at least one .onnx file")
    # Positions are the ids, since a file may be given twice.
    models = [whole_network(ModelFile(str(position), path, sha256_file(path))) for position, path in enumerate(paths)]
    stages = 1 + len(models)
    with tempfile.TemporaryDirectory(prefix="nas-bench-") as folder:
        interleaved = device.measure(
            models,
            spread_s=SPREAD_S,
            seed=seed,
            work_dir=Path(folder) / "rounds",
            progress=_stage(0, stages, progress),
        )
        rows = []
        for position, model in enumerate(models):
            alone = device.measure(
                [replace(model, sustained_s=SUSTAINED_S if sustained_s is None else sustained_s)],
                rounds=1,
                seed=seed,
                work_dir=Path(folder) / model.id,
                progress=_stage(1 + position, stages, progress),
            )
            rows.append(_row(paths[position], interleaved.measurements[position], alone.measurements[0]))
    return BenchReport(device=device.name, fingerprint=interleaved.fingerprint, rows=tuple(rows))


def _stage(index: int, stages: int, progress: Progress) -> Progress:
    """Return the progress function of one of several equal stages."""

    def report(done: int, total: int) -> None:
        progress(index * _STEPS + done * _STEPS // total, stages * _STEPS)

    return report


def _row(path: Path, interleaved: Measurement, alone: Measurement) -> BenchRow:
    sustained = alone.sustained
    assert sustained is not None, "a device left out the sustained run"
    return BenchRow(
        file=str(path),
        latency_ms=interleaved.latency_ms,
        noise_percent=interleaved.noise_percent,
        p50_ms=sustained.p50_ms,
        p90_ms=sustained.p90_ms,
        runs=sustained.runs,
    )
