"""Answers of a network from elsewhere, for a supernet to learn from: computed once, so that it runs in no step.

Of each image only the most probable classes are kept, and the rest is spread evenly over the others (TinyViT,
arXiv:2207.10666). They are answers to the images as they are: augmentation must not change what an image shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from nas import runtime
from nas.data import ImageData
from nas.data.function import called
from nas.files import make_folder, sha256_file, write_atomic
from nas.progress import Progress, no_progress
from nas.supernet import scaled
from nas.training_record import TeacherRecord
from search_spaces.errors import InputError

KEPT = 10
"""Classes that are kept of an image's answers."""
FILE = "teacher.safetensors"
_BATCH = 128

_Answer = Callable[[Tensor], Tensor]
"""Returns logits ``float[n, classes]`` of normalised images ``float[n, c, h, w]``."""


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """The answers to all training images.

    Attributes:
        classes: the most probable ones, ``int64[n, k]``.
        shares: their probabilities, ``float32[n, k]``.
        n_classes: in all.
    """

    classes: Tensor
    shares: Tensor
    n_classes: int

    def of(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """Return the probabilities of all classes of some images, ``float32[n, classes]``."""
        classes, shares = self.classes[rows], self.shares[rows]
        others = self.n_classes - classes.shape[1]
        rest = (1.0 - shares.sum(dim=1, keepdim=True)).clamp(min=0.0) / max(1, others)
        return rest.expand(-1, self.n_classes).clone().scatter_(1, classes, shares)


def soft_labels(
    source: str, data: ImageData, *, folder: Path, device: torch.device, progress: Progress = no_progress
) -> tuple[SoftLabels, TeacherRecord]:
    """Return a teacher's answers to the training images: those that a folder keeps, or new ones, which are kept there.

    Args:
        source: an ONNX file, or ``MODULE:FUNCTION`` that returns a ``torch.nn.Module``. Both are given images as the
            supernet is; a file for images of another size, those images scaled.
        data: whose training split.
        folder: where answers are kept.
        device: what a module runs on; files run on the CPU.
        progress: told of images.

    Raises:
        InputError: there is no such teacher, or it is none for these images and classes.
        MachineError: the answers cannot be stored.
    """
    answer, sha256 = _from_file(Path(source), data) if source.endswith(".onnx") else _from_module(source, device)
    path, train = folder / FILE, data.split("train")
    identity = {"teacher": sha256, "data": data.content_hash}
    n_classes = len(data.class_names)
    kept = _kept(path, identity, len(train.labels), n_classes)
    if kept is None:
        logits = torch.cat(list(_logits(answer, source, data, progress)))
        shares, classes = logits.softmax(dim=1).topk(min(KEPT, n_classes), dim=1)
        kept = SoftLabels(classes, shares, n_classes)
        make_folder(folder)
        write_atomic(path, save_tensors({"classes": classes, "shares": shares.contiguous()}, metadata=identity))
    right = float((kept.classes[:, 0] == torch.from_numpy(train.labels)).float().mean())
    return kept, TeacherRecord(source=source, sha256=sha256, train_accuracy=right)


def _kept(path: Path, identity: dict[str, str], n_images: int, n_classes: int) -> SoftLabels | None:
    """Return the answers of a file, unless it is another teacher's, of other images, or damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata() != identity:
                return None
            classes, shares = file.get_tensor("classes"), file.get_tensor("shares")
    except (SafetensorError, OSError):
        return None
    shape = (n_images, min(KEPT, n_classes))
    sound = classes.shape == shares.shape == shape and classes.dtype == torch.int64 and shares.dtype == torch.float32
    if not sound or not 0 <= int(classes.min()) <= int(classes.max()) < n_classes or not torch.isfinite(shares).all():
        return None
    return SoftLabels(classes, shares, n_classes)


def _logits(answer: _Answer, source: str, data: ImageData, progress: Progress) -> Iterator[Tensor]:
    images, n_classes = data.split("train").images, len(data.class_names)
    for start in range(0, len(images), _BATCH):
        given = torch.from_numpy(data.normalise(images[start : start + _BATCH]))
        logits = answer(given).float().cpu()
        if logits.shape != (len(given), n_classes):
            raise InputError(
                f"teacher {source!r} answers {len(given)} images with a tensor of shape {tuple(logits.shape)}, not "
                f"({len(given)}, {n_classes}): the data has {n_classes} classes"
            )
        if not torch.isfinite(logits).all():
            raise InputError(f"teacher {source!r} gives answers that are not finite")
        yield logits
        progress(min(start + _BATCH, len(images)), len(images))


def _from_file(path: Path, data: ImageData) -> tuple[_Answer, str]:
    if not path.is_file():
        raise InputError(f"there is no {path}; --teacher takes an ONNX file, or MODULE:FUNCTION")
    try:
        session = runtime.open_session(path, threads=torch.get_num_threads())
    except runtime.MeasureError as error:
        raise InputError(f"{path}: {error}") from None
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    sizes = [size if isinstance(size, int) else None for size in shape]
    square = len(sizes) == 4 and sizes[1] in (None, data.channels) and sizes[2] == sizes[3]
    if not square or inputs[0].type != "tensor(float)":
        raise InputError(
            f"{path} takes {[f'{each.name}: {each.type} {each.shape}' for each in inputs]}; a teacher takes one "
            f"tensor of 32-bit floats, [n, {data.channels}, side, side]"
        )
    batch, side, name = sizes[0], sizes[2], inputs[0].name

    def answer(images: Tensor) -> Tensor:
        given = scaled(images, side or images.shape[-1]).numpy()
        step = batch or len(given)
        # Where the file is for so many images at a time, the last ones are repeated, and their answers dropped.
        rows = [np.arange(start, start + step).clip(max=len(given) - 1) for start in range(0, len(given), step)]
        try:
            told = [session.run(None, {name: given[each]})[0] for each in rows]
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises is about the user's file
            raise InputError(f"{path} does not run: {str(error).splitlines()[0]}") from None
        return torch.from_numpy(np.concatenate(told)[: len(given)])

    return answer, sha256_file(path)


def _from_module(source: str, device: torch.device) -> tuple[_Answer, str]:
    module = called(source, "teacher")
    if not isinstance(module, nn.Module):
        raise InputError(f"teacher {source!r} must return a torch.nn.Module, not {type(module).__name__}")
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    module = module.to(device).eval()

    @torch.inference_mode()
    def answer(images: Tensor) -> Tensor:
        try:
            logits: Tensor = module(images.to(device))
        except Exception as error:
            raise InputError(f"teacher {source!r} raised {type(error).__name__}: {error}") from error
        if not isinstance(logits, Tensor):
            raise InputError(f"teacher {source!r} answers with {type(logits).__name__}, no tensor")
        return logits

    return answer, digest.hexdigest()
