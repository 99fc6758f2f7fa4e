"""8-bit models: the graph that is measured is the one that a calibrated model runs, and a calibrated one computes."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from nas.block_cache import BlockCache
from nas.onnx_accuracy import activation_ranges
from nas.quantization import Ranges, quantized, without_double_pairs
from nas.runtime import load_runtime, open_session, random_inputs
from nas.stitch import stitch
from search_spaces.language import NetworkSpace
from tests.nas.micro_space import micro


@pytest.fixture(scope="module")
def space() -> NetworkSpace:
    return micro(channels=3)


@pytest.fixture(scope="module")
def cache(space: NetworkSpace, tmp_path_factory: pytest.TempPathFactory) -> BlockCache:
    """The exported blocks of the space."""
    made = BlockCache(tmp_path_factory.mktemp("blocks"))
    made.fill(space.blocks)
    return made


@pytest.fixture(scope="module")
def networks(space: NetworkSpace, cache: BlockCache) -> list[onnx.ModelProto]:
    """Some whole networks, with every operator."""
    return [cache.network(space.lower(genome)) for genome in space.enumerate()[::9]]


def ranges_on(model: onnx.ModelProto, images: int = 4) -> Ranges:
    """Return the range of every activation over some random images."""
    session = open_session(model.SerializeToString())
    batches = [random_inputs(session, np.random.default_rng(seed)).values() for seed in range(images)]
    return activation_ranges(model, np.concatenate([batch for (batch,) in batches]))


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def optimised_operators(model: onnx.ModelProto, path: Path) -> Counter[str]:
    """Return what ONNX Runtime makes of a model: how many of each operator."""
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return operators(onnx.load(path))


def test_a_calibrated_model_runs_the_same_operators_as_one_that_is_only_measured(
    networks: list[onnx.ModelProto], tmp_path: Path
) -> None:
    for number, model in enumerate(networks):
        measured, calibrated = quantized(model), quantized(model, ranges_on(model))
        first, second = (
            optimised_operators(each, tmp_path / f"{number}-{name}.onnx")
            for name, each in (("measured", measured), ("calibrated", calibrated))
        )
        assert first == second
        assert first["QLinearConv"] > 0


def test_parts_that_are_quantised_one_by_one_make_the_network_that_is_quantised_whole(
    space: NetworkSpace, cache: BlockCache, tmp_path: Path
) -> None:
    parts = dataclasses.replace(cache, precision="int8")
    genomes = space.enumerate()
    assert len(genomes[::3]) >= 20
    for genome in genomes[::3]:
        spec = space.lower(genome)
        in_floats, in_integers = (stitch([each.block(placed.block) for placed in spec]) for each in (cache, parts))
        whole, joined = quantized(in_floats), without_double_pairs(in_integers)
        assert operators(joined) == operators(whole) == operators(parts.network(spec))
        first, second = (
            optimised_operators(model, tmp_path / f"{name}.onnx") for name, model in (("w", whole), ("j", joined))
        )
        assert first == second
        sessions = [open_session(model.SerializeToString()) for model in (whole, joined)]
        inputs = random_inputs(sessions[0], np.random.default_rng(0))
        one, other = (session.run(None, inputs)[0] for session in sessions)
        assert np.array_equal(one, other)


def test_only_conversions_with_the_same_scale_are_joined() -> None:
    def pair(scale: float, x: str, y: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        names = [f"{y}_scale", f"{y}_zero"]
        nodes = [
            onnx.helper.make_node("QuantizeLinear", [x, *names], [f"{y}_q"]),
            onnx.helper.make_node("DequantizeLinear", [f"{y}_q", *names], [y]),
        ]
        values = [
            onnx.helper.make_tensor(names[0], onnx.TensorProto.FLOAT, [], [scale]),
            onnx.helper.make_tensor(names[1], onnx.TensorProto.UINT8, [], [128]),
        ]
        return nodes, values

    for second_scale, left in ((0.1, 2), (0.2, 4)):
        (first, one), (second, other) = pair(0.1, "input", "middle"), pair(second_scale, "middle", "end")
        last = onnx.helper.make_node("Relu", ["end"], ["output"])
        ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("input", "output")]
        graph = onnx.helper.make_graph([*first, *second, last], "g", ends[:1], ends[1:], [*one, *other])
        joined = without_double_pairs(onnx.helper.make_model(graph))
        assert len(joined.graph.node) == left + 1


def test_a_quantised_block_is_made_once(space: NetworkSpace, cache: BlockCache, tmp_path: Path) -> None:
    shutil.copy(cache.path(space.blocks[0]), tmp_path)
    parts = BlockCache(tmp_path, precision="int8")
    before = set(parts.directory.iterdir())
    parts.block(space.blocks[0])
    (made,) = set(parts.directory.iterdir()) - before
    stamp = made.stat().st_mtime_ns
    assert operators(parts.block(space.blocks[0]))["QuantizeLinear"] > 0
    assert made.stat().st_mtime_ns == stamp
    assert operators(cache.block(space.blocks[0]))["QuantizeLinear"] == 0


def test_a_calibrated_model_computes_what_the_float_model_does(networks: list[onnx.ModelProto]) -> None:
    for model in networks:
        both = [open_session(each.SerializeToString()) for each in (model, quantized(model, ranges_on(model)))]
        errors, scale = [], []
        for seed in range(4):
            inputs = random_inputs(both[0], np.random.default_rng(seed))
            exact, rounded = (session.run(None, inputs)[0] for session in both)
            errors.append(np.abs(exact - rounded).max())
            scale.append(np.abs(exact).max())
        assert max(errors) < 0.25 * max(scale)


def test_the_model_that_is_quantised_stays_as_it_was(networks: list[onnx.ModelProto]) -> None:
    before = networks[0].SerializeToString()
    quantized(networks[0])
    assert networks[0].SerializeToString() == before


def test_weights_are_signed_and_per_channel_and_activations_unsigned(networks: list[onnx.ModelProto]) -> None:
    graph = quantized(networks[0]).graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert activations
    for node in activations:
        assert initializers[node.input[2]].data_type == onnx.TensorProto.UINT8
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for conv in convolutions:
        weight = dequantized[conv.input[1]]
        stored = initializers[weight.input[0]]
        assert stored.data_type == onnx.TensorProto.INT8
        assert list(initializers[weight.input[1]].dims) == [stored.dims[0]]
