"""Exported files: checked against the supernet, whole in themselves, described, and free of traces of this machine."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from nas.devices import LocalDevice
from nas.evaluate import SubnetEvaluator
from nas.export import FORMATS, RECORD_FILE, ExportedModel, onnx_file
from nas.export.onnx_file import read_metadata
from nas.export.record import CARD_FILE, PARITY_LIMIT
from nas.files import read_document, sha256_file
from nas.front import Candidate, Front
from nas.lut import STATISTIC
from nas.run import Run
from nas.runtime import open_session
from nas.supernet import Supernet
from predictors.quality import standard_error
from search_spaces.spec import NetworkSpec
from tests.command_line import Stage, nas_here, refusal, succeed
from tests.source_tree import ROOT, WHEEL_PACKAGES, source_files

MODEL_FILE = FORMATS["onnx"].file


@pytest.fixture(scope="module")
def front(searched_run: Path) -> Front:
    return Run.existing(searched_run, first="nas train").front()


@pytest.fixture(scope="module")
def model_path(export_stage: Stage) -> Path:
    return Path(export_stage.finished.json["path"])


@pytest.fixture(scope="module")
def model(model_path: Path) -> onnx.ModelProto:
    return onnx.load(model_path)


@pytest.fixture(scope="module")
def record(model_path: Path) -> ExportedModel:
    return read_document(model_path.with_name(RECORD_FILE), ExportedModel)


@pytest.fixture(scope="module")
def evaluator(searched_run: Path) -> SubnetEvaluator:
    """For reading only: no accuracy is asked for."""
    return Run.existing(searched_run, first="nas train").evaluator()


def test_the_best_network_is_one_file_and_its_record(model_path: Path, record: ExportedModel, front: Front) -> None:
    assert {path.name for path in model_path.parent.iterdir()} == {MODEL_FILE, RECORD_FILE, CARD_FILE}
    assert model_path.parent.name == front.best.id
    assert record.candidate == front.best
    assert record.main.sha256 == sha256_file(model_path)
    assert record.supernet_hash == front.supernet_hash
    assert record.budget_ms is not None
    assert record.latency_ms is not None
    assert record.inside_budget == (record.latency_ms <= record.budget_ms == front.budget_ms)
    assert 0 <= record.main.parity <= PARITY_LIMIT == 1e-4


def test_the_file_passes_the_full_check_and_holds_its_weights(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert not [each.name for each in model.graph.initializer if each.external_data]


def test_nothing_is_left_of_the_supernet(model: onnx.ModelProto, record: ExportedModel) -> None:
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Slice", "BatchNormalization", "Dropout", "Identity"}
    weights = [numpy_helper.to_array(each) for each in model.graph.initializer]
    numbers = sum(weight.size for weight in weights if weight.dtype == np.float32)
    # Folded batch norms are fewer numbers than learned ones; weights of a larger network would be more.
    assert 0.9 * record.candidate.params < numbers <= record.candidate.params


def test_the_file_computes_what_supernet_and_extracted_network_compute(
    model_path: Path, front: Front, evaluator: SubnetEvaluator
) -> None:
    spec = evaluator.space.lower(np.array(front.best.genes, dtype=np.int16))
    images = evaluator.data.normalise(evaluator.data.split("validation").images[64:96])
    session = open_session(model_path)
    of_file = np.concatenate([session.run(None, {"input": image[None]})[0] for image in images])
    with torch.inference_mode():
        of_network = evaluator.calibrated(spec)(torch.from_numpy(images)).numpy()
        of_supernet = evaluator.calibrated_supernet(spec)(torch.from_numpy(images), spec).numpy()
    assert np.abs(of_file - of_network).max() <= PARITY_LIMIT
    assert np.abs(of_file - of_supernet).max() <= PARITY_LIMIT


def test_the_recorded_test_accuracy_is_that_of_the_file(
    model_path: Path, record: ExportedModel, evaluator: SubnetEvaluator
) -> None:
    test = evaluator.data.split("test")
    session = open_session(model_path)
    images = evaluator.data.normalise(test.images)
    predicted = [int(session.run(None, {"input": image[None]})[0].argmax()) for image in images]
    assert record.main.test_accuracy == np.mean(np.array(predicted) == test.labels)
    assert record.data.test_images == len(test.labels)
    assert record.main.test_standard_error == standard_error(record.main.test_accuracy, record.data.test_images)


def test_the_metadata_say_everything_that_is_needed_to_use_the_file(
    model: onnx.ModelProto, record: ExportedModel, front: Front, evaluator: SubnetEvaluator
) -> None:
    metadata = read_metadata(model)
    assert metadata.keys() == {
        "accuracy",
        "architecture",
        "class_names",
        "cost",
        "created",
        "device",
        "latency_ms",
        "licence",
        "preprocessing",
        "space",
        "versions",
        "weights",
    }
    assert all(entry.key.startswith("paretonas.") for entry in model.metadata_props)
    best, space = front.best, evaluator.space
    genes = space.decode(np.array(best.genes, dtype=np.int16))
    assert metadata["architecture"] == {"id": best.id, "genes": genes}
    assert metadata["space"] == {"name": "tiny", "hash": space.hash}
    assert metadata["accuracy"]["validation"] == best.validation_accuracy
    assert metadata["accuracy"]["test"] == record.main.test_accuracy
    latency = metadata["latency_ms"]
    assert (latency["predicted"], latency["measured"]) == (best.predicted_latency_ms, record.latency_ms)
    assert (latency["budget"], latency["statistic"], latency["batch"]) == (front.budget_ms, STATISTIC, 1)
    assert metadata["device"] == {"name": "cpu", "fingerprint_hash": LocalDevice("cpu").fingerprint().hash}
    assert metadata["cost"] == {"params": best.params, "macs": best.macs}
    assert metadata["class_names"] == list("0123456789")
    preprocessing = metadata["preprocessing"]
    assert (preprocessing["layout"], preprocessing["colour"]) == ("NCHW", "grey")
    assert preprocessing["size"] == [evaluator.data.resolution] * 2
    assert preprocessing["scale"] == pytest.approx(1 / 255)
    assert preprocessing["mean"] == list(evaluator.data.mean)
    assert preprocessing["std"] == list(evaluator.data.std)
    assert metadata["versions"].keys() >= {"paretonas", "exporter", "torch"}
    assert "Apache-2.0" in metadata["licence"]


def test_no_path_of_this_machine_is_in_the_file(model_path: Path, model: onnx.ModelProto) -> None:
    content = model_path.read_bytes()
    for place in (ROOT, Path.home(), Path(torch.__file__).parents[1], model_path.parents[3]):
        assert str(place).encode() not in content, place
    text = onnx.ModelProto()
    text.CopyFrom(model)
    for weight in text.graph.initializer:
        weight.ClearField("raw_data")
    assert b".py" not in text.SerializeToString(), "the exporter's stack traces are still there"


@pytest.mark.parametrize("difference", [5e-4, pytest.param(float("nan"), marks=pytest.mark.slow)])
def test_a_network_that_differs_from_the_supernet_is_not_exported(
    searched_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    run = shutil.copytree(searched_run, tmp_path / "run")
    honest = SubnetEvaluator.calibrated_supernet

    def perturbed(self: SubnetEvaluator, spec: NetworkSpec) -> Supernet:
        supernet = honest(self, spec)
        bias = list(supernet.block("head", "head").parameters())[-1]
        with torch.no_grad():
            bias.add_(difference)  # every logit moves by as much
        return supernet

    monkeypatch.setattr(SubnetEvaluator, "calibrated_supernet", perturbed)
    error = refusal(nas_here("export", "--run", run), code=1)
    assert "differ by" in error
    assert "1e-04" in error
    assert not list(run.glob("exports/**/*.onnx"))
    assert not list(run.glob("exports/**/*.json"))
    opened = Run.existing(run, first="nas train")
    assert opened.ledger.count(f"accuracy:{opened.front().supernet_hash}:test:fp32") == 0


@pytest.mark.slow
def test_a_file_that_the_checker_refuses_is_not_written(
    searched_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(searched_run, tmp_path / "run")
    honest = onnx_file.describe

    def damaging(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
        honest(model, metadata)
        model.graph.node[-1].op_type = "Mystery"

    monkeypatch.setattr(onnx_file, "describe", damaging)
    assert "onnx.checker" in refusal(nas_here("export", "--run", run), code=1)
    assert not list(run.glob("exports/**/*.onnx"))


@pytest.mark.slow
def test_another_pick_is_exported_beside_and_reads_of_the_test_split_are_counted(
    export_stage: Stage, front: Front, tmp_path: Path
) -> None:
    assert export_stage.finished.json["test_reads"] == 1
    run = shutil.copytree(export_stage.run, tmp_path / "run")
    other = front.candidates[0]  # the fastest, so that it is inside the budget whatever the machine is doing
    assert other != front.best
    finished = succeed(nas_here("export", "--run", run, "--pick", unique_beginning(other, front)))
    assert finished.stderr == ""
    assert "the test split has been read 2 times" in finished.stdout
    folder = run / "exports" / other.id
    assert finished.stdout.splitlines()[-2:] == [str(folder / MODEL_FILE), f"Next: nas verify {folder} --run {run}"]
    assert {path.name for path in (run / "exports").iterdir()} == {front.best.id, other.id}
    exported = read_document(run / "exports" / other.id / RECORD_FILE, ExportedModel)
    assert exported.test_reads == 2
    assert exported.inside_budget


def unique_beginning(candidate: Candidate, front: Front) -> str:
    lengths = range(1, len(candidate.id) + 1)
    beginnings = (candidate.id[:length] for length in lengths)
    return next(each for each in beginnings if sum(other.id.startswith(each) for other in front.candidates) == 1)


@pytest.mark.parametrize(("field", "value"), [("supernet_hash", "0" * 16), ("space_hash", "0" * 16)])
def test_a_front_of_other_weights_or_of_another_space_is_refused(
    searched_run: Path, tmp_path: Path, field: str, value: str
) -> None:
    run = shutil.copytree(searched_run, tmp_path / "run")
    stored = json.loads((run / "front.json").read_text())
    stored["fronts"]["cpu"][field] = value
    (run / "front.json").write_text(json.dumps(stored))
    assert "run `nas search" in refusal(nas_here("export", "--run", run))
    assert not list(run.glob("exports/**/*.onnx"))


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_only_the_export_names_the_test_split() -> None:
    reading = r"split\(\"test\"\)|\"test\", \*\*|\(\"test\",\)"
    naming = [file.path for file in source_files(*WHEEL_PACKAGES) if re.search(reading, file.text)]
    assert naming == ["nas/export/subnet.py", "nas/export/verify.py"]


def test_no_command_before_the_export_read_the_test_split(search_stage: Stage, front: Front) -> None:
    ledger = Run.existing(search_stage.run, first="nas train").ledger
    assert ledger.count(f"accuracy:{front.supernet_hash}:test:fp32") == 0
    assert ledger.count(f"accuracy:{front.supernet_hash}:validation:fp32") > 0
