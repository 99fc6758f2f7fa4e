"""Static 8-bit quantisation of ONNX models: QDQ, activations unsigned, weights signed and per channel.

Signed activations take a slow path in ONNX Runtime's CPU kernels, so they are unsigned. How long a quantised model
takes does not depend on where its ranges lie: models that are only measured get one range for all activations, and no
calibration.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import numpy_helper, shape_inference

from nas.runtime import load_runtime

Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value of activations, by name."""

_ANY_RANGE = (-4.0, 4.0)


def quantizable(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes that `quantized` quantises."""
    known = _operators()
    return [node for node in model.graph.node if node.op_type in known]


def quantized(
    model: onnx.ModelProto,
    ranges: Ranges | None = None,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return a model with every operator quantised that ONNX Runtime can quantise; input and output stay float.

    Args:
        model: a float model without external data; it is left as it is.
        ranges: of every activation; None is for measuring only: the result computes at the speed of a calibrated model,
            but not its values.
        only: names of the nodes to quantise; empty for all of them.
        without: names of nodes that stay in floats.
    """
    load_runtime()
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    inferred = shape_inference.infer_shapes(model)
    graph = inferred.graph
    if ranges is None:
        weights = {tensor.name for tensor in graph.initializer}
        values = {name for node in graph.node for name in (*node.input, *node.output) if name}
        ranges = dict.fromkeys(values - weights, _ANY_RANGE)
    limits = {name: tuple(np.array(end, dtype=np.float32) for end in ends) for name, ends in ranges.items()}
    with _quiet_quantizer():
        quantizer = QDQQuantizer(
            inferred,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
            nodes_to_quantize=list(only),
            nodes_to_exclude=list(without),
            op_types_to_quantize=_operators(),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    return result


def without_double_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a stitched model without the conversions from integers to floats and straight back where parts meet.

    What is left is what quantising the whole network gives, since all parts have the same scale.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    converting = ("QuantizeLinear", "DequantizeLinear")
    parameters = {name for node in graph.node if node.op_type in converting for name in node.input[1:]}
    values = {
        tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer if tensor.name in parameters
    }
    floats = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    # Nodes are in no order: what converts back is found first.
    back: dict[str, str] = {}
    for node in graph.node:
        before = floats.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if before and [values[name] for name in node.input[1:]] == [values[name] for name in before.input[1:]]:
            back[node.output[0]] = node.input[0]
    renamed = {node.output[0]: back[node.input[0]] for node in floats.values() if node.input[0] in back}
    kept = [node for node in graph.node if not {*node.output} & {*back, *renamed}]
    for node in kept:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _operators() -> list[str]:
    """Return the kinds of operators that ONNX Runtime quantises."""
    load_runtime()
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


@contextlib.contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Silence advice that the quantiser writes into the root log."""
    root = logging.getLogger()
    level = root.level
    try:
        root.setLevel(logging.ERROR)
        yield
    finally:
        root.setLevel(level)
