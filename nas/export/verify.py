"""Is an exported network still what it was? Told from its folder alone, and from images where there are any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from nas.data import ImageData, SplitName
from nas.devices import Precision, parse_device
from nas.export import onnx_file
from nas.export.latency import measure_models
from nas.export.record import CONFIG_FILE, FORMATS, PARITY_LIMIT, ExportedFile, ExportedModel
from nas.files import read_text, sha256_bytes, sha256_file
from nas.progress import Progress, no_progress
from nas.run import is_here
from nas.runtime import MeasureError, open_session
from predictors.quality import standard_error
from search_spaces.errors import CheckError, InputError, MachineError, first_line

if TYPE_CHECKING:
    from nas.export.answers import Logits

_RUNS = ("model", "answers")
"""Checks without which a file cannot be measured."""

TestRead = Callable[[Precision, float], None]
"""Called with the precision and the accuracy of a file on the test split, so that the read is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        file: of which file.
        passed: whether it holds; None where nothing was promised, or it could not be looked at.
        found: in a few words.
    """

    name: str
    file: str
    passed: bool | None
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All checks of a folder."""

    folder: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """Those that do not hold."""
        return tuple(each for each in self.checks if each.passed is False)


def verify_export(
    directory: Path,
    record: ExportedModel,
    *,
    data: ImageData | None = None,
    test: bool = False,
    count: TestRead | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Verification:
    """Check hashes, models, answers, accuracy and latency of an exported network.

    Programs of torch (``.pt2``) are hashed and never loaded: their loader unpickles.

    Args:
        directory: the folder, whose files are not trusted.
        record: that of the folder.
        data: images to count on; those that the record names must give its accuracies.
        test: count on the test split, too.
        count: told of every read of the test split.
        seed: of the measurement.
        progress: told of the files that are done.

    Raises:
        InputError: the images are not of the network's classes or channels.
        MachineError: a file cannot be read, or the device failed.
    """
    if data is not None:
        _require_fitting(data, record)
    checks: list[Check] = []
    intact: list[ExportedFile] = []
    for done, file in enumerate(record.files):
        progress(done, len(record.files) + 1)
        whole = _hash(directory, file)
        checks.append(whole)
        if whole.passed:
            sound = list(_of_file(directory, file, record, data, test=test, count=count))
            checks += sound
            intact += [file] if all(each.passed is not False for each in sound if each.name in _RUNS) else []
    progress(len(record.files), len(record.files) + 1)
    checks += _latencies(directory, record, [each for each in intact if FORMATS[each.format].is_onnx], seed)
    progress(len(record.files) + 1, len(record.files) + 1)
    return Verification(folder=str(directory), checks=tuple(checks))


def _require_fitting(data: ImageData, record: ExportedModel) -> None:
    if (data.channels, data.class_names) != (len(record.preprocessing.mean), record.class_names):
        raise InputError(
            f"{data.name} has {data.channels} channels and {len(data.class_names)} classes that are not those of the "
            f"network, which has {len(record.preprocessing.mean)} and {len(record.class_names)}"
        )


def _hash(directory: Path, file: ExportedFile) -> Check:
    path = directory / file.file
    if not path.is_file():
        return Check(name="hash", file=file.file, passed=False, found="the file is missing")
    found = sha256_file(path)
    told = f"SHA-256 {found[:16]}…" + ("" if found == file.sha256 else f", exported was {file.sha256[:16]}…")
    return Check(name="hash", file=file.file, passed=found == file.sha256, found=told)


def _of_file(
    directory: Path,
    file: ExportedFile,
    record: ExportedModel,
    data: ImageData | None,
    *,
    test: bool,
    count: TestRead | None,
) -> Iterator[Check]:
    path = directory / file.file
    if file.format == "pt2":
        yield Check(name="answers", file=file.file, passed=None, found="not loaded: the loader of pt2 files unpickles")
    elif file.format == "safetensors":
        yield _weights(path, file, record)
    else:
        try:
            session = _session(path, record)
        except CheckError as error:
            yield Check(name="model", file=file.file, passed=False, found=str(error))
            return
        yield Check(name="model", file=file.file, passed=True, found="onnx.checker's full check, and its own metadata")
        yield (answers := _answers(session, file, record))
        if data is not None and answers.passed:
            yield from _accuracies(session, file, record, data, test=test, count=count)


def _session(path: Path, record: ExportedModel) -> Any:
    """Return a session of an exported ONNX file; raises `CheckError` if it is not one of this record."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, which has several without a base of their own
        raise CheckError(f"no ONNX model: {first_line(error)}") from error
    onnx_file.check(model)
    try:
        said = onnx_file.read_metadata(model)
        of = (said["architecture"]["id"], said["weights"]["hash"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckError("its metadata do not tell of a network") from None
    if of != (record.candidate.id, record.weights_hash):
        raise CheckError(f"its metadata tell of network {of[0]} with weights {of[1]}")
    try:
        return open_session(model.SerializeToString())
    except MeasureError as error:
        raise CheckError(f"ONNX Runtime does not take it: {error}") from None


def _answers(session: Any, file: ExportedFile, record: ExportedModel) -> Check:
    from nas.export.answers import distance, file_logits

    try:
        found = file_logits(session, record.preprocessing.probes(), record.preprocessing)
    except Exception as error:  # noqa: BLE001 - the runtime has many, for a model that is not what its record says
        return Check(name="answers", file=file.file, passed=False, found=f"it does not run: {first_line(error)}")
    return _as_recorded(file, record, found, distance)


def _as_recorded(
    file: ExportedFile, record: ExportedModel, found: Logits, distance: Callable[[Logits, Logits], float]
) -> Check:
    answers = {each: np.array(rows, dtype=np.float32) for each, rows in record.answers.items()}
    known = answers[file.precision]
    # Kernels of 8 bits differ between processors: no more than 8 bits differ from floats.
    allowed = max(PARITY_LIMIT * max(1.0, float(np.abs(known).max())), distance(known, answers["fp32"]))
    apart = distance(found, known) if found.shape == known.shape else float("nan")
    return Check(
        name="answers",
        file=file.file,
        passed=apart <= allowed,
        found=f"logits to {len(known)} made-up images within {apart:.1e} of those at export, allowed {allowed:.0e}",
    )


def _weights(path: Path, file: ExportedFile, record: ExportedModel) -> Check:
    """Return whether weights and their description make a network that answers as the exported one did."""
    from nas.export.answers import distance, torch_logits
    from nas.export.torch_file import rebuilt

    try:
        described, steps = read_text(path.with_name(CONFIG_FILE)), record.preprocessing
        if sha256_bytes(described.encode()) != record.config_sha256:
            raise InputError(f"{CONFIG_FILE} is not what was exported: its SHA-256 is another")
        shape, classes = (len(steps.mean), *steps.size), len(record.class_names)
        network = rebuilt(described, path.read_bytes(), shape=shape, classes=classes, source=CONFIG_FILE)
        found = torch_logits(network, steps.normalised(steps.probes()))
    except (InputError, RuntimeError) as error:
        return Check(name="answers", file=file.file, passed=False, found=first_line(error))
    return _as_recorded(file, record, found, distance)


def _accuracies(
    session: Any,
    file: ExportedFile,
    record: ExportedModel,
    data: ImageData,
    *,
    test: bool,
    count: TestRead | None,
) -> Iterator[Check]:
    from nas.export.answers import data_logits

    same = data.content_hash == record.data.content_hash
    promised: dict[SplitName, tuple[float, float]] = {
        "validation": (file.validation_accuracy, file.validation_standard_error),
        "test": (file.test_accuracy, file.test_standard_error),
    }
    for split in ("validation", *(("test",) if test else ())):
        part = data.split(split)
        accuracy = float(
            np.mean(data_logits(session, part.images, data, record.preprocessing).argmax(axis=1) == part.labels)
        )
        if split == "test" and count is not None:
            count(file.precision, accuracy)
        before, error = promised[split]
        error = error if same else standard_error(accuracy, len(part.labels))
        then = f", at export {100 * before:.1f} %" if same else f" of {data.name}, which the record does not name"
        yield Check(
            name=f"{split} accuracy",
            file=file.file,
            passed=abs(accuracy - before) <= error if same else None,
            found=f"{100 * accuracy:.1f} ± {100 * error:.1f} %{then} ({len(part.labels)} images)",
        )


def _latencies(directory: Path, record: ExportedModel, files: list[ExportedFile], seed: int) -> Iterator[Check]:
    if not files:
        return
    try:
        device = parse_device(record.device)
        if not is_here(device) or device.obstacle:
            raise InputError(f"{device.name} is not here")
        models = {each.format: onnx.load(directory / each.file, load_external_data=False) for each in files}
        latency_ms, fingerprint = measure_models(models, device, record.budget_at, seed)
    except (InputError, MachineError) as error:
        yield Check(name="latency", file=files[0].file, passed=None, found=f"not measured: {first_line(error)}")
        return
    same = record.fingerprint is not None and fingerprint.hash == record.fingerprint.hash
    for file in files:
        found_ms = latency_ms[file.format]
        budget_ms = record.budget_ms if file.format == record.main.format else None
        then = "" if file.latency_ms is None else f", at export {file.latency_ms:.4g} ms"
        budget = "" if budget_ms is None else f", budget {budget_ms:.4g} ms"
        where = "" if same else "; under other conditions than at export"
        yield Check(
            name="latency",
            file=file.file,
            passed=found_ms <= budget_ms if same and budget_ms is not None else None,
            found=f"{found_ms:.4g} ms on {device.name}{then}{budget}{where}",
        )
