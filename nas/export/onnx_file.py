"""An ONNX file that explains itself: pixels as input where asked for, metadata, checks."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.export.record import Preprocessing
from search_spaces.errors import CheckError, first_line

PREFIX = "paretonas."
"""Of the keys of metadata."""
_IN_GRAPH = "pixels/"


def with_pixel_input(model: onnx.ModelProto, steps: Preprocessing) -> onnx.ModelProto:
    """Return a model that takes ``uint8[n, height, width, channels]`` in place of normalised floats."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    (given,) = graph.input
    name, normalised = given.name, f"{_IN_GRAPH}normalised"
    for node in graph.node:
        node.input[:] = [normalised if each == name else each for each in node.input]
    # Division by division as `ImageData.normalise` does, so that a network in 8 bits rounds alike.
    constants = {"levels": [1 / steps.scale], "mean": steps.mean, "std": steps.std}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(values, dtype=np.float32).reshape(1, -1, 1, 1), f"{_IN_GRAPH}{each}")
        for each, values in constants.items()
    )
    links = [name, *(f"{_IN_GRAPH}{each}" for each in ("channels_first", "floats", "scaled", "centred")), normalised]
    made = [
        # Bytes are moved before they are widened: a quarter of the memory.
        helper.make_node("Transpose", links[0:1], links[1:2], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", links[1:2], links[2:3], to=TensorProto.FLOAT),
        helper.make_node("Div", [links[2], f"{_IN_GRAPH}levels"], links[3:4]),
        helper.make_node("Sub", [links[3], f"{_IN_GRAPH}mean"], links[4:5]),
        helper.make_node("Div", [links[4], f"{_IN_GRAPH}std"], links[5:6]),
    ]
    nodes = [*made, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)
    batch = given.type.tensor_type.shape.dim[0]
    first = batch.dim_param or batch.dim_value
    given.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, [first, *steps.size, len(steps.mean)]))
    return result


def describe(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Replace the model's own metadata by ours; the exporter's notes hold paths of this machine."""
    model.producer_name = "paretonas"
    model.producer_version = version("paretonas")
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=f"{PREFIX}{key}", value=value)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def check(model: onnx.ModelProto) -> None:
    """Raise `CheckError` unless a model holds its weights and passes `onnx.checker`'s full check."""
    outside = [each.name for each in model.graph.initializer if each.external_data]
    if outside:
        raise CheckError(f"weights are in another file than the model: {outside[0]} and {len(outside) - 1} more")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckError(f"the exported file fails onnx.checker: {first_line(error)}") from None


def read_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """Return the metadata of an exported model, parsed; keys without their prefix."""
    result: dict[str, Any] = {}
    for entry in model.metadata_props:
        if entry.key.startswith(PREFIX):
            plain = entry.value.startswith(("{", "["))
            result[entry.key.removeprefix(PREFIX)] = json.loads(entry.value) if plain else entry.value
    return result
