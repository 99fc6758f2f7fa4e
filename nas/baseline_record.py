"""What a run keeps of hand-made networks; loads no torch, so that commands can tell of them without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.training_record import TrainingConfig
from search_spaces.documents import document

PLAN_FILE, RESULT_FILE = "plan.json", "baseline.json"


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class BaselinePlan:
    """What is settled before the training starts, so that a killed one goes on with the same network.

    Attributes:
        preset: name of the design.
        width: factor on all its widths.
        depth: factor on all its depths.
        latency_ms: of the whole network, by the protocol of the latency table.
        limit_ms: what that had to keep.
        device: what it was measured on.
        config: of the training.
    """

    CURRENT_VERSION: ClassVar[int] = 2

    format_version: int
    preset: str
    width: float
    depth: float
    latency_ms: float
    limit_ms: float
    device: str
    config: TrainingConfig


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A trained hand-made network.

    Attributes:
        plan: the network and its training.
        params: learned parameters.
        macs: multiply-accumulates of one image.
        validation_accuracy: on the search-validation split, in 0..1.
        validation_standard_error: binomial, of that accuracy.
        validation_images: how many it was counted on.
        images_seen: training images that went through the network.
        seconds: wall time of its training.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    plan: BaselinePlan
    params: int
    macs: int
    validation_accuracy: float
    validation_standard_error: float
    validation_images: int
    images_seen: int
    seconds: float
