"""This machine, measured with ONNX Runtime and one of its execution providers."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from nas import measure as core
from nas import runtime
from nas.devices.base import Fingerprint, MeasurementRun, Precision, slug_of, spell
from nas.devices.results import read_results
from nas.files import make_folder, write_atomic
from nas.measure import Manifest, ModelFile
from nas.progress import Progress, no_progress
from search_spaces.documents import canonical_json, decode, document
from search_spaces.errors import InputError, MachineError


@document
@dataclass(frozen=True)
class _Message:
    """One line of the measuring core's standard output."""

    done: int | None = None
    total: int | None = None
    error: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class LocalDevice:
    """This machine under an execution provider.

    Attributes:
        provider: a key of `nas.runtime.PROVIDERS`, which is the device's kind, too.
        threads: threads inside an operator; one is the default because two are not repeatable on a shared machine.
        precision: arithmetic of the networks of its table.
        batch: images that those take at a time.

    Raises:
        InputError: `threads` or `batch` is less than one.
    """

    provider: str
    threads: int = 1
    precision: Precision = "fp32"
    batch: int = 1

    def __post_init__(self) -> None:
        require_counts(self.threads, self.batch)

    @property
    def name(self) -> str:
        """See `nas.devices.Device`."""
        return spell(self.provider, self)

    @property
    def slug(self) -> str:
        """See `nas.devices.Device`."""
        return slug_of(self.name)

    @property
    def obstacle(self) -> str | None:
        """See `nas.devices.Device`. Found by opening a small model."""
        from nas.stitch import pointwise

        try:
            runtime.open_session(pointwise(8, 8).SerializeToString(), self.threads, self.provider)
        except (runtime.MeasureError, ImportError) as error:
            return str(error)
        return None

    def fingerprint(self) -> Fingerprint:
        """See `nas.devices.Device`."""
        described = runtime.describe_machine(self.threads, self.provider)
        return decode(Fingerprint, canonical_json(described), source="this machine")

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
        """See `nas.devices.Device`. Runs the measuring core in a new process, so that nothing else shares its state."""
        try:
            manifest = Manifest(
                models=tuple(replace(each, path=each.path.resolve()) for each in models),
                provider=self.provider,
                threads=self.threads,
                rounds=rounds,
                seed=seed,
                spread_s=spread_s,
            )
        except runtime.MeasureError as error:
            raise InputError(str(error)) from None
        manifest_path, results_path = work_dir / "manifest.json", work_dir / "results.jsonl"
        make_folder(work_dir)
        write_atomic(manifest_path, manifest.to_json())
        _run_core(manifest_path, results_path, progress)
        return read_results(results_path, manifest)


def require_counts(threads: int, batch: int) -> None:
    """Raise `InputError` for less than one thread or one image."""
    for name, value in (("threads", threads), ("batch", batch)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")


def _run_core(manifest: Path, results: Path, progress: Progress) -> None:
    """Run the measuring core as a script until it ends; it never outlives this call.

    Raises:
        InputError: the core refused a model or the results file.
        MachineError: the core failed or was killed.
    """
    # -P keeps files of the working directory from shadowing modules of the same names.
    command = [sys.executable, "-P", "-m", core.__name__, str(manifest.resolve()), str(results.resolve())]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            error = _follow(process.stdout, progress)
            status = process.wait()
        finally:
            process.kill()
        if status == 0:
            return
        if status == 2 and error:
            raise InputError(error)
        log.seek(0)
        last_words = log.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise MachineError(error or f"the measuring process {_ending(status)}; its last words: {last_words or 'none'}")


def _follow(output: IO[bytes] | None, progress: Progress) -> str | None:
    """Pass progress on until the output ends, and return the error message, if there was one."""
    assert output is not None
    error = None
    for line in output:
        message = decode(_Message, line, source="the measuring process")
        if message.error is not None:
            error = message.error
        elif message.done is not None and message.total is not None:
            progress(message.done, message.total)
    return error


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"failed with exit status {status}"
