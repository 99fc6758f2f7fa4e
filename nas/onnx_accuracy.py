"""What an ONNX model answers to real images: its logits, its accuracy, and the ranges of its activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from nas.onnx_export import export_network
from nas.quantization import Ranges, quantized
from nas.runtime import open_session
from nas.supernet import Network, scaled
from search_spaces.errors import CheckError

Images = npt.NDArray[np.float32]
"""Normalised, ``float32[n, c, h, w]``."""

_ANY_NUMBER = 16  # images at a time where a model takes any number


def onnx_logits(session: Any, images: Images) -> npt.NDArray[np.float32]:
    """Return the logits ``float32[n, classes]`` of a model.

    Raises:
        CheckError: one is not finite.
    """
    given = session.get_inputs()[0]
    batches = [session.run(None, {given.name: batch})[0] for batch in _batches(session, images)]
    logits: npt.NDArray[np.float32] = np.concatenate(batches)[: len(images)]
    _require_finite(logits)
    return logits


def onnx_accuracy(session: Any, images: Images, labels: npt.NDArray[np.int64]) -> float:
    """Return the share of images that a model classifies as labelled."""
    return float(np.mean(onnx_logits(session, images).argmax(axis=1) == labels))


def quantized_network(network: Network, images: Images, *, batch: int = 1) -> onnx.ModelProto:
    """Return a network as an 8-bit ONNX model.

    Args:
        network: in evaluation mode.
        images: training images, which tell the ranges of activations.
        batch: images at a time that the model takes.
    """
    model = export_network(network, batch=batch)
    return quantized(model, activation_ranges(model, images))


def activation_ranges(model: onnx.ModelProto, images: Images) -> Ranges:
    """Return the smallest and the largest value of every activation of a model over images, and zero.

    Raises:
        CheckError: one is not finite.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(onnx.shape_inference.infer_shapes(model))
    ends = {value.name for value in probe.graph.output}
    # Integers are shapes and the like.
    floats = [value for value in probe.graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    made = {name for node in probe.graph.node for name in node.output}
    probe.graph.output.extend(value for value in floats if value.name in made - ends)
    session = open_session(probe.SerializeToString())
    given, names = session.get_inputs()[0], [value.name for value in session.get_outputs()]
    ranges: dict[str, tuple[float, float]] = {}
    for batch in _batches(session, images):
        values = zip((given.name, *names), (batch, *session.run(names, {given.name: batch})), strict=True)
        for name, value in values:
            _require_finite(value)
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    return ranges


def _require_finite(values: npt.NDArray[np.float32]) -> None:
    if not np.isfinite(values).all():
        raise CheckError("a subnet's values are not finite: the supernet's training has diverged; train it again")


def images_at_a_time(session: Any) -> int:
    """Return how many images a model takes at a time; of one that takes any number, what suits it."""
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else _ANY_NUMBER


def _batches(session: Any, images: Images) -> list[Images]:
    """Return images scaled to the side of a model's input, as many at a time as it takes, the last ones repeated."""
    size = images_at_a_time(session)
    scaled_images = scaled(torch.from_numpy(images), session.get_inputs()[0].shape[-1]).numpy()
    missing = -len(images) % size
    padded = np.concatenate([scaled_images, np.repeat(scaled_images[-1:], missing, axis=0)])
    return list(padded.reshape(-1, size, *padded.shape[1:]))
