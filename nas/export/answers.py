"""What networks and files answer to images, and how far two of them may be apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.data import ImageData
from nas.evaluate import BATCH_SIZE
from nas.export.record import PARITY_LIMIT, Preprocessing
from nas.onnx_accuracy import Images, images_at_a_time, onnx_logits
from nas.onnx_format import INPUT
from nas.supernet import scaled
from search_spaces.errors import CheckError

Logits = npt.NDArray[np.float32]
"""Of images, ``float32[n, classes]``."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images with what is known of them.

    Attributes:
        images: normalised, ``float32[n, c, h, w]``.
        labels: ``int64[n]``.
        logits: of the network in floats, ``float32[n, classes]``.
    """

    images: Images
    labels: npt.NDArray[np.int64]
    logits: Logits

    def right(self, logits: Logits) -> int:
        """Return how many images logits have right."""
        return int(np.sum(logits.argmax(axis=1) == self.labels))

    def accuracy(self, logits: Logits) -> float:
        """Return the share of the images that logits have right."""
        return self.right(logits) / len(self.labels)

    def agreement(self, logits: Logits) -> float:
        """Return the share of images, of the first ones, to which logits give the class that the network gives."""
        return float(np.mean(logits.argmax(axis=1) == self.logits[: len(logits)].argmax(axis=1)))

    def distance(self, logits: Logits) -> float:
        """Return the largest absolute difference of logits, of the first images, from those of the network."""
        return distance(logits, self.logits[: len(logits)])


@torch.inference_mode()
def torch_logits(network: Callable[[Tensor], Tensor], images: Images) -> Logits:
    """Return the logits of a network in evaluation mode to normalised images."""
    batches: tuple[Tensor, ...] = torch.split(torch.from_numpy(images), BATCH_SIZE)
    logits: Logits = torch.cat([network(batch) for batch in batches]).numpy()
    return logits


def pixel_logits(session: Any, pixels: npt.NDArray[np.uint8]) -> Logits:
    """Return the logits of an ONNX model that takes ``uint8[n, height, width, channels]``, of its size.

    Raises:
        CheckError: one is not finite.
    """
    step = images_at_a_time(session)
    padded = np.concatenate([pixels, np.repeat(pixels[-1:], -len(pixels) % step, axis=0)])
    parts = [session.run(None, {INPUT: padded[at : at + step]})[0] for at in range(0, len(padded), step)]
    logits: Logits = np.concatenate(parts)[: len(pixels)]
    if not np.isfinite(logits).all():
        raise CheckError("logits are not finite")
    return logits


def file_logits(session: Any, pixels: npt.NDArray[np.uint8], steps: Preprocessing) -> Logits:
    """Return the logits of an exported ONNX file to ``uint8[n, height, width, channels]`` of its size."""
    return pixel_logits(session, pixels) if steps.in_graph else onnx_logits(session, steps.normalised(pixels))


def data_logits(session: Any, pixels: npt.NDArray[np.uint8], data: ImageData, steps: Preprocessing) -> Logits:
    """Return the logits of an exported ONNX file to ``uint8[n, height, width, channels]`` of a data set."""
    if not steps.in_graph:
        return onnx_logits(session, _as(steps, data).normalise(pixels))
    # Scaled in parts: in floats they are four times as large.
    parts = np.array_split(pixels, -(-len(pixels) // BATCH_SIZE))
    return np.concatenate([pixel_logits(session, at_side(part, steps.size[0])) for part in parts])


def _as(steps: Preprocessing, data: ImageData) -> ImageData:
    """Return a data set that is normalised as the network expects it, whatever its own statistics are."""
    return replace(data, mean=steps.mean, std=steps.std)


def at_side(pixels: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Return images ``uint8[n, height, width, channels]`` scaled to a side, in bytes again."""
    floats = scaled(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), side)
    result: npt.NDArray[np.uint8] = floats.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    return result


def distance(first: Logits, second: Logits) -> float:
    """Return the largest absolute difference of logits."""
    return float(np.abs(first - second).max())


def require_parity(apart: float, of: str) -> float:
    """Return a difference of logits that is small enough; raise `CheckError` for others, NaN included."""
    if not apart <= PARITY_LIMIT:  # NaN is not
        raise CheckError(
            f"the network was not exported: logits of the {of} and of the network differ by {apart:.1e}, allowed is "
            f"{PARITY_LIMIT:.0e}"
        )
    return apart
