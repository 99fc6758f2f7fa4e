"""Small ONNX models, made in milliseconds, and their entries in a list of models to measure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.measure import ModelFile

IR_VERSION = 10
OPSETS = [helper.make_opsetid("", 18)]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    *,
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """Return a model whose one output is ``y``; inputs are given as ``{name: (element type, shape)}``."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [onnx.ValueInfoProto(name="y")],
        weights,
    )
    return helper.make_model(graph, opset_imports=[*OPSETS, helper.make_opsetid("elsewhere", 1)], ir_version=IR_VERSION)


def conv(size: int = 8) -> onnx.ModelProto:
    """Return a 3x3 convolution from 3 to 8 channels on ``[batch, 3, size, size]``."""
    values = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype("float32")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    shape: list[int | str] = ["batch", 3, size, size]
    return model([node], {"x": (TensorProto.FLOAT, shape)}, weights=[numpy_helper.from_array(values, "w")])


def unknown_operator() -> onnx.ModelProto:
    """Return a model that ONNX Runtime has no kernel for."""
    return model([helper.make_node("Mystery", ["x"], ["y"], domain="elsewhere")], {"x": (TensorProto.FLOAT, [1])})


def identity(element_type: int, shape: Sequence[int | str] = (2, "n")) -> onnx.ModelProto:
    """Return a model that hands its input through."""
    return model([helper.make_node("Identity", ["x"], ["y"])], {"x": (element_type, shape)})


def with_external_weights(folder: Path) -> onnx.ModelProto:
    """Return `conv` with its weights in ``folder/weights.bin``."""
    proto = conv()
    weight = proto.graph.initializer[0]
    (folder / "weights.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    return proto


def saved(path: Path, content: onnx.ModelProto | bytes, *, model_id: str | None = None) -> ModelFile:
    """Write a model (or what pretends to be one), and return its entry; its id is the file's stem by default."""
    data = content if isinstance(content, bytes) else content.SerializeToString()
    path.write_bytes(data)
    return ModelFile(model_id or path.stem, path, hashlib.sha256(data).hexdigest())
