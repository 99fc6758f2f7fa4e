"""A chosen subnet as files that stand alone: made, compared with the supernet, tested, measured, described, written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from nas.data import ImageData
from nas.devices import PRECISIONS, Fingerprint, Precision, parse_device
from nas.evaluate import SubnetEvaluator
from nas.export import about, onnx_file, torch_file
from nas.export.answers import Labelled, Logits, distance, file_logits, require_parity, torch_logits
from nas.export.int8 import MOST_LOST
from nas.export.latency import measure_models
from nas.export.making import Made, Subject, make_files, rebuilt, require_same_as_supernet
from nas.export.record import (
    CARD_FILE,
    CONFIG_FILE,
    DEVICE_FORMATS,
    FORMATS,
    RECORD_FILE,
    DataRecord,
    DeviceBudgetKept,
    ExportedFile,
    ExportedModel,
    Format,
    Preprocessing,
)
from nas.files import require_writable, sha256_bytes, write_folder
from nas.finetune import TunedNetwork
from nas.front import Candidate, Front
from nas.ledger import accuracy_evaluator
from nas.onnx_accuracy import Images, onnx_accuracy, onnx_logits
from nas.onnx_format import OPSET
from nas.progress import Notice, Progress, ignore, no_progress
from nas.run import is_here
from nas.runtime import open_session
from predictors.quality import standard_error
from search_spaces.documents import pretty_json
from search_spaces.errors import CheckError, InputError
from search_spaces.space import Architecture
from search_spaces.spec import NetworkSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to write of a network.

    Attributes:
        formats: that of the device's precision is always written, since it is what was searched for.
        dynamic_batch: whether the ONNX files take any number of images, not the device's.
        pixels: whether the ONNX files take bytes, ``uint8[n, height, width, channels]``, not normalised floats.
        most_lost: share of the search-validation images that an 8-bit file may lose.
    """

    formats: tuple[Format, ...] = ()
    dynamic_batch: bool = False
    pixels: bool = False
    most_lost: float = MOST_LOST

    def __post_init__(self) -> None:
        if not 0 <= self.most_lost <= 1:
            raise InputError(f"most_lost must be from 0 to 1, got {self.most_lost}")


_FILES = frozenset({*(entry.file for entry in FORMATS.values()), CONFIG_FILE, CARD_FILE, RECORD_FILE})
"""All that an export may write."""


def require_free(directory: Path, *, force: bool) -> None:
    """Raise `InputError` if a folder holds files of an export already, which are to be kept."""
    if not force and (there := sorted(name for name in _FILES if (directory / name).exists())):
        raise InputError(f"{directory} holds {', '.join(there)} already, kept; add --force to write the export anew")


def export_subnet(
    evaluator: SubnetEvaluator,
    front: Front,
    candidate: Candidate,
    *,
    directory: Path,
    options: ExportOptions | None = None,
    tuned: TunedNetwork | None = None,
    force: bool = False,
    seed: int = 0,
    progress: Progress = no_progress,
    notice: Notice = ignore,
) -> ExportedModel:
    """Write a candidate as files, with a record and a model card. This reads the test split.

    Args:
        evaluator: holds supernet, data and ledger.
        front: of the search that found the candidate.
        candidate: what to export.
        directory: where to write; made if missing.
        options: what to write; None is an ONNX file for the front's device.
        tuned: weights that take the place of those that the candidate inherits.
        force: replace an export that is there.
        seed: of the measurement.
        progress: told of the stages.
        notice: told of operators that stay in floats.

    Raises:
        InputError: the front was found with other weights, or there is an export already.
        CheckError: logits of supernet, extracted network and a file in floats differ by more than 1e-4, or a file does
            not pass `onnx.checker`'s full check; an 8-bit file loses more than it may, or has another accuracy than the
            search saw.
        MachineError: the files cannot be written, or the device failed.
    """
    if front.supernet_hash != evaluator.supernet_hash:
        raise InputError(
            f"the front was found with supernet {front.supernet_hash}, this run's is {evaluator.supernet_hash}; "
            "run `nas search` again"
        )
    require_free(directory, force=force)
    require_writable(directory)  # before the test split is read for nothing
    job = _job(evaluator, front, candidate, options or ExportOptions(), tuned)
    progress(0, _STAGES)
    if tuned is None:
        supernet = evaluator.calibrated_supernet(job.spec)
        require_same_as_supernet(job.subject, lambda images: supernet(images, job.spec))
    progress(1, _STAGES)
    made = make_files(job.subject, job.formats, notice=notice)
    _require_as_searched(job, made)
    progress(2, _STAGES)
    measured = _measured(job, made, seed)
    progress(3, _STAGES)
    files = _tested(job, made, measured)
    progress(4, _STAGES)
    record = _record(job, files, made, measured)
    record, contents = _described(job, record, made)
    write_folder(directory, contents, last=RECORD_FILE, stale=_FILES - contents.keys())
    progress(_STAGES, _STAGES)
    return record


