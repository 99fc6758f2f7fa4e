"""Settings of a training and the record of a finished one; loads no torch, so that commands can ask without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

from nas.files import read_document
from search_spaces.documents import document
from search_spaces.errors import InputError, unknown_name

Accelerator = Literal["auto", "cpu", "cuda"]


def parse_accelerator(name: str) -> Accelerator:
    """Return what to train on; raises `InputError` for an unknown name."""
    for known in get_args(Accelerator):
        if name == known:
            accelerator: Accelerator = known
            return accelerator
    raise unknown_name("accelerator", name, get_args(Accelerator))


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a supernet is trained.

    Attributes:
        steps: of the optimiser; each one updates all subnets of a sandwich.
        batch_size: images per step.
        random_subnets: in a sandwich, beside the largest and the smallest.
        peak_learning_rate: of AdamW, reached after the warm-up, falling to zero as a cosine.
        warmup_steps: over which the rate rises linearly.
        weight_decay: on weights of two dimensions or more.
        gradient_norm: above which gradients are scaled down.
        label_smoothing: of the data's labels.
        distillation: share of the largest subnet's soft labels in the other subnets' loss; the rest is the data's.
        seed: of weights, subnets and the order of images.
    """

    steps: int = 560
    batch_size: int = 32
    random_subnets: int = 2
    peak_learning_rate: float = 3e-3
    warmup_steps: int = 56
    weight_decay: float = 0.05
    gradient_norm: float = 1.0
    label_smoothing: float = 0.1
    distillation: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What stands beside trained weights: how they were made, and the hash that identifies them.

    Attributes:
        config: how they were trained; None if they were imported.
        imported_from: name of the file that they came from; empty if they were trained here.
        space_hash: of the space that they cover.
        data_hash: of the images.
        weights_sha256: of the file.
        final_loss: of the largest subnet in the last step; None if they were imported.
        seconds: wall time of all training steps here.
        torch_version: that trained them.
    """

    CURRENT_VERSION: ClassVar[int] = 3

    format_version: int
    config: TrainingConfig | None
    imported_from: str = ""
    space_hash: str
    data_hash: str
    weights_sha256: str
    final_loss: float | None
    seconds: float = field(compare=False)  # equal trainings do not take equally long
    torch_version: str

    @property
    def trained(self) -> TrainingConfig:
        """How they were trained; raises `InputError` if they were imported."""
        if self.config is None:
            raise InputError(f"the supernet was imported from {self.imported_from}; what it cost is not known")
        return self.config

    @property
    def supernet_hash(self) -> str:
        """Short name of the weights in the ledger."""
        return self.weights_sha256[:16]


def find_record(directory: Path) -> TrainingRecord | None:
    """Return the record of a finished training, or None; raises `InputError` if it cannot be read."""
    path = directory / "training.json"
    return read_document(path, TrainingRecord) if path.exists() else None
