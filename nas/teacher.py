"""Answers of a network from elsewhere, for a supernet to learn from: asked once, so that it runs in no step.

Of each image only the most probable classes are kept, and the rest is spread evenly over the others (TinyViT,
arXiv:2207.10666). They are answers to the images as they are: augmentation must not change what an image shows.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from nas import runtime
from nas.data import ImageData
from nas.data.function import called, names_a_function
from nas.files import make_folder, write_atomic
from nas.progress import Progress, no_progress
from nas.supernet import scaled
from search_spaces.errors import InputError, first_line, kind_and_first_line

KEPT = 10
"""Classes that are kept of an image's answers."""
FILE = "teacher.safetensors"
_BATCH = 128
_PROBED = 32  # images by whose answers a teacher is known again
_ALIKE = 1e-3  # probability; the same network on another device does not give the same bits
_SAVE_EVERY_S = 60.0

_Answer = Callable[[Tensor], Tensor]
"""Returns logits ``float[n, classes]`` of normalised images ``float[n, c, h, w]``."""


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """Answers to the first training images, or to all.

    Attributes:
        classes: the most probable ones, ``int64[n, k]``.
        shares: their probabilities, ``float32[n, k]``.
        probe: probabilities of all classes for the first of them, ``float32[m, classes]``.
    """

    classes: Tensor
    shares: Tensor
    probe: Tensor

    def of(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the probabilities of all classes of some images, ``float32[n, classes]``."""
        classes, shares, n_classes = self.classes[rows], self.shares[rows], self.probe.shape[1]
        rest = (1.0 - shares.sum(dim=1, keepdim=True)).clamp(min=0.0) / max(1, n_classes - classes.shape[1])
        return rest.expand(-1, n_classes).clone().scatter_(1, classes, shares)

    @property
    def sha256(self) -> str:
        """Hash of the answers."""
        return hashlib.sha256(self.classes.numpy().tobytes() + self.shares.numpy().tobytes()).hexdigest()

    def right(self, labels: npt.NDArray[np.int64]) -> float:
        """Return the share of labels that are the most probable class, 0..1."""
        return float((self.classes[:, 0].numpy() == labels).mean())


class Teacher:
    """A network from elsewhere.

    Args:
        source: an ONNX file, or ``MODULE:FUNCTION`` that returns a ``torch.nn.Module``. Both are given images as the
            supernet is; a file for images of another size, those images scaled.
        data: whose training images it answers to.
        device: what a module runs on; files run on the CPU.

    Raises:
        InputError: there is no such thing, or it is no teacher for these images and classes.
    """

    def __init__(self, source: str, data: ImageData, device: torch.device) -> None:
        self._source, self._data = source, data
        if names_a_function(source):
            self._answer = _module(source, device)
        else:
            self._answer = _file(Path(source), data)
        self._probe = self._ask(0, _PROBED)

    def soft_labels(self, folder: Path, progress: Progress = no_progress) -> SoftLabels:
        """Return its answers to all training images, which a folder keeps; asking goes on where it was stopped.

        Raises:
            InputError: the folder keeps the answers of another teacher.
            MachineError: the answers cannot be stored.
        """
        images = len(self._data.split("train").labels)
        kept = kept_answers(folder, self._data)
        if kept is not None and not torch.allclose(kept.probe, self._probe, rtol=0.0, atol=_ALIKE):
            raise InputError(
                f"{folder / FILE} holds the answers of another teacher than {self._source!r} is now; use another "
                "--run, or remove that file"
            )
        parts = [] if kept is None else [(kept.shares, kept.classes)]
        answered = 0 if kept is None else len(kept.classes)
        saved_s = time.monotonic()
        while answered < images:
            probabilities = self._ask(answered, _BATCH)
            shares, classes = probabilities.topk(min(KEPT, probabilities.shape[1]), dim=1)
            parts.append((shares, classes))
            answered += len(classes)
            if answered == images or time.monotonic() > saved_s + _SAVE_EVERY_S:
                _keep(self._joined(parts), folder, self._data)
                saved_s = time.monotonic()
            progress(answered, images)
        return self._joined(parts)

    def _joined(self, parts: Sequence[tuple[Tensor, Tensor]]) -> SoftLabels:
        shares, classes = (torch.cat(each) for each in zip(*parts, strict=True))
        return SoftLabels(classes, shares, self._probe)

    def _ask(self, start: int, count: int) -> Tensor:
        """Return probabilities of all classes for some training images, ``float32[n, classes]``."""
        images, n_classes = self._data.split("train").images[start : start + count], len(self._data.class_names)
        logits = self._answer(torch.from_numpy(self._data.normalise(images))).float().cpu()
        if logits.shape != (len(images), n_classes):
            raise InputError(
                f"teacher {self._source!r} answers {len(images)} images with a tensor of shape {tuple(logits.shape)}, "
                f"not ({len(images)}, {n_classes}): the data has {n_classes} classes"
            )
        if not torch.isfinite(logits).all():
            raise InputError(f"teacher {self._source!r} gives answers that are not finite")
        return logits.softmax(dim=1)


def kept_answers(folder: Path, data: ImageData) -> SoftLabels | None:
    """Return the answers to training images that a folder keeps, unless they are of other images, or damaged."""
    path, n_classes = folder / FILE, len(data.class_names)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("data") != data.content_hash:
                return None
            soft = SoftLabels(*(file.get_tensor(name) for name in ("classes", "shares", "probe")))
    except (SafetensorError, OSError):
        return None
    shape = (len(soft.classes), min(KEPT, n_classes))
    sound = (
        soft.classes.shape == soft.shares.shape == shape
        and 0 < shape[0] <= len(data.split("train").labels)
        and soft.probe.ndim == 2
        and soft.probe.shape[1] == n_classes
        and soft.classes.dtype == torch.int64
        and soft.shares.dtype == soft.probe.dtype == torch.float32
        and bool(((soft.classes >= 0) & (soft.classes < n_classes)).all())
        and bool(((soft.shares >= 0.0) & (soft.shares <= 1.0)).all())
    )
    return soft if sound else None


def _keep(soft: SoftLabels, folder: Path, data: ImageData) -> None:
    make_folder(folder)
    tensors = {name: getattr(soft, name).contiguous() for name in ("classes", "shares", "probe")}
    write_atomic(folder / FILE, save_tensors(tensors, metadata={"data": data.content_hash}))


def _file(path: Path, data: ImageData) -> _Answer:
    if not path.is_file() or path.suffix != ".onnx":
        raise InputError(
            f"there is no teacher {path}: it is an ONNX file (.onnx), or MODULE:FUNCTION of a torch module"
        )
    try:
        # Weights that torch's exporter has put into a file beside it are taken in.
        session = runtime.open_session(onnx.load(path).SerializeToString(), threads=torch.get_num_threads())
    except Exception as error:  # the file is the user's, and each library has errors of its own
        raise InputError(f"teacher {path} cannot be opened: {first_line(error)}") from error
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    sizes = [size if isinstance(size, int) else None for size in shape]
    square = len(sizes) == 4 and sizes[1] in (None, data.channels) and sizes[2] == sizes[3]
    if not square or inputs[0].type != "tensor(float)":
        raise InputError(
            f"teacher {path} takes {', '.join(f'{each.name}: {each.type} {each.shape}' for each in inputs)}; it is to "
            f"take one tensor of 32-bit floats, [n, {data.channels}, side, side]"
        )
    batch, side, name = sizes[0], sizes[2], inputs[0].name

    def answer(images: Tensor) -> Tensor:
        given = scaled(images, side or images.shape[-1]).numpy()
        step = batch or len(given)
        # Where the file is for so many images at a time, the last ones are repeated, and their answers dropped.
        rows = [np.arange(start, start + step).clip(max=len(given) - 1) for start in range(0, len(given), step)]
        try:
            told = np.concatenate([session.run(None, {name: given[each]})[0] for each in rows])
            return torch.from_numpy(told[: len(given)])
        except Exception as error:
            raise InputError(f"teacher {path} does not run: {first_line(error)}") from error

    return answer


def _module(source: str, device: torch.device) -> _Answer:
    module = called(source, "teacher")
    if not isinstance(module, nn.Module):
        raise InputError(f"teacher {source!r} must return a torch.nn.Module, not {type(module).__name__}")
    module = module.to(device).eval()

    @torch.inference_mode()
    def answer(images: Tensor) -> Tensor:
        try:
            logits: Any = module(images.to(device))
        except Exception as error:
            raise InputError(f"teacher {source!r} raised {kind_and_first_line(error)}") from error
        if not isinstance(logits, Tensor):
            raise InputError(f"teacher {source!r} answers with {type(logits).__name__}, no tensor")
        return logits.clone()

    return answer
