"""8-bit files that keep the accuracy: the operator that does the damage is found, and stays in floats."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from nas.export.answers import Labelled, torch_logits
from nas.export.int8 import Quantised, _kept, quantise
from nas.onnx_export import export_network
from nas.quantization import quantizable, quantized
from nas.supernet import Network, recalibrate
from search_spaces.errors import CheckError
from tests.nas.micro_space import micro
from tests.nas.torch_helpers import one_thread


@pytest.fixture(scope="module")
def subject() -> tuple[Network, Labelled]:
    """A network of MBConv blocks, with images that it has all right."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = micro(channels=3)
        network = Network(space.lower(np.zeros(space.n_genes, dtype=np.int16)))
        images = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        recalibrate(network, [images], network)
        logits = torch_logits(network, images.numpy())
    return network, Labelled(images.numpy(), logits.argmax(axis=1), logits)


def spoiled(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return a model that computes the same with a channel a thousand times larger in one place, and who reads it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    weights = {each.name: each for each in result.graph.initializer}
    convolutions = [node for node in result.graph.node if node.op_type == "Conv"]
    depthwise = next(
        node for node in convolutions if any(each.name == "group" and each.i > 1 for each in node.attribute)
    )
    after = convolutions[convolutions.index(depthwise) + 1]
    for name, axis, factor in (
        (depthwise.input[1], 0, 1000.0),
        (depthwise.input[2], 0, 1000.0),
        (after.input[1], 1, 0.001),
    ):
        values = numpy_helper.to_array(weights[name]).copy()
        values[(slice(None),) * axis + (0,)] *= factor
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    return result, after.name


def test_a_network_that_quantises_well_is_quantised_whole(subject: tuple[Network, Labelled]) -> None:
    network, images = subject
    found = quantise(export_network(network), images.images, images, most_lost=0.05)
    assert found.in_floats == ()
    assert images.accuracy(found.logits) >= 0.95
    kinds = {node.op_type for node in found.model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_operators_that_do_the_damage_stay_in_floats(subject: tuple[Network, Labelled]) -> None:
    network, images = subject
    model, reader = spoiled(export_network(network))
    everything = quantised_accuracy(model, images)
    assert everything < 0.9, "the spoiled network quantises well: the test shows nothing"
    told: list[str] = []
    found = quantise(model, images.images, images, most_lost=0.05, notice=told.append)
    assert images.accuracy(found.logits) >= 0.95
    assert 1 <= len(found.in_floats) <= len(quantizable(model)) // 2
    assert told[-1] == f"these stay in floats: {', '.join(found.in_floats)}"
    (left,) = [node for node in found.model.graph.node if node.name == reader]
    assert not left.input[0].endswith("DequantizeLinear_Output"), "who reads the large channel reads it in 8 bits"


def quantised_accuracy(model: onnx.ModelProto, images: Labelled) -> float:
    from nas.onnx_accuracy import activation_ranges, onnx_logits
    from nas.runtime import open_session

    made = quantized(model, activation_ranges(model, images.images))
    return images.accuracy(onnx_logits(open_session(made.SerializeToString()), images.images))


@pytest.mark.parametrize("total", [200, 1000, 1436])
def test_exactly_as_many_images_may_be_lost_as_is_said(subject: tuple[Network, Labelled], total: int) -> None:
    images = np.zeros((total, 1, 1, 1), dtype=np.float32)
    logits = np.eye(2, dtype=np.float32)[np.zeros(total, dtype=int)]
    allowed = total // 100
    for right in range(allowed + 1, total, 7):
        labels = (np.arange(total) >= right).astype(np.int64)
        validation = Labelled(images, labels, logits)
        for lost, kept in ((allowed, True), (allowed + 1, False)):
            worse = logits.copy()
            worse[:lost] = [0.0, 1.0]
            found = Quantised(onnx.ModelProto(), (), worse)
            assert _kept(found, validation, 0.01) is kept, (right, lost)


def test_what_cannot_be_kept_is_refused_with_both_figures(subject: tuple[Network, Labelled]) -> None:
    network, images = subject
    wrong = Labelled(images.images, images.labels, -images.logits)
    with pytest.raises(CheckError, match=r"the class that it gives them in floats; 80 % is the least"):
        quantise(export_network(network), images.images, wrong, most_lost=1.0)
    never = Labelled(images.images, images.labels, images.logits)
    with pytest.raises(CheckError, match=r"points fewer .* allowed are -50.0, .*`nas finetune --precision int8`"):
        quantise(export_network(network), images.images, never, most_lost=-0.5)
