"""Published weights of Once-for-All's MobileNetV3 supernets (arXiv:1908.09791), brought into the space `ofa-mbv3`.

The layout of such a checkpoint is that of the public code: blocks are numbered through all stages, and names come in
two generations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from nas.supernet import Supernet
from search_spaces.errors import InputError, MachineError, first_line
from search_spaces.language import NetworkSpace
from search_spaces.ofa import WIDTHS, ofa_mbv3

_BLOCKS_PER_STAGE = 4
_STEM = "slots.stem.stem.conv.weight"
_CLASSIFIER = ("slots.head.head.classify.weight", "slots.head.head.classify.bias")
_NORM = ("weight", "bias", "running_mean", "running_var")
_SHORTER = {".conv.conv.weight": ".conv.weight", ".bn.bn.": ".bn.", ".linear.linear.": ".linear."}
_SHOWN = 4


def read_weights(space: NetworkSpace, checkpoint: Path, *, new_classifier: bool = False) -> Supernet:
    """Return a supernet with published weights.

    Args:
        space: `ofa-mbv3` at the checkpoint's width.
        checkpoint: as published: a state dict, or a dictionary that has one under ``state_dict``.
        new_classifier: leave the last layer as it is drawn, instead of taking it from the checkpoint.

    Raises:
        InputError: the space is another one; the file is no such checkpoint; its names or shapes do not fit.
        MachineError: the file cannot be read.
    """
    supernet = Supernet(space, seed=0)
    tensors = published_tensors(space, supernet, checkpoint, new_classifier=new_classifier)
    supernet.load_state_dict({**supernet.state_dict(), **tensors})
    return supernet


def published_tensors(
    space: NetworkSpace, supernet: Supernet, checkpoint: Path, *, new_classifier: bool | None
) -> dict[str, Tensor]:
    """Return published weights under the names that they have in a supernet, as `read_weights` puts them there.

    Args:
        space: `ofa-mbv3` at the checkpoint's width.
        supernet: of the space; it stays as it is.
        checkpoint: as published.
        new_classifier: whether to leave out the last layer; None is where it is of another number of classes.
    """
    image = space.layout.input
    known = [
        ofa_mbv3(image.channels, image.classes, width=width, resolution=image.resolutions).hash for width in WIDTHS
    ]
    if space.hash not in known:
        raise InputError(f"published weights fit the space ofa-mbv3; this run's is {space.name}")
    published = _renamed(_state_dict(checkpoint), checkpoint)
    ours = supernet.state_dict()
    if new_classifier is None:
        classifier = published.get("classifier.linear.weight")
        new_classifier = classifier is not None and classifier.shape != ours[_CLASSIFIER[0]].shape
    names = {theirs: mine for theirs, mine in _names(ours) if not (new_classifier and mine in _CLASSIFIER)}
    unused = ("classifier.linear.",) if new_classifier else ()
    missing = sorted(names.keys() - published.keys())
    extra = sorted(name for name in published.keys() - names.keys() if not name.startswith(unused))
    shapes = {theirs: _published_shape(theirs, ours[mine]) for theirs, mine in names.items()}
    misshapen = [
        f"{theirs} is {tuple(published[theirs].shape)}, not {shape}"
        for theirs, shape in shapes.items()
        if theirs in published and tuple(published[theirs].shape) != shape
    ]
    _refuse(checkpoint, missing, extra, misshapen)
    # What they leave out is nothing to us: the second to last layer has no bias.
    result = {"slots.head.head.widen.bias": torch.zeros_like(ours["slots.head.head.widen.bias"])}
    for theirs, mine in names.items():
        value = published[theirs].to(torch.float32)
        if not torch.isfinite(value).all():
            raise InputError(f"{checkpoint}: {theirs} holds values that are not finite")
        if mine == _STEM and image.channels == 1:
            value = value.sum(1, keepdim=True)  # a grey image is one whose three colours are the same
        result[mine] = value.reshape(ours[mine].shape)
    return result


def _state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint without executing anything that it holds."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - torch documents no error type for damaged files
        raise InputError(f"{path} is no checkpoint of tensors alone: {first_line(error)}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(_is_plain(value) for value in content.values()):
        raise InputError(f"{path} holds no state dict: a dictionary of plain tensors by name")
    return {str(name): value for name, value in content.items()}


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _published_shape(name: str, ours: Tensor) -> tuple[int, ...]:
    """Return the shape that a tensor of ours has in a checkpoint."""
    if name == "feature_mix_layer.conv.weight":
        return (*ours.shape, 1, 1)  # a convolution there, a linear layer here
    if name == "first_conv.conv.weight":
        return (ours.shape[0], 3, *ours.shape[2:])
    return tuple(ours.shape)


def _renamed(content: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors under the shorter of the names that the public code has had for them."""
    result: dict[str, Tensor] = {}
    for name, value in content.items():
        short = name.removeprefix("module.").replace(".mobile_inverted_conv.", ".conv.")
        for twice, once in _SHORTER.items():
            short = short.replace(twice, once)
        if short.endswith(".num_batches_tracked"):
            continue
        if short in result:
            raise InputError(f"{path}: {name} is there twice, under another name")
        result[short] = value
    return result


