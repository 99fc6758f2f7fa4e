"""A network in 8-bit integers that keeps its accuracy: layers that suffer most from quantisation stay in floats."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import onnx

from nas.export.answers import Labelled, Logits
from nas.onnx_accuracy import Images, activation_ranges, onnx_logits
from nas.progress import Notice, ignore
from nas.quantization import Ranges, quantizable, quantized
from nas.runtime import open_session
from search_spaces.errors import CheckError

MOST_LOST = 0.01
"""Share of the search-validation images that quantisation may cost, where the user says nothing."""
LEAST_AGREEMENT = 0.8
"""Share of the search-validation images on which an 8-bit file must give the class that the network in floats gives."""
_PROBED_IMAGES = 64


@dataclass(frozen=True, slots=True)
class Quantised:
    """An 8-bit model.

    Attributes:
        model: with float input and output.
        in_floats: what was left in floats.
        logits: on the search-validation images.
    """

    model: onnx.ModelProto
    in_floats: tuple[str, ...]
    logits: Logits


def quantise(
    model: onnx.ModelProto,
    calibration: Images,
    validation: Labelled,
    *,
    most_lost: float = MOST_LOST,
    notice: Notice = ignore,
) -> Quantised:
    """Quantise a model: all of it if that costs no more accuracy than it may, or else all but the worst layers.

    Each operator is then quantised alone, and the mean squared change of the logits is its damage. Operators stay in
    floats in the order of their damage, twice as many each time, half of all at most.

    Args:
        model: in floats.
        calibration: training images, which tell the ranges of activations and the damage.
        validation: what accuracy is counted on.
        most_lost: share of the images that may be lost.
        notice: told when operators are quantised one by one, which takes a while, and which ones stay in floats.

    Raises:
        CheckError: the accuracy cannot be kept, or the file answers otherwise than the network too often.
    """
    ranges = activation_ranges(model, calibration)
    found = _with(model, ranges, validation, [])
    if not _kept(found, validation, most_lost):
        notice("in 8 bits the network loses more than it may; looking for the operators that do the damage")
        worst, tried, best = _by_damage(model, ranges, calibration[:_PROBED_IMAGES]), 1, found
        while not _kept(best, validation, most_lost) and tried <= max(1, len(worst) // 2):
            found = _with(model, ranges, validation, worst[:tried])
            best = max(best, found, key=lambda each: validation.right(each.logits))
            tried *= 2
        found = best
        notice(f"these stay in floats: {', '.join(found.in_floats) or 'none'}")
    _require_kept(found, validation, most_lost)
    return found


def _kept(found: Quantised, validation: Labelled, most_lost: float) -> bool:
    """Return whether no more images are lost than may be; counted, since shares are not exact."""
    lost = validation.right(validation.logits) - validation.right(found.logits)
    return lost <= math.floor(most_lost * len(validation.labels) + 1e-9)


def _require_kept(found: Quantised, validation: Labelled, most_lost: float) -> None:
    lost = validation.accuracy(validation.logits) - validation.accuracy(found.logits)
    if not _kept(found, validation, most_lost):
        raise CheckError(
            f"the network was not exported: in 8 bits it has {100 * lost:.1f} points fewer of the search-validation "
            f"images right, allowed are {100 * most_lost:.1f}, even with the worst layers in floats; train it for that "
            "with `nas finetune --precision int8` and export it with --finetuned, or allow more with --most-lost"
        )
    if not (agreement := validation.agreement(found.logits)) >= LEAST_AGREEMENT:
        raise CheckError(
            f"the network was not exported: in 8 bits it gives {100 * agreement:.1f} % of the search-validation images "
            f"the class that it gives them in floats; {100 * LEAST_AGREEMENT:.0f} % is the least"
        )


def _with(model: onnx.ModelProto, ranges: Ranges, validation: Labelled, in_floats: list[onnx.NodeProto]) -> Quantised:
    made = quantized(model, ranges, without=[node.name for node in in_floats])
    logits = onnx_logits(open_session(made.SerializeToString()), validation.images)
    return Quantised(made, tuple(_label(node) for node in in_floats), logits)


def _by_damage(model: onnx.ModelProto, ranges: Ranges, images: Images) -> list[onnx.NodeProto]:
    """Return operators, those first whose quantisation changes the logits the most."""
    nodes = quantizable(model)
    exact = onnx_logits(open_session(model.SerializeToString()), images)
    damage: list[float] = []
    for node in nodes:
        alone = open_session(quantized(model, ranges, only=[node.name]).SerializeToString())
        damage.append(float(np.mean(np.square(onnx_logits(alone, images) - exact))))
    return [nodes[position] for position in np.argsort(damage, kind="stable")[::-1]]


def _label(node: onnx.NodeProto) -> str:
    """Return where in the network an operator stands, by the exporter's notes, and what it is."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = [each for each in re.findall(r"'([^']*)'", notes.get("pkg.torch.onnx.name_scopes", "")) if "." in each]
    place = scopes[-1].removeprefix("blocks.") if scopes else node.name
    return f"{place} {node.op_type}"
