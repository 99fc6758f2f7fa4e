"""Networks stitched from block graphs: the operators of a true export, and its numbers."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper

from nas.block_cache import BlockCache
from nas.devices import Precision
from nas.onnx_export import export_blocks, export_network, seeded_block
from nas.onnx_format import INPUT, OUTPUT
from nas.run import Run
from nas.runtime import open_session
from nas.stitch import pointwise, stitch
from nas.supernet import Network
from search_spaces.catalogue import find_space
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import NetworkSpec
from tests.nas.micro_space import micro

SPACE = find_space("tiny", channels=1, classes=10)
OPERATORS = {"mbconv", "convnext", "attention"}


@pytest.fixture(scope="module")
def cache(measured_run: Path) -> BlockCache:
    """The exported blocks of the space `tiny`."""
    return Run.existing(measured_run, first="nas train").block_cache()


def families(space: NetworkSpace, genome: Genomes) -> set[str]:
    return {placed.block.family for placed in space.lower(genome)}


def with_all_operators(space: NetworkSpace, seed: int) -> Iterator[Genomes]:
    """Yield random genomes in which every operator occurs."""
    return (row for row in space.sample(1000, np.random.default_rng(seed)) if families(space, row) >= OPERATORS)


def random_network(spec: NetworkSpec, seed: int) -> Network:
    """Return a network in evaluation mode, with batch norms that would be noticed if they were left out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(spec)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for values in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert values is not None
                    torch.nn.init.uniform_(values, 0.5, 2.0)
    return network.eval()


def logits(model: onnx.ModelProto, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the outputs of a model that takes one image at a time."""
    session = open_session(model.SerializeToString())
    return np.concatenate([session.run([OUTPUT], {INPUT: image[None]})[0] for image in images])


def random_images(spec: NetworkSpec, n: int = 4) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((n, *spec.input_shape)).astype(np.float32)


@torch.inference_mode()
def torch_logits(modules: Sequence[torch.nn.Module], images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    x = torch.from_numpy(images)
    for module in modules:
        x = module(x)
    return x.numpy()


def op_types(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_a_stitched_network_has_the_operators_of_a_true_export(cache: BlockCache, seed: int) -> None:
    genome = next(with_all_operators(SPACE, seed))
    stitched = cache.network(SPACE.lower(genome))
    exported = export_network(random_network(SPACE.lower(genome), seed))
    assert op_types(stitched) == op_types(exported)
    assert sum(op_types(stitched).values()) > 30
    # Slices would be left of elastic layers, batch norms of statistics that were not folded.
    assert not op_types(exported).keys() & {"Slice", "BatchNormalization", "Dropout", "Identity"}
    onnx.checker.check_model(stitched, full_check=True)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_equal_blocks_of_a_measured_network_have_weights_of_their_own(
    cache: BlockCache, tmp_path: Path, precision: Precision
) -> None:
    spec = SPACE.lower(next(with_all_operators(SPACE, 0)))
    (tmp_path / "blocks").mkdir()
    for placed in spec:
        shutil.copy(cache.path(placed.block), tmp_path / "blocks")
    own = BlockCache(tmp_path / "blocks", precision=precision)
    parts = [own.block(placed.block) for placed in spec]
    plain, measured = (weights(model) for model in (stitch(parts), own.network(spec)))
    assert len(set(map(bytes, plain))) < len(plain), "no two blocks are equal, so this shows nothing"
    assert len(set(map(bytes, measured))) == len(measured) == len(plain)
    # Values are those that were drawn, in another order.
    for before, after in zip(plain, measured, strict=True):
        np.testing.assert_array_equal(np.sort(before, axis=None), np.sort(after, axis=None))


def weights(model: onnx.ModelProto) -> list[npt.NDArray[np.float32]]:
    return [numpy_helper.to_array(each) for each in model.graph.initializer if len(each.dims) >= 2]


def test_stitched_blocks_compute_what_the_network_computes() -> None:
    space = micro()
    spec = space.lower(next(with_all_operators(space, 0)))
    network = random_network(spec, 0)
    parts = []
    for name, placed in zip(network.blocks, spec, strict=True):
        alone = Network(NetworkSpec((placed,))).eval()
        alone.blocks[name].load_state_dict(network.blocks[name].state_dict())
        parts.append(export_network(alone))
    images = random_images(spec)
    of_torch = torch_logits([network], images)
    assert np.abs(logits(stitch(parts), images) - of_torch).max() <= 1e-4
    assert of_torch.std(axis=0).min() > 1e-2, "the images do not tell these networks apart"


@pytest.mark.slow
def test_blocks_exported_as_one_program_compute_what_their_modules_compute() -> None:
    space = micro(channels=3)
    spec = space.lower(next(with_all_operators(space, 1)))
    blocks = [placed.block for placed in spec]
    stitched = stitch(export_blocks(blocks, seed=5))
    # A block's weights depend on its spec and the seed alone, so exporting it again shows what they are.
    alone = stitch([export_blocks([block], seed=5)[0] for block in blocks])
    modules = [seeded_block(block, 5).eval() for block in blocks]
    images = random_images(spec)
    assert np.abs(logits(stitched, images) - torch_logits(modules, images)).max() <= 1e-4
    assert np.array_equal(logits(stitched, images), logits(alone, images))


def test_the_weights_of_a_block_depend_on_its_spec_and_the_seed_alone() -> None:
    block = micro().blocks[1]

    def weights(state: int, seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            return torch.nn.utils.parameters_to_vector(seeded_block(block, seed).parameters())

    assert torch.equal(weights(0, seed=5), weights(1, seed=5))
    assert not torch.equal(weights(0, seed=5), weights(0, seed=6))


def test_exporting_leaves_the_random_state_of_torch_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    export_blocks([micro().blocks[0]], seed=0)
    assert torch.equal(torch.rand(4), expected)


@pytest.fixture(scope="module")
def like(cache: BlockCache) -> onnx.ModelProto:
    return cache.block(SPACE.blocks[0])


def test_a_part_can_be_used_twice_and_is_left_as_it_was() -> None:
    part = pointwise(16, 4)
    before = part.SerializeToString()
    chain = stitch([part, part])
    assert part.SerializeToString() == before
    onnx.checker.check_model(chain, full_check=True)
    image = np.random.default_rng(0).standard_normal((1, 16, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(logits(chain, image), logits(part, logits(part, image)), atol=1e-5)


def test_a_model_alone_is_stitched_to_itself() -> None:
    part = pointwise(16, 4)
    image = np.ones((1, 16, 4, 4), dtype=np.float32)
    np.testing.assert_array_equal(logits(stitch([part]), image), logits(part, image))


@pytest.mark.parametrize("other", [(32, 4), (16, 8)], ids=["channels", "resolution"])
def test_parts_that_do_not_fit_are_refused(other: tuple[int, int]) -> None:
    channels, side = other
    with pytest.raises(ValueError, match=re.escape(f"[1, 16, 4, 4] does not fit [1, {channels}, {side}, {side}]")):
        stitch([pointwise(16, 4), pointwise(channels, side)])


def test_what_is_stitched_has_the_format_of_the_exporter(cache: BlockCache, like: onnx.ModelProto) -> None:
    genome = next(with_all_operators(SPACE, 2))
    for model in (cache.network(SPACE.lower(genome)), pointwise(16, 4)):
        assert [(entry.domain, entry.version) for entry in model.opset_import if not entry.domain] == [("", 18)]
        assert model.ir_version == like.ir_version
        assert [value.name for value in model.graph.input] == [INPUT]
        assert [value.name for value in model.graph.output] == [OUTPUT]
