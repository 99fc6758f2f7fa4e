"""A chosen subnet as one ONNX file that needs nothing of ours: checked, compared, described."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import torch

from nas.bench import sustained_s
from nas.budget import Statistic, measured_ms
from nas.devices import PRECISIONS, Device, ModelFile, Precision, parse_device
from nas.evaluate import SubnetEvaluator
from nas.files import make_folder, sha256_file, write_atomic
from nas.front import Candidate, Front
from nas.ledger import accuracy_evaluator
from nas.lut import STATISTIC
from nas.lut_plan import whole_network
from nas.onnx_accuracy import onnx_accuracy, onnx_logits
from nas.onnx_export import export_network
from nas.onnx_format import exporter_name
from nas.progress import Progress, no_progress
from nas.run import is_here
from nas.runtime import open_session
from predictors.quality import standard_error
from search_spaces.documents import canonical_json, document, pretty_json
from search_spaces.errors import CheckError, InputError, first_line
from search_spaces.space import Architecture
from search_spaces.spec import NetworkSpec

PARITY_LIMIT = 1e-4
_PARITY_IMAGES = 64
MODEL_FILE, RECORD_FILE = "model.onnx", "export.json"


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBudgetKept:
    """How fast an exported file is on one more device, and what the search allowed."""

    device: str
    budget_ms: float | None
    latency_ms: float


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """What stands beside an exported file.

    Attributes:
        file: name of the model in the same folder.
        sha256: of that file.
        parity: largest absolute difference of logits between supernet, extracted network and ONNX file.
        test_accuracy: of the ONNX file on the test split, in 0..1.
        test_reads: how often the test split has been read with this supernet, this time included.
        precision: of the file; accuracies are its own.
        batch: images at a time that it takes.
        latency_ms: of the file itself, measured after the search chose it, by the statistic of the budget; None where
            the device is another machine.
        others: the same on the other devices of the front; those of other machines are left out.
        inside_budget: whether all that was measured is within the budgets of the search, those that it had.
    """

    CURRENT_VERSION: ClassVar[int] = 3

    format_version: int
    file: str
    sha256: str
    candidate: Candidate
    space_hash: str
    supernet_hash: str
    device: str
    precision: Precision
    batch: int
    budget_ms: float | None
    budget_at: Statistic
    parity: float
    test_accuracy: float
    test_standard_error: float
    test_images: int
    test_reads: int
    latency_ms: float | None
    others: tuple[DeviceBudgetKept, ...]
    inside_budget: bool


def export_subnet(
    evaluator: SubnetEvaluator,
    front: Front,
    candidate: Candidate,
    *,
    directory: Path,
    seed: int,
    progress: Progress = no_progress,
) -> ExportedModel:
    """Write a candidate as ``model.onnx`` with ``export.json`` beside it. This is what reads the test split.

    Args:
        evaluator: holds supernet, data and ledger.
        front: of the search that found the candidate.
        candidate: what to export.
        directory: where to write; made if missing.
        seed: of the measurement.
        progress: told of the five stages: calibration, export, parity, test, measurement.

    Raises:
        InputError: the front was found with other weights.
        CheckError: outputs of supernet, extracted network and file differ by more than 1e-4, or the file does not
            pass `onnx.checker`'s full check; or a quantised one has another accuracy than the search saw.
        MachineError: the files cannot be written, or the device failed.
    """
    if front.supernet_hash != evaluator.supernet_hash:
        raise InputError(
            f"the front was found with supernet {front.supernet_hash}, this run's is {evaluator.supernet_hash}; "
            "run `nas search` again"
        )
    architecture = Architecture(space_hash=front.space_hash, genes=candidate.genes)
    spec = evaluator.space.lower(evaluator.space.genome(architecture))
    progress(0, 5)
    device = parse_device(front.device)
    network = evaluator.calibrated(spec)
    progress(1, 5)
    in_floats = export_network(network, batch=device.batch)
    model = in_floats if device.precision == "fp32" else evaluator.quantized(spec, batch=device.batch)
    _check(model)
    progress(2, 5)
    session = open_session(model.SerializeToString())
    parity = _parity(evaluator, spec, network, open_session(in_floats.SerializeToString()))
    if device.precision != "fp32":
        _require_same_accuracy(evaluator, candidate, session)
    progress(3, 5)
    test = evaluator.data.split("test")
    test_accuracy = onnx_accuracy(session, evaluator.data.normalise(test.images), test.labels)
    name = evaluator.ledger_name("test")
    evaluator.ledger.record(name, evaluator.space.hash, candidate.genes, test_accuracy, {"read_by": "export"})
    progress(4, 5)
    budgets = {each.device: each.budget_ms for each in front.devices}
    here = [each for each in map(parse_device, budgets) if is_here(each)]
    latencies = {each.name: _measure(model, each, front.budget_at, seed) for each in here}
    latency_ms = latencies.get(device.name)
    _describe(model, _metadata(evaluator, architecture, front, candidate, test_accuracy, latency_ms))
    _check(model)
    content = model.SerializeToString()
    if device.precision == "fp32":
        # Once more, now on the very bytes that are written.
        parity = _parity(evaluator, spec, network, open_session(content))
    make_folder(directory)
    path = directory / MODEL_FILE
    write_atomic(path, content)
    progress(5, 5)
    record = ExportedModel(
        format_version=ExportedModel.CURRENT_VERSION,
        file=MODEL_FILE,
        sha256=sha256_file(path),
        candidate=candidate,
        space_hash=evaluator.space.hash,
        supernet_hash=evaluator.supernet_hash,
        device=device.name,
        precision=device.precision,
        batch=device.batch,
        budget_ms=front.budget_ms,
        budget_at=front.budget_at,
        parity=parity,
        test_accuracy=test_accuracy,
        test_standard_error=standard_error(test_accuracy, len(test.labels)),
        test_images=len(test.labels),
        test_reads=sum(
            evaluator.ledger.count(accuracy_evaluator(evaluator.supernet_hash, "test", each)) for each in PRECISIONS
        ),
        latency_ms=latency_ms,
        others=tuple(
            DeviceBudgetKept(device=name, budget_ms=budgets[name], latency_ms=latencies[name])
            for name in latencies
            if name != device.name
        ),
        inside_budget=all(ms <= (budgets[name] or math.inf) for name, ms in latencies.items()),
    )
    write_atomic(directory / RECORD_FILE, pretty_json(record))
    return record


@torch.inference_mode()
def _parity(evaluator: SubnetEvaluator, spec: NetworkSpec, network: torch.nn.Module, session: Any) -> float:
    """Return the largest difference of logits on real images, or raise `CheckError`."""
    images = evaluator.data.normalise(evaluator.data.split("validation").images[:_PARITY_IMAGES])
    batch = torch.from_numpy(images)
    of_supernet = evaluator.calibrated_supernet(spec)(batch, spec).numpy()
    extracted = network(batch).numpy()
    of_file = onnx_logits(session, images)
    parity = float(max(np.abs(of_supernet - extracted).max(), np.abs(extracted - of_file).max()))
    if not parity <= PARITY_LIMIT:
        raise CheckError(
            f"the network was not exported: supernet, extracted network and ONNX file differ by {parity:.1e}, "
            f"allowed is {PARITY_LIMIT:.0e}"
        )
    return parity


def _require_same_accuracy(evaluator: SubnetEvaluator, candidate: Candidate, session: Any) -> None:
    """Raise `CheckError` if a quantised file does not have the accuracy that the search saw."""
    split = evaluator.data.split("validation")
    found = onnx_accuracy(session, evaluator.data.normalise(split.images), split.labels)
    if not abs(found - candidate.validation_accuracy) <= candidate.validation_standard_error:
        raise CheckError(
            f"the network was not exported: quantised, it has {100 * found:.1f} % of the search-validation images "
            f"right, and had {100 * candidate.validation_accuracy:.1f} % in the search; was that of another version of "
            "ONNX Runtime?"
        )


def _measure(model: onnx.ModelProto, device: Device, at: Statistic, seed: int) -> float:
    """Return the latency of the file itself: the search chose by measurements, so this one was not chosen by."""
    with tempfile.TemporaryDirectory(prefix="nas-export-") as folder:
        path = Path(folder) / MODEL_FILE
        write_atomic(path, model.SerializeToString())
        file = whole_network(ModelFile(MODEL_FILE, path, sha256_file(path), sustained_s=sustained_s(at)))
        run = device.measure([file], spread_s=2.0, seed=seed, work_dir=Path(folder) / "measuring")
    return measured_ms(run.measurements[0], at)


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckError(f"the exported file fails onnx.checker: {first_line(error)}") from None


def _metadata(
    evaluator: SubnetEvaluator,
    architecture: Architecture,
    front: Front,
    candidate: Candidate,
    test_accuracy: float,
    latency_ms: float | None,
) -> dict[str, str]:
    """Return what the file says about itself, as JSON texts by key."""
    data, space = evaluator.data, evaluator.space
    spec = space.lower(space.genome(architecture))
    fields: dict[str, object] = {
        "architecture": {"id": architecture.id, "genes": space.decode(space.genome(architecture))},
        "space": {"name": space.name, "hash": space.hash},
        "accuracy": {
            "data": _without_folders(data.name),
            "precision": evaluator.precision,
            "validation": candidate.validation_accuracy,
            "validation_standard_error": candidate.validation_standard_error,
            "test": test_accuracy,
            "test_standard_error": standard_error(test_accuracy, len(data.split("test").labels)),
        },
        "latency_ms": {
            "predicted": candidate.predicted_latency_ms,
            "measured": latency_ms,
            "budget": front.budget_ms,
            "statistic": STATISTIC if front.budget_at == "min" else f"{front.budget_at} of running back to back",
            "batch": parse_device(front.device).batch,
        },
        "device": {"name": front.device, "fingerprint_hash": front.fingerprint_hash},
        "cost": {"params": candidate.params, "macs": candidate.macs},
        "preprocessing": {
            "layout": "NCHW",
            "colour": "grey" if data.channels == 1 else "RGB",
            "resize": _resize(data.resolution, spec.input_shape[1]),
            "transparency": "on white",
            "size": list(spec.input_shape[1:]),
            "scale": 1 / 255,
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "class_names": list(data.class_names),
        "versions": {"paretonas": version("paretonas"), "exporter": exporter_name(), "torch": torch.__version__},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": "made with paretonas (Apache-2.0); the weights come under the terms of the training data",
    }
    return {key: value if isinstance(value, str) else canonical_json(value) for key, value in fields.items()}


def _resize(prepared: int, taken: int) -> str:
    """Return how images come to the side that the network takes, as those did that its accuracy is of."""
    steps = f"shorter side to {prepared}, bilinear with antialiasing; then the centre square"
    return steps if taken == prepared else f"{steps}; then to {taken}, bilinear with antialiasing"


def _without_folders(data: str) -> str:
    """Return a data set's name for others to read: where its images lie on this machine is nobody's business."""
    source, _, path = data.partition(":")
    return f"{source}:{Path(path).name}" if path else source


def _describe(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Replace the model's own metadata by ours; the exporter's notes hold paths of this machine."""
    model.producer_name = "paretonas"
    model.producer_version = version("paretonas")
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=f"paretonas.{key}", value=value)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def read_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """Return the metadata of an exported model, parsed; keys without their prefix."""
    result: dict[str, Any] = {}
    for entry in model.metadata_props:
        if entry.key.startswith("paretonas."):
            plain = entry.value.startswith(("{", "["))
            result[entry.key.removeprefix("paretonas.")] = json.loads(entry.value) if plain else entry.value
    return result
