"""Where an ONNX model's time goes, layer by layer, and how far that is from what the machine could do.

A layer cannot be faster than its multiply-accumulates at the machine's peak rate, nor than its bytes at the rate at
which so many bytes are copied (the roofline model). Both rates are measured here, not looked up. What a layer takes
beyond its bound is overhead, kernels that do not reach the peak, or waiting.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas import runtime
from nas.analysis_record import Analysis, LayerTime, Peaks
from nas.devices import LocalDevice, ModelFile
from nas.files import sha256_file
from nas.onnx_format import INPUT, IR_VERSION, OPSET, OUTPUT
from nas.progress import Progress, no_progress
from search_spaces.errors import InputError

_PROFILED_RUNS = 30
_GEMM_SIDES = (128, 256, 512)
_TOUCHED_BYTES = tuple(2**power for power in range(13, 28))
_PEAK_S = 0.15
_LEAST_CALLS = 3
_CONVOLUTIONS = {"Conv", "FusedConv", "QLinearConv", "ConvInteger"}
_PRODUCTS = {
    "Gemm",
    "FusedGemm",
    "QGemm",
    "MatMul",
    "FusedMatMul",
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
}


def analyze(path: Path, *, device: LocalDevice, seed: int = 0, progress: Progress = no_progress) -> Analysis:
    """Measure a model as a whole, then its layers, and compare them with what the machine can do.

    The profiler slows a run and counts in microseconds, so it only divides the latency that was measured without it.

    Args:
        path: an ONNX file, foreign ones too; symbolic dimensions are 1.
        device: what to measure on: the CPU provider, whose nodes the profiler tells one by one, and one thread, as
            copies have.
        seed: of the inputs' values.
        progress: told of measuring.

    Raises:
        InputError: the file is not a model that the device can run, or the device is another one.
    """
    if device.provider != "cpu" or device.threads != 1:
        raise InputError(f"layers are told apart on the CPU provider alone, with one thread, not on {device.name}")
    with tempfile.TemporaryDirectory(prefix="nas-analyze-") as folder:
        model = ModelFile("model", path, sha256_file(path), visit_ms=20.0)
        run = device.measure([model], rounds=16, seed=seed, work_dir=Path(folder) / "whole", progress=progress)
        latency_ms = run.measurements[0].latency_ms
        peaks = measure_peaks()
        nodes = _profiled(path, Path(folder), seed)
    total = sum(node.duration for node in nodes)
    layers = []
    for node in nodes:
        compute_ms, memory_ms = peaks.bound_ms(node.macs, node.size_bytes, int8=node.int8)
        layers.append(
            LayerTime(
                name=node.name,
                operator=node.operator,
                latency_ms=latency_ms * node.duration / total,
                macs=node.macs,
                size_bytes=node.size_bytes,
                compute_ms=compute_ms,
                memory_ms=memory_ms,
            )
        )
    return Analysis(
        format_version=Analysis.CURRENT_VERSION,
        file=str(path),
        sha256=model.sha256,
        device=device.name,
        latency_ms=latency_ms,
        peaks=peaks,
        layers=tuple(layers),
    )


def measure_peaks() -> Peaks:
    """Measure the machine's rates: matrix products and a convolution in ONNX Runtime, copies in numpy."""
    rates = [_rate(_product(side, int8=False), side**3) for side in _GEMM_SIDES]
    rates.append(_rate(_convolution(), 128 * 128 * 9 * 28 * 28))
    int8 = [_rate(_product(side, int8=True), side**3) for side in _GEMM_SIDES]
    return Peaks(
        gmacs_per_s=max(rates),
        int8_gmacs_per_s=max(*int8, *rates),
        copy_gb_per_s={touched: _copy_rate(touched) for touched in _TOUCHED_BYTES},
    )


@dataclass(frozen=True)
class _Node:
    name: str
    operator: str
    duration: float
    macs: int
    size_bytes: int
    int8: bool