def _names(ours: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield published names and ours."""
    yield "first_conv.conv.weight", _STEM
    yield from _norm("first_conv.bn", "slots.stem.stem.norm")
    for number in range(1 + 5 * _BLOCKS_PER_STAGE):
        stage, block = divmod(number - 1, _BLOCKS_PER_STAGE) if number else (-1, 0)
        theirs, mine = f"blocks.{number}.conv", f"slots.stage{stage + 2}_block{block + 1}.mbconv"
        if number:
            yield f"{theirs}.inverted_bottleneck.conv.weight", f"{mine}.expand.weight"
            yield from _norm(f"{theirs}.inverted_bottleneck.bn", f"{mine}.expand_norm")
            yield f"{theirs}.depth_conv.conv.7to5_matrix", f"{mine}.depthwise.transforms.5"
            yield f"{theirs}.depth_conv.conv.5to3_matrix", f"{mine}.depthwise.transforms.3"
        yield f"{theirs}.depth_conv.conv.weight", f"{mine}.depthwise.weight"
        yield from _norm(f"{theirs}.depth_conv.bn", f"{mine}.depthwise_norm")
        for layer in ("reduce", "expand"):
            if f"{mine}.squeeze.{layer}.weight" in ours:
                for part in ("weight", "bias"):
                    yield f"{theirs}.depth_conv.se.fc.{layer}.{part}", f"{mine}.squeeze.{layer}.{part}"
        yield f"{theirs}.point_linear.conv.weight", f"{mine}.project.weight"
        yield from _norm(f"{theirs}.point_linear.bn", f"{mine}.project_norm")
    yield "final_expand_layer.conv.weight", "slots.head.head.expand.weight"
    yield from _norm("final_expand_layer.bn", "slots.head.head.expand_norm")
    yield "feature_mix_layer.conv.weight", "slots.head.head.widen.weight"
    for mine in _CLASSIFIER:
        yield f"classifier.linear.{mine.rpartition('.')[2]}", mine


def _norm(theirs: str, mine: str) -> Iterator[tuple[str, str]]:
    for part in _NORM:
        yield f"{theirs}.{part}", f"{mine}.{part}"


def _refuse(path: Path, missing: list[str], extra: list[str], misshapen: list[str]) -> None:
    classes = [text for text in misshapen if text.startswith("classifier.")]
    if classes and len(classes) == len(misshapen) and not missing and not extra:
        raise InputError(
            f"{path}: {classes[0]}: the data have another number of classes; with --new-classifier the last layer "
            "stays untrained, and accuracies mean nothing until it is trained"
        )
    problems = [
        f"{len(found)} {what} ({', '.join(found[:_SHOWN])}{', …' if len(found) > _SHOWN else ''})"
        for what, found in (("missing", missing), ("unknown", extra), ("of another shape", misshapen))
        if found
    ]
    if problems:
        raise InputError(
            f"{path} does not fit ofa-mbv3: tensors {'; '.join(problems)}; is it the MobileNetV3 supernet with kernels "
            "3/5/7, expansions 3/4/6, depths 2/3/4, and of this width?"
        )
