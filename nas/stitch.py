"""Networks assembled from the ONNX graphs of their blocks, in milliseconds instead of an export of seconds.

For measuring only: weights are the blocks' random ones.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from nas.onnx_format import INPUT, IR_VERSION, OPSET, OUTPUT


def stitch(parts: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """Chain models, each with one input and one output, into one; the parts are left as they are.

    Raises:
        ValueError: a part's output has another shape than the next part's input.
    """
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    prefixed = [compose.add_prefix(part, f"block{i}/") for i, part in enumerate(parts)]
    for before, after in itertools.pairwise(prefixed):
        if _shape(before.graph.output[0]) != _shape(after.graph.input[0]):
            raise ValueError(f"{_shape(before.graph.output[0])} does not fit {_shape(after.graph.input[0])}")
    current = INPUT
    for model in prefixed:
        graph = model.graph
        rename = {graph.input[0].name: current}
        if model is prefixed[-1]:
            rename[graph.output[0].name] = OUTPUT
        for node in graph.node:
            node.input[:] = [rename.get(name, name) for name in node.input]
            node.output[:] = [rename.get(name, name) for name in node.output]
        nodes += graph.node
        initializers += graph.initializer
        current = graph.output[0].name
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, _shape(value))
        for name, value in ((INPUT, prefixed[0].graph.input[0]), (OUTPUT, prefixed[-1].graph.output[0]))
    ]
    graph = helper.make_graph(nodes, "stitched", ends[:1], ends[1:], initializer=initializers)
    return helper.make_model(graph, opset_imports=parts[0].opset_import, ir_version=parts[0].ir_version)


def give_own_weights(model: onnx.ModelProto) -> None:
    """Change a stitched model's weights of two dimensions or more so that no two are equal, as in a trained network.

    Equal blocks come with equal weights, and ONNX Runtime 1.31 runs layers of equal weights faster than layers of
    different ones: networks of several equal attention blocks by up to 10 % (``experiments/budgets-kept``).
    """
    seen: Counter[bytes] = Counter()
    for tensor in model.graph.initializer:
        if len(tensor.dims) < 2:  # biases, scales and shapes
            continue
        values = numpy_helper.to_array(tensor)
        content = values.tobytes()
        if seen[content]:
            tensor.CopyFrom(numpy_helper.from_array(np.roll(values, seen[content]), tensor.name))
        seen[content] += 1


def pointwise(channels: int, resolution: int, batch: int = 1) -> onnx.ModelProto:
    """Return a 1x1 convolution, the neighbour in whose company blocks are measured.

    Args:
        channels: in and out.
        resolution: side of the image, pixels.
        batch: images at a time.
    """
    weight = np.random.default_rng(0).normal(0.0, channels**-0.5, (channels, channels, 1, 1)).astype(np.float32)
    shape = [batch, channels, resolution, resolution]
    graph = helper.make_graph(
        [helper.make_node("Conv", [INPUT, "weight"], [OUTPUT], kernel_shape=[1, 1])],
        "pointwise",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        initializer=[numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [int(dimension.dim_value) for dimension in value.type.tensor_type.shape.dim]
