"""Where a model's time goes: layers add up, nothing is faster than its bound, foreign files are understood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.analysis import analyze
from nas.analysis_record import Analysis, Peaks
from nas.devices import LocalDevice
from nas.quantization import quantized
from nas.runtime import open_session
from search_spaces.errors import InputError
from tests.nas.small_models import model, unknown_operator

CPU = LocalDevice("cpu")
PUBLISHED_MMACS = {"light_squeezenet": 350, "light_resnet50": 4100, "light_densenet121": 2850}


def two_layers(channels: int = 32, side: int = 32) -> onnx.ModelProto:
    """Return a convolution and a product of known sizes."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((channels, channels, 3, 3)).astype("float32"),
        "v": rng.standard_normal((side, 2 * side)).astype("float32"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("MatMul", ["c", "v"], ["y"], name="product"),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    return model(nodes, {"x": (TensorProto.FLOAT, [1, channels, side, side])}, weights=tensors)


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    path = tmp_path_factory.mktemp("model") / "two.onnx"
    path.write_bytes(two_layers().SerializeToString())
    return analyze(path, device=CPU)


def test_multiply_accumulates_and_bytes_are_those_of_the_layers(analysis: Analysis) -> None:
    by_operator = {layer.operator: layer for layer in analysis.layers}
    conv, product = by_operator["Conv"], by_operator["MatMul"]
    assert conv.macs == 32 * 32 * 32 * 32 * 9
    assert product.macs == 32 * 32 * 32 * 64
    assert conv.size_bytes == 4 * (2 * 32 * 32 * 32 + 32 * 32 * 9)
    assert product.size_bytes == 4 * (32 * 32 * 32 + 32 * 32 * 64 + 32 * 64)


def test_the_layers_share_the_latency_of_the_whole(analysis: Analysis) -> None:
    assert sum(layer.latency_ms for layer in analysis.layers) == pytest.approx(analysis.latency_ms)
    assert all(layer.latency_ms > 0 for layer in analysis.layers)


@pytest.mark.device
def test_nothing_is_faster_than_its_bound(analysis: Analysis) -> None:
    assert 0 < analysis.bound_ms <= analysis.latency_ms
    assert 0 < analysis.efficiency <= analysis.attainable_efficiency <= 1
    assert 0 <= analysis.memory_bound_share <= 1
    rates = list(analysis.peaks.copy_gb_per_s.values())
    assert max(rates[:4]) > rates[-1], "caches are faster than memory"


@pytest.mark.device
@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_MMACS)
def test_foreign_models_are_analysed_and_keep_to_their_bounds(shared_data: Path, name: str) -> None:
    found = analyze(shared_data / "onnx_light" / f"{name}.onnx", device=CPU)
    assert found.bound_ms <= found.latency_ms
    assert found.efficiency <= found.attainable_efficiency <= 1
    assert sum(layer.macs for layer in found.layers) / 1e6 == pytest.approx(PUBLISHED_MMACS[name], rel=0.15)


@pytest.mark.slow
@pytest.mark.device
def test_quantised_layers_are_held_against_the_rate_of_integers(tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    inferred = onnx.shape_inference.infer_shapes(two_layers())
    inferred.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32, 32, 64]))
    path.write_bytes(quantized(inferred).SerializeToString())
    found = analyze(path, device=CPU)
    conv = next(layer for layer in found.layers if layer.operator == "QLinearConv")
    assert conv.macs == 32 * 32 * 32 * 32 * 9
    assert conv.compute_ms == pytest.approx(conv.macs / found.peaks.int8_gmacs_per_s / 1e6)


def test_a_bound_is_never_that_of_a_larger_copy() -> None:
    peaks = Peaks(gmacs_per_s=10.0, int8_gmacs_per_s=40.0, copy_gb_per_s={1000: 100.0, 10_000: 50.0, 100_000: 5.0})
    assert peaks.bound_ms(10**6, 0, int8=False)[0] == pytest.approx(0.1)
    assert peaks.bound_ms(10**6, 0, int8=True)[0] == pytest.approx(0.025)
    assert peaks.bound_ms(0, 10**6, int8=False)[1] == pytest.approx(10**6 / 50.0 / 1e6)
    assert peaks.bound_ms(0, 20_000, int8=False)[1] == pytest.approx(20_000 / 100.0 / 1e6)
    assert peaks.bound_ms(0, 10, int8=False)[1] == pytest.approx(10 / 100.0 / 1e6)


def test_what_cannot_be_analysed_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(unknown_operator().SerializeToString())
    with pytest.raises(InputError, match=r"bad\.onnx"):
        analyze(bad, device=CPU)
    with pytest.raises(InputError, match="CPU provider alone, with one thread"):
        analyze(bad, device=LocalDevice("openvino"))
    with pytest.raises(InputError, match="one thread"):
        analyze(bad, device=LocalDevice("cpu", threads=2))


def test_profiling_changes_no_result(tmp_path: Path) -> None:
    content = two_layers().SerializeToString()
    image = {"x": np.ones((1, 32, 32, 32), np.float32)}
    plain = open_session(content).run(None, image)[0]
    watched = open_session(content, 1, "cpu", (tmp_path / "profile", tmp_path / "optimised.onnx"))
    assert np.array_equal(plain, watched.run(None, image)[0])