_STAGES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One export: what all its stages know."""

    evaluator: SubnetEvaluator
    front: Front
    candidate: Candidate
    options: ExportOptions
    spec: NetworkSpec
    formats: tuple[Format, ...]
    weights_hash: str
    finetuned: bool
    subject: Subject


def _job(
    evaluator: SubnetEvaluator,
    front: Front,
    candidate: Candidate,
    options: ExportOptions,
    tuned: TunedNetwork | None,
) -> _Job:
    data, device = evaluator.data, parse_device(front.device)
    architecture = Architecture(space_hash=front.space_hash, genes=candidate.genes)
    spec = evaluator.space.lower(evaluator.space.genome(architecture))
    network = tuned.network if tuned else evaluator.calibrated(spec)
    split = data.split("validation")
    images = data.normalise(split.images)
    own = DEVICE_FORMATS[device.precision]
    return _Job(
        evaluator=evaluator,
        front=front,
        candidate=candidate,
        options=options,
        spec=spec,
        formats=(own, *(each for each in options.formats if each != own)),
        weights_hash=tuned.weights_hash if tuned else evaluator.supernet_hash,
        finetuned=tuned is not None,
        subject=Subject(
            network=network,
            data=data,
            calibration=evaluator.calibration_images,
            validation=Labelled(images, split.labels, torch_logits(network, images)),
            steps=preprocessing(data, spec, in_graph=options.pixels),
            batch=None if options.dynamic_batch else device.batch,
            most_lost=options.most_lost,
        ),
    )


def _require_as_searched(job: _Job, made: Mapping[Format, Made]) -> None:
    """Raise `CheckError` if the file of an 8-bit device does not have the accuracy that the search saw."""
    main, candidate = made[job.formats[0]], job.candidate
    if main.precision == "fp32" or main.in_floats or job.finetuned:
        return
    if not abs(main.accuracy - candidate.validation_accuracy) <= candidate.validation_standard_error:
        raise CheckError(
            f"the network was not exported: quantised, it has {100 * main.accuracy:.1f} % of the search-validation "
            f"images right, and had {100 * candidate.validation_accuracy:.1f} % in the search; was that of another "
            "version of ONNX Runtime?"
        )


@dataclass(frozen=True, slots=True)
class _Measured:
    """Latencies by device and format, and what the first device of the front is, if it is here."""

    latency_ms: Mapping[tuple[str, Format], float]
    fingerprint: Fingerprint | None


def _measured(job: _Job, made: Mapping[Format, Made], seed: int) -> _Measured:
    """Return how fast the ONNX files are on the front's devices that are here."""
    latency_ms: dict[tuple[str, Format], float] = {}
    fingerprint = None
    models = {name: each.model for name, each in made.items() if each.model is not None}
    for device in filter(is_here, (parse_device(each.device) for each in job.front.devices)):
        # The search chose by measurements, so these are not those that it chose by.
        found, found_on = measure_models(models, device, job.front.budget_at, seed)
        latency_ms |= {(device.name, name): ms for name, ms in found.items()}
        fingerprint = found_on if device.name == job.front.device else fingerprint
    return _Measured(latency_ms, fingerprint)


def _tested(job: _Job, made: Mapping[Format, Made], measured: _Measured) -> tuple[ExportedFile, ...]:
    """Return what is known of each file, after a look at the test split for each precision."""
    images = {"validation": job.subject.data.split("validation"), "test": job.subject.data.split("test")}
    normalised, ledger = job.subject.data.normalise(images["test"].images), job.evaluator.ledger
    test: dict[Precision, float] = {}
    for each in made.values():
        if each.precision not in test:
            test[each.precision] = onnx_accuracy(each.session, normalised, images["test"].labels)
            name = accuracy_evaluator(job.weights_hash, "test", each.precision)
            genes, read_by = job.candidate.genes, {"read_by": "export"}
            ledger.record(name, job.evaluator.space.hash, genes, test[each.precision], read_by)
    return tuple(
        ExportedFile(
            format=name,
            file=FORMATS[name].file,
            sha256="",
            size_bytes=0,
            precision=each.precision,
            parity=each.parity,
            agreement=each.agreement,
            in_floats=each.in_floats,
            validation_accuracy=each.accuracy,
            validation_standard_error=standard_error(each.accuracy, len(images["validation"].labels)),
            test_accuracy=test[each.precision],
            test_standard_error=standard_error(test[each.precision], len(images["test"].labels)),
            latency_ms=measured.latency_ms.get((job.front.device, name)),
        )
        for name, each in made.items()
    )


