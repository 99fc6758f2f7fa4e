"""ONNX Runtime sessions as everything in the toolkit opens them, and inputs for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from nas import runtime as core
from nas.runtime import MeasureError, open_session, random_inputs
from tests.nas.small_models import conv, identity, saved, with_external_weights


@pytest.mark.parametrize("form", ["bytes", "path", "text"])
def test_a_session_runs_on_the_cpu_with_the_threads_that_were_asked(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path / "conv.onnx", conv()).path
    forms: dict[str, bytes | str | Path] = {"bytes": path.read_bytes(), "path": path, "text": str(path)}
    session = open_session(forms[form], threads=2)
    assert session.get_providers() == ["CPUExecutionProvider"]
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.execution_mode.name == "ORT_SEQUENTIAL"
    assert options.graph_optimization_level.name == "ORT_ENABLE_ALL"


@pytest.mark.parametrize("given", [b"", b"no model", "missing.onnx", "."])
def test_a_model_that_cannot_be_opened_is_explained_in_one_line(given: bytes | str) -> None:
    with pytest.raises(MeasureError) as refusal:
        open_session(given)
    assert str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_external_data_is_refused_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = with_external_weights(tmp_path).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    runtime = core.load_runtime()
    runtime.InferenceSession(content, providers=["CPUExecutionProvider"])  # left alone, it reads the working directory
    for given in (content, tmp_path / "model.onnx"):
        with pytest.raises(MeasureError, match=r"weights\.bin"):
            open_session(given)


@pytest.mark.parametrize(
    "element_type",
    ["FLOAT", "DOUBLE", "FLOAT16", "UINT8", "INT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "BOOL"],
)
def test_every_common_element_type_gets_inputs_that_run(element_type: str) -> None:
    session = open_session(identity(TensorProto.DataType.Value(element_type)).SerializeToString())
    inputs = random_inputs(session, np.random.default_rng(0))
    assert inputs["x"].shape == (2, 1), "symbolic dimensions are one"
    (output,) = session.run(None, inputs)
    np.testing.assert_array_equal(output, inputs["x"])


def test_inputs_follow_the_generator() -> None:
    session = open_session(identity(TensorProto.FLOAT, (64,)).SerializeToString())
    first, same, other = (random_inputs(session, np.random.default_rng(seed))["x"] for seed in (0, 0, 1))
    assert (first == same).all()
    assert (first != other).any()
