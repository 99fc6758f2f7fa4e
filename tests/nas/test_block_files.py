"""Blocks of all families as ONNX files: they compute the same, keep to static shapes and take the bytes foreseen."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from nas.onnx_export import export_blocks, export_network, seeded_block
from nas.runtime import open_session
from nas.supernet import Network
from search_spaces.blocks import FAMILIES
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock
from tests.search_spaces.test_blocks import MORE_SIZES, images, random_block

BLOCKS: list[BlockSpec] = list(dict.fromkeys(block for place in MORE_SIZES for block in (place[0], place[-1])))


@pytest.fixture(scope="module")
def files() -> list[onnx.ModelProto]:
    return export_blocks(BLOCKS, seed=3)


def test_every_family_is_here_or_in_the_small_space_that_others_export() -> None:
    assert {block.family for block in BLOCKS} | {"downsample"} == set(FAMILIES)


def test_files_compute_what_the_blocks_compute(files: list[onnx.ModelProto]) -> None:
    for block, file in zip(BLOCKS, files, strict=True):
        x = images(block)[:1]
        with torch.no_grad():
            expected = seeded_block(block, 3).eval()(x).numpy()
        session = open_session(file.SerializeToString())
        (given,) = session.get_inputs()
        assert list(given.shape) == list(x.shape)
        (computed,) = session.run(None, {given.name: x.numpy()})
        assert np.abs(computed - expected).max() <= 1e-4, block
        assert expected.std() > 1e-3, block


def test_shapes_are_static(files: list[onnx.ModelProto]) -> None:
    for block, file in zip(BLOCKS, files, strict=True):
        inferred = onnx.shape_inference.infer_shapes(file, strict_mode=True)
        for value in (*inferred.graph.value_info, *inferred.graph.output):
            dimensions = value.type.tensor_type.shape.dim
            assert all(dimension.HasField("dim_value") for dimension in dimensions), (block, value.name)
        dynamic = {"Shape", "NonZero", "Loop", "If"} & {node.op_type for node in file.graph.node}
        assert not dynamic, (block, dynamic)


@pytest.mark.parametrize("family", sorted({block.family for block in BLOCKS}))
def test_weights_take_the_bytes_foreseen(family: str) -> None:
    block = next(block for block in BLOCKS if block.family == family)
    network = Network(NetworkSpec((PlacedBlock("block", block),)))
    # New batch norms shift by nothing, and the exporter leaves a bias of zeros out.
    network.blocks["block"].load_state_dict(random_block(block).state_dict())
    arrays = [numpy_helper.to_array(tensor) for tensor in export_network(network.eval()).graph.initializer]
    size = sum(array.nbytes for array in arrays if array.dtype == np.float32 and array.size > 1)
    assert size == block.weight_bytes("fp32")