def _record(
    job: _Job, files: tuple[ExportedFile, ...], made: Mapping[Format, Made], measured: _Measured
) -> ExportedModel:
    """Return the record, but for the hashes and sizes of files."""
    evaluator, front, data = job.evaluator, job.front, job.subject.data
    budgets = {each.device: each.budget_ms for each in front.devices}
    kept = {device: ms for (device, name), ms in measured.latency_ms.items() if name == job.formats[0]}
    probes = _probes(job)
    answers: dict[Precision, Logits] = {"fp32": torch_logits(job.subject.network, probes)}
    answers |= {each.precision: onnx_logits(each.session, probes) for each in made.values()}
    reads = (evaluator.ledger.count(accuracy_evaluator(job.weights_hash, "test", each)) for each in PRECISIONS)
    return ExportedModel(
        format_version=ExportedModel.CURRENT_VERSION,
        files=files,
        candidate=job.candidate,
        space=evaluator.space.name,
        space_hash=evaluator.space.hash,
        supernet_hash=evaluator.supernet_hash,
        weights_hash=job.weights_hash,
        finetuned=job.finetuned,
        device=front.device,
        fingerprint=measured.fingerprint,
        batch=job.subject.batch,
        opset=OPSET,
        budget_ms=budgets[front.device],
        budget_at=front.budget_at,
        most_lost=job.options.most_lost,
        data=DataRecord(
            name=about.without_folders(data.name),
            content_hash=data.content_hash,
            resolution=data.resolution,
            validation_images=len(data.split("validation").labels),
            test_images=len(data.split("test").labels),
        ),
        preprocessing=job.subject.steps,
        class_names=data.class_names,
        test_reads=sum(reads),
        latency_ms=kept.get(front.device),
        others=tuple(
            DeviceBudgetKept(device=device, budget_ms=budgets[device], latency_ms=ms)
            for device, ms in kept.items()
            if device != front.device
        ),
        inside_budget=all(ms <= (budgets[device] or math.inf) for device, ms in kept.items()),
        config_sha256=None,
        answers={each: tuple(tuple(row) for row in logits.tolist()) for each, logits in answers.items()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _described(
    job: _Job, record: ExportedModel, made: Mapping[Format, Made]
) -> tuple[ExportedModel, dict[str, bytes | str]]:
    """Return the record with hashes and sizes, and the content of every file by its name."""
    contents: dict[str, bytes | str] = {}
    written = []
    for file in record.files:
        content = _content(job, file, made[file.format], record)
        contents[file.file] = content
        written.append(replace(file, sha256=sha256_bytes(content), size_bytes=len(content)))
        if file.format == "safetensors":
            described = torch_file.config(job.subject.network, about.facts(record, file, job.evaluator.space))
            found = torch_logits(rebuilt(job.subject, described, content), _probes(job))
            require_parity(distance(found, _answers(record, file)), "network that its description makes")
            contents[CONFIG_FILE] = described
            record = replace(record, config_sha256=sha256_bytes(described.encode()))
    record = replace(record, files=tuple(written))
    return record, {**contents, CARD_FILE: about.model_card(record, job.spec), RECORD_FILE: pretty_json(record)}


def _probes(job: _Job) -> Images:
    return job.subject.steps.normalised(job.subject.steps.probes())


def _answers(record: ExportedModel, file: ExportedFile) -> Logits:
    return np.array(record.answers[file.precision], dtype=np.float32)


def _content(job: _Job, file: ExportedFile, made: Made, record: ExportedModel) -> bytes:
    """Return the bytes of a file, which now tells about itself."""
    said = about.metadata(record, file, job.evaluator.space)
    if file.format == "safetensors":
        prefixed = {f"{onnx_file.PREFIX}{key}": text for key, text in said.items()}
        return torch_file.weights(job.subject.network, prefixed)
    if made.model is None:
        return made.content
    onnx_file.describe(made.model, said)
    onnx_file.check(made.model)
    content: bytes = made.model.SerializeToString()
    # Once more, now the very bytes that are written.
    found = file_logits(open_session(content), job.subject.steps.probes(), job.subject.steps)
    require_parity(distance(found, _answers(record, file)), "ONNX file after it was described")
    return content


def preprocessing(data: ImageData, spec: NetworkSpec, *, in_graph: bool) -> Preprocessing:
    """Return how pictures become what a network takes."""
    _, height, width = spec.input_shape
    return Preprocessing(
        layout="NHWC" if in_graph else "NCHW",
        dtype="uint8" if in_graph else "float32",
        in_graph=in_graph,
        colour="grey" if data.channels == 1 else "RGB",
        resize=about.resizing(data.resolution, height),
        transparency="on white",
        size=(height, width),
        scale=1 / 255,
        mean=data.mean,
        std=data.std,
    )
