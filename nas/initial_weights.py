"""A training that starts from weights of elsewhere: of another run, of a file, or published ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from nas.files import sha256_file
from nas.ofa_weights import published_tensors
from nas.supernet import Supernet
from nas.training_record import WEIGHTS_FILE, InitialWeights, find_record, weights_intact
from search_spaces.errors import InputError, MachineError, first_line
from search_spaces.language import NetworkSpace

_PUBLISHED = (".pth", ".pt", ".bin")
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


def take_over(supernet: Supernet, space: NetworkSpace, source: Path) -> InitialWeights:
    """Replace weights by those of the same name and shape from elsewhere; others stay as they were drawn.

    Args:
        supernet: whose weights are replaced.
        space: what it covers.
        source: a run, a ``.safetensors`` file, or a published checkpoint of Once-for-All (``.pth``).

    Raises:
        InputError: there is no such thing, it cannot be read, or nothing in it fits.
        MachineError: the disk refuses to read it.
    """
    path = _weights_of(source)
    if path.suffix in _PUBLISHED:
        theirs: Mapping[str, Tensor] = published_tensors(space, supernet, path, new_classifier=None)
    else:
        theirs = _stored(path)
    ours = supernet.state_dict()
    matched = {
        name: value.to(ours[name].dtype)
        for name, value in theirs.items()
        if name in ours and value.shape == ours[name].shape and value.dtype in _NUMBERS
    }
    for name in ours:
        # A width that has layer scales of its own begins with the first ones of a supernet whose widths share them.
        layer, switched, width = name.rpartition(".switched.")
        if switched and name not in theirs and f"{layer}.gamma" in matched:
            matched[name] = matched[f"{layer}.gamma"][: int(width)].clone()
    if not any(name in matched for name, _ in supernet.named_parameters()):
        raise InputError(
            f"nothing in {path} fits the space {space.name}: no tensor has a name and shape of its supernet"
        )
    for name, value in matched.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name} holds values that are not finite in 32 bits")
    supernet.load_state_dict({**ours, **matched})
    learned = {name for name, _ in supernet.named_parameters()}
    return InitialWeights(
        source=source.resolve().name,
        sha256=sha256_file(path),
        matched=len(matched),
        drawn=tuple(name for name in ours if name not in matched and name in learned),
        unused=tuple(name for name in theirs if name not in matched),
    )


def _weights_of(source: Path) -> Path:
    """Return the file of weights of a run or of a supernet's folder, checked against its record; a file is itself."""
    if not source.is_dir():
        if not source.exists():
            raise InputError(f"there is no {source}; --init takes a run or a file of weights")
        return source
    folder = source / "supernet" if (source / "supernet").is_dir() else source
    record, path = find_record(folder), folder / WEIGHTS_FILE
    if record is None:
        raise InputError(f"{source} holds no trained supernet; --init takes a run or a file of weights")
    if not weights_intact(record, folder):
        raise InputError(f"{path} is missing or damaged (its hash is not the recorded one)")
    return path


def _stored(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, ValueError) as error:  # a type of numbers that torch does not know is a KeyError
        raise InputError(f"{path} is no file of weights: {first_line(error)}") from None
