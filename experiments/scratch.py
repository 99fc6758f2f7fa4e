"""Networks that are trained alone, as studies compare them with those of a supernet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.baseline import train_network
from nas.data import ImageData, SplitName
from nas.evaluate import standalone_accuracy
from nas.fitting import images_seen
from nas.training_record import TrainingConfig
from predictors.quality import standard_error
from search_spaces.spec import NetworkSpec

_SPLITS: tuple[SplitName, ...] = ("validation", "test")


def train_alone(spec: NetworkSpec, data: ImageData, config: TrainingConfig, *, checkpoint: Path) -> dict[str, Any]:
    """Train a network from scratch; return its sizes, what it cost, and its accuracies; reads the test split once."""
    network, fitted = train_network(spec, data, config, checkpoint=checkpoint)
    row: dict[str, Any] = {"params": spec.params(), "macs": spec.macs()}
    for split in _SPLITS:
        accuracy = standalone_accuracy(network, data, split)
        row |= {split: accuracy, f"{split}_standard_error": standard_error(accuracy, len(data.split(split).labels))}
    return row | {"images_seen": images_seen(config, data), "seconds": fitted.seconds}
