"""What stands beside exported files: which there are, their hashes, what was found of them, what to compare with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from nas.budget import Statistic
from nas.devices import Fingerprint, Precision
from nas.files import read_document
from nas.front import Candidate
from search_spaces.documents import document
from search_spaces.errors import InputError, unknown_name

Format = Literal["onnx", "onnx-int8", "pt2", "safetensors"]

RECORD_FILE, CARD_FILE, CONFIG_FILE = "export.json", "README.md", "config.json"
PARITY_LIMIT = 1e-4
"""The most that logits of a file in floats may differ from those of the network that it was made of."""
PROBES = 4
"""Made-up images whose answers the record keeps."""
_CELLS, _SPREAD = 6, 1.7
_LARGEST = 4096  # pixels of a side


@dataclass(frozen=True, slots=True)
class FormatEntry:
    """A format: what its file is called, the precision of what it computes, and what runs it."""

    file: str
    precision: Precision
    about: str

    @property
    def is_onnx(self) -> bool:
        """Whether ONNX Runtime runs the file."""
        return self.file.endswith(".onnx")


FORMATS: Mapping[Format, FormatEntry] = {
    "onnx": FormatEntry("model.onnx", "fp32", "for ONNX Runtime and others, in 32-bit floats"),
    "onnx-int8": FormatEntry("model-int8.onnx", "int8", "the same in 8-bit integers (QDQ)"),
    "pt2": FormatEntry("model.pt2", "fp32", "for `torch.export.load`, without this package"),
    "safetensors": FormatEntry("model.safetensors", "fp32", "weights; what they are of stands in `config.json`"),
}
DEVICE_FORMATS: Mapping[Precision, Format] = {"fp32": "onnx", "int8": "onnx-int8"}
"""What a device of a precision runs."""


def parse_formats(text: str | None, precision: Precision) -> tuple[Format, ...]:
    """Read formats, separated by commas; that of a device of this precision is always among them, and comes first.

    Raises:
        InputError: one is not known.
    """
    asked = [part.strip() for part in (text or "").split(",") if part.strip()]
    if unknown := [part for part in asked if part not in FORMATS]:
        raise unknown_name("format", unknown[0], FORMATS)
    own = DEVICE_FORMATS[precision]
    return (own, *(each for each in FORMATS if each in asked and each != own))


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """One file.

    Attributes:
        format: a key of `FORMATS`.
        file: its name, in the folder of the record.
        sha256: of its content.
        size_bytes: of its content.
        precision: of what it computes.
        parity: largest absolute difference of logits from those of the extracted network, on real images.
        agreement: share of the search-validation images that it gives the same class as the extracted network does.
        in_floats: layers of an 8-bit file that stayed in floats, since their quantisation did the most damage.
        validation_accuracy: on the search-validation split, in 0..1, of the ONNX file of this precision.
        validation_standard_error: binomial, of that accuracy.
        test_accuracy: the same on the test split.
        test_standard_error: binomial, of that accuracy.
        latency_ms: on the first device of the record, by the statistic of the budget; None where that is another
            machine, and for files that ONNX Runtime does not run.
    """

    format: Format
    file: str
    sha256: str
    size_bytes: int
    precision: Precision
    parity: float
    agreement: float
    in_floats: tuple[str, ...]
    validation_accuracy: float
    validation_standard_error: float
    test_accuracy: float
    test_standard_error: float
    latency_ms: float | None


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBudgetKept:
    """How fast the file of the device's precision is on one more device, and what the search allowed."""

    device: str
    budget_ms: float | None
    latency_ms: float


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From a picture to what the network takes.

    Attributes:
        layout: ``NCHW`` in floats, or ``NHWC`` in bytes.
        dtype: of the input.
        in_graph: whether the ONNX files take bytes, 0 to 255, and compute ``(x * scale - mean) / std`` themselves.
        colour: ``grey`` or ``RGB``.
        resize: how images came to their size.
        transparency: what was done with it.
        size: height and width, in pixels.
        scale: factor on bytes.
        mean: per channel, to be subtracted after that.
        std: per channel, to divide by.
    """

    layout: Literal["NCHW", "NHWC"]
    dtype: Literal["float32", "uint8"]
    in_graph: bool
    colour: str
    resize: str
    transparency: str
    size: tuple[int, int]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def in_floats(self) -> Preprocessing:
        """The same for a network that takes normalised floats."""
        return replace(self, layout="NCHW", dtype="float32", in_graph=False)

    def normalised(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return ``uint8[n, height, width, channels]`` as ``float32[n, channels, height, width]``."""
        mean, std = (np.array(each, dtype=np.float32) for each in (self.mean, self.std))
        levels = np.float32(1 / self.scale)
        return np.ascontiguousarray(((pixels / levels - mean) / std).transpose(0, 3, 1, 2), dtype=np.float32)

    def probes(self) -> npt.NDArray[np.uint8]:
        """Return `PROBES` made-up images, ``uint8[n, height, width, channels]``: the same on every machine.

        Random values on a coarse grid, with the data's mean and spread, and even shades between: where neighbours had
        nothing to do with each other, logits of many networks would be hundreds of times those of pictures, and differ
        between machines by as much more.
        """
        (height, width), channels = self.size, len(self.mean)
        shape = (PROBES, _CELLS + 1, _CELLS + 1, channels)
        drawn = hashlib.shake_256(b"paretonas probes").digest(int(np.prod(shape)))
        grid = np.frombuffer(drawn, dtype=np.uint8).reshape(shape).astype(np.int64)
        rows, columns = (_shades(side) for side in (height, width))
        # In whole numbers, so that no machine rounds otherwise.
        values = np.einsum("yi,xj,nijc->nyxc", rows, columns, grid) // (height * width)
        ends = [np.array(self.mean) + sign * _SPREAD * np.array(self.std) for sign in (-1, 1)]
        low, high = (np.clip(np.rint(end / self.scale), 0, 255).astype(np.int64) for end in ends)
        result: npt.NDArray[np.uint8] = (low + (high - low) * values // 255).astype(np.uint8)
        return result


def _shades(side: int) -> npt.NDArray[np.int64]:
    """Return how much of each point of a coarse grid is in each pixel, ``int64[side, points]``; rows sum to `side`."""
    cell, part = np.divmod(np.arange(side) * _CELLS, side)
    weights = np.zeros((side, _CELLS + 1), dtype=np.int64)
    weights[np.arange(side), cell] = side - part
    weights[np.arange(side), cell + 1] = part
    return weights


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecord:
    """The images that accuracies are of.

    Attributes:
        name: what they were loaded by, without folders of the machine.
        content_hash: of their content.
        resolution: side that they were prepared at, before a network scaled them.
        validation_images: how many a validation accuracy was counted on.
        test_images: how many a test accuracy was counted on.
    """

    name: str
    content_hash: str
    resolution: int
    validation_images: int
    test_images: int


_Answers = tuple[tuple[float, ...], ...]


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """What stands beside exported files.

    Attributes:
        files: that of the device first.
        candidate: as the front has it; accuracies and latency there are those of before the export.
        space: name of the space.
        supernet_hash: weights that the network was extracted from.
        weights_hash: weights of the network: those of the supernet, or fine-tuned ones.
        finetuned: whether the network was trained further after it was extracted.
        device: that the network was searched for.
        fingerprint: of it when the files were measured; None if it is another machine.
        batch: images at a time that the ONNX files take; None for any number.
        opset: of the ONNX files.
        budget_ms: that the file of the device was to keep.
        most_lost: share of the search-validation images that an 8-bit file was allowed to lose.
        test_reads: how often the test split has been read with these weights, this time included.
        latency_ms: of the device's file, measured after the search chose it, by the statistic of the budget; None where
            the device is another machine.
        others: the same on the other devices of the front; those of other machines are left out.
        inside_budget: whether all that was measured is within the budgets, those that there are.
        config_sha256: of ``config.json``, where there is one.
        answers: logits to `Preprocessing.probes`, of the network and, in 8 bits, of the file; ``nas verify`` asks
            again.
    """

    CURRENT_VERSION: ClassVar[int] = 4

    format_version: int
    files: Annotated[tuple[ExportedFile, ...], Field(min_length=1)]
    candidate: Candidate
    space: str
    space_hash: str
    supernet_hash: str
    weights_hash: str
    finetuned: bool
    device: str
    fingerprint: Fingerprint | None
    batch: int | None
    opset: int
    budget_ms: float | None
    budget_at: Statistic
    most_lost: float
    data: DataRecord
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    test_reads: int
    latency_ms: float | None
    others: tuple[DeviceBudgetKept, ...]
    inside_budget: bool
    config_sha256: str | None
    answers: dict[Precision, _Answers]
    created: str

    @property
    def main(self) -> ExportedFile:
        """The file that was searched for."""
        return self.files[0]


def read_export(directory: Path) -> ExportedModel:
    """Read the record of an exported network; where its files are named, they are in the same folder.

    Raises:
        InputError: there is none, or it is not valid.
        MachineError: it cannot be read.
    """
    path = directory / RECORD_FILE
    if directory.is_file():
        raise InputError(f"{directory} is a file; name the folder that `nas export` wrote")
    record = read_document(path, ExportedModel, next_step="run `nas export`, or name the folder that it wrote")
    for each in record.files:
        if each.file != FORMATS[each.format].file or each.precision != FORMATS[each.format].precision:
            raise InputError(f"{path}: files: {each.file!r} is not what the file of format {each.format} is called")
        if not re.fullmatch(r"[0-9a-f]{64}", each.sha256):
            raise InputError(f"{path}: files: {each.sha256!r} is no SHA-256")
    steps = record.preprocessing
    sound = 0 < steps.scale <= 1 and all(each > 0 for each in steps.std)
    sides = (*steps.size, record.data.resolution)
    if not (sound and 1 <= len(steps.mean) == len(steps.std) <= 4 and all(1 <= side <= _LARGEST for side in sides)):
        raise InputError(f"{path}: preprocessing is of no image")
    shapes = {(len(rows), *{len(row) for row in rows}) for rows in record.answers.values()}
    missing = {"fp32", *(each.precision for each in record.files)} - record.answers.keys()
    if missing or not record.class_names or shapes != {(PROBES, len(record.class_names))}:
        raise InputError(f"{path}: answers are not {PROBES} rows of {len(record.class_names)} classes each")
    return record