def _profiled(path: Path, folder: Path, seed: int) -> list[_Node]:
    """Run a model under the profiler, and return its nodes in order, each with the median of its durations."""
    optimised = folder / "optimised.onnx"
    session = runtime.open_session(path, profile=(folder / "profile", optimised))
    inputs = runtime.random_inputs(session, np.random.default_rng(seed))
    for _ in range(_PROFILED_RUNS):
        session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text())
    graph = onnx.load(optimised).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    names = Counter(node.name for node in graph.node)
    by_name = {node.name: node for node in graph.node if names[node.name] == 1}
    durations: dict[tuple[int, str], list[float]] = defaultdict(list)
    arguments: dict[tuple[int, str], dict[str, Any]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            # Foreign nodes may share a name, or have none: the number of a node is its own.
            key = (int(event["args"]["node_index"]), name.removesuffix("_kernel_time"))
            durations[key].append(float(event["dur"]))
            arguments[key] = event["args"]
    if not durations:
        raise InputError(f"{path}: has no layers to tell apart")
    return [
        _node(key[1], float(np.median(times)), arguments[key], by_name.get(key[1]), weights)
        for key, times in durations.items()
    ]


def _node(
    name: str,
    duration: float,
    told: Mapping[str, Any],
    node: onnx.NodeProto | None,
    weights: Mapping[str, onnx.TensorProto],
) -> _Node:
    own = [weights[each] for each in node.input if each in weights] if node is not None else []
    outputs, inputs = _shapes(told["output_type_shape"]), _shapes(told["input_type_shape"])
    operator = str(told["op_name"])
    macs = 0
    if operator in _CONVOLUTIONS:
        # Weights that the runtime has packed are no longer among the inputs; the optimised graph still has them.
        kernels = [shape for shape in (*(list(tensor.dims) for tensor in own), *inputs[1:]) if len(shape) >= 3]
        macs = math.prod(outputs[0]) * math.prod(kernels[0][1:]) if kernels else 0
    elif operator in _PRODUCTS and inputs and inputs[0]:
        macs = math.prod(outputs[0]) * inputs[0][-1]
    size = int(told["activation_size"]) + int(told["output_size"])
    size += sum(len(tensor.raw_data) or numpy_helper.to_array(tensor).nbytes for tensor in own)
    int8 = any("int8" in kind for entry in told["input_type_shape"] for kind in entry)
    return _Node(name, operator, max(duration, 0.1), macs, size, int8)


def _shapes(told: list[dict[str, list[int]]]) -> list[list[int]]:
    return [shape for entry in told for shape in entry.values()]


def _product(side: int, *, int8: bool) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    if not int8:
        weight = rng.standard_normal((side, side)).astype(np.float32)
        return _model([helper.make_node("MatMul", [INPUT, "w"], [OUTPUT])], {"w": weight}, [side, side])
    constants: dict[str, Any] = {
        "w": rng.integers(-127, 127, (side, side), np.int8),
        "scale": np.float32(0.01),
        "zero": np.uint8(128),
        "zero_w": np.int8(0),
    }
    names = [INPUT, "scale", "zero", "w", "scale", "zero_w", "scale", "zero"]
    node = helper.make_node("QLinearMatMul", names, [OUTPUT])
    return _model([node], constants, [side, side], TensorProto.UINT8)


def _convolution() -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((128, 128, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", [INPUT, "w"], [OUTPUT], pads=[1, 1, 1, 1])
    return _model([node], {"w": weight}, [1, 128, 28, 28])


def _model(
    nodes: list[onnx.NodeProto], constants: Mapping[str, Any], shape: list[int], kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info(INPUT, kind, shape)],
        [helper.make_tensor_value_info(OUTPUT, kind, None)],
        initializer=[numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _rate(model: onnx.ModelProto, macs: int) -> float:
    """Return billions of multiply-accumulates per second."""
    session = runtime.open_session(model.SerializeToString())
    inputs = runtime.random_inputs(session, np.random.default_rng(0))
    return macs / _fastest_s(lambda: session.run(None, inputs)) / 1e9


def _copy_rate(touched: int) -> float:
    """Return billions of bytes read and written per second by copies that touch so many bytes."""
    source, target = np.ones(touched // 8, np.float32), np.zeros(touched // 8, np.float32)
    # One copy of a small buffer is over before a call is: the rate is that of many.
    repeats = max(1, 2**19 // touched)
    np.copyto(target, source)  # the first touch of new memory is not a copy's time

    def several() -> None:
        for _ in range(repeats):
            np.copyto(target, source)

    return repeats * touched / _fastest_s(several) / 1e9


def _fastest_s(work: Callable[[], object]) -> float:
    """Return the time of the fastest of many calls, of a few where they are long."""
    fastest_ns, end_s, calls = math.inf, time.monotonic() + _PEAK_S, itertools.count(1)
    while next(calls) <= _LEAST_CALLS or time.monotonic() < end_s:
        start_ns = time.perf_counter_ns()
        work()
        fastest_ns = min(fastest_ns, time.perf_counter_ns() - start_ns)
    return fastest_ns / 1e9
