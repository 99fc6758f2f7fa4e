"""From a network to a file of each format, none of which answers otherwise than the network does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from torch import Tensor

from nas.data import ImageData
from nas.devices import Precision
from nas.export import onnx_file, torch_file
from nas.export.answers import Labelled, at_side, distance, pixel_logits, require_parity, torch_logits
from nas.export.int8 import quantise
from nas.export.record import Format, Preprocessing
from nas.onnx_accuracy import Images, onnx_logits
from nas.onnx_export import export_network
from nas.progress import Notice, ignore
from nas.runtime import open_session
from nas.supernet import Network, scaled

_PARITY_IMAGES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network that is exported, and what it is compared on.

    Attributes:
        network: in evaluation mode.
        data: whose search-validation split it is compared on.
        calibration: normalised training images, which tell the ranges of activations.
        validation: that split, with the network's logits.
        steps: from pictures to the network.
        batch: images at a time that the ONNX files are to take; None for any number.
        most_lost: share of the split that an 8-bit file may lose.
    """

    network: Network
    data: ImageData
    calibration: Images
    validation: Labelled
    steps: Preprocessing
    batch: int | None
    most_lost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A file that is not described yet.

    Attributes:
        model: of an ONNX file, with the input that was asked for.
        content: of another file.
        session: of the ONNX file of this precision, with normalised floats as input.
        precision: of what it computes.
        parity: largest difference of logits from the network's.
        agreement: share of images to which it gives the network's class.
        accuracy: on the search-validation split, of the ONNX file of this precision.
        in_floats: what was not quantised.
    """

    model: onnx.ModelProto | None = None
    content: bytes = b""
    session: Any
    precision: Precision
    parity: float
    agreement: float
    accuracy: float
    in_floats: tuple[str, ...] = ()


def require_same_as_supernet(subject: Subject, supernet: Callable[[Tensor], Tensor]) -> None:
    """Raise `CheckError` if the supernet's logits to real images are not those of the extracted network."""
    logits = torch_logits(supernet, subject.validation.images[:_PARITY_IMAGES])
    require_parity(subject.validation.distance(logits), "supernet")


def make_files(subject: Subject, formats: tuple[Format, ...], *, notice: Notice = ignore) -> dict[Format, Made]:
    """Return a file of each format.

    Args:
        subject: the network.
        formats: keys of `FORMATS`.
        notice: told of operators that stay in floats.

    Raises:
        CheckError: logits of a file in floats differ by more than 1e-4 from the network's, an ONNX file does not pass
            `onnx.checker`'s full check, or an 8-bit file loses more than it may.
    """
    in_floats = export_network(subject.network, batch=subject.batch)
    plain = _in_floats(subject, in_floats)
    makers: Mapping[Format, Callable[[], Made]] = {
        "onnx": lambda: plain,
        "onnx-int8": lambda: _in_integers(subject, in_floats, notice),
        "pt2": lambda: _program(subject, plain),
        "safetensors": lambda: _weights(subject, plain),
    }
    return {each: makers[each]() for each in formats}


def _in_floats(subject: Subject, model: onnx.ModelProto) -> Made:
    onnx_file.check(model)
    session = open_session(model.SerializeToString())
    logits = onnx_logits(session, subject.validation.images)
    return Made(
        model=_with_input(subject, model, session),
        session=session,
        precision="fp32",
        parity=require_parity(subject.validation.distance(logits), "ONNX file"),
        agreement=subject.validation.agreement(logits),
        accuracy=subject.validation.accuracy(logits),
    )


def _in_integers(subject: Subject, in_floats: onnx.ModelProto, notice: Notice) -> Made:
    found = quantise(in_floats, subject.calibration, subject.validation, most_lost=subject.most_lost, notice=notice)
    onnx_file.check(found.model)
    session = open_session(found.model.SerializeToString())
    return Made(
        model=_with_input(subject, found.model, session),
        session=session,
        precision="int8",
        parity=subject.validation.distance(found.logits),
        agreement=subject.validation.agreement(found.logits),
        accuracy=subject.validation.accuracy(found.logits),
        in_floats=found.in_floats,
    )


def _program(subject: Subject, plain: Made) -> Made:
    content, loaded = torch_file.program(subject.network)
    side = subject.steps.size[0]  # which a program takes no images but of, unlike a network
    return _of_torch(subject, plain, content, lambda images: loaded(scaled(images, side)), "pt2 file")


def _weights(subject: Subject, plain: Made) -> Made:
    content, described = torch_file.weights(subject.network, {}), torch_file.config(subject.network, {})
    return _of_torch(subject, plain, content, rebuilt(subject, described, content), "safetensors file")


def rebuilt(subject: Subject, described: str, content: bytes) -> Network:
    """Return the network of a description and of weights, which must be like the one that is exported."""
    shape, classes = subject.network.spec.input_shape, len(subject.data.class_names)
    return torch_file.rebuilt(described, content, shape=shape, classes=classes, source="config.json")


def _of_torch(subject: Subject, plain: Made, content: bytes, loaded: Callable[[Tensor], Tensor], name: str) -> Made:
    logits = torch_logits(loaded, subject.validation.images)
    return Made(
        content=content,
        session=plain.session,
        precision="fp32",
        parity=require_parity(subject.validation.distance(logits), name),
        agreement=subject.validation.agreement(logits),
        accuracy=plain.accuracy,
    )


def _with_input(subject: Subject, model: onnx.ModelProto, session: Any) -> onnx.ModelProto:
    """Return a model with the input that was asked for, compared with what it was."""
    if not subject.steps.in_graph:
        return model
    result = onnx_file.with_pixel_input(model, subject.steps)
    onnx_file.check(result)
    pixels = at_side(subject.data.split("validation").images[:_PARITY_IMAGES], subject.steps.size[0])
    of_pixels = pixel_logits(open_session(result.SerializeToString()), pixels)
    of_floats = onnx_logits(session, subject.steps.normalised(pixels))
    require_parity(distance(of_pixels, of_floats), "ONNX file that takes pixels")
    return result
