"""Random networks of a space, exported in all formats as a user would, but for a training: their weights are random."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from nas.data import ImageData, ImageSplit, load_data
from nas.evaluate import SubnetEvaluator
from nas.export import FORMATS
from nas.export.subnet import ExportOptions, export_subnet
from nas.front import Candidate, Front
from nas.ledger import Ledger
from nas.supernet import Supernet, channels_last
from search_spaces.catalogue import find_space
from search_spaces.language import NetworkSpace

CHANNELS, CLASSES = 1, 10
SUPERNET = "5eed"
_IMAGES = {"train": 48, "validation": 24, "test": 8}


@functools.cache
def pictures(resolution: int) -> ImageData:
    """Return a few handwritten digits at a resolution."""
    data = load_data("digits", resolution=resolution, seed=0)
    splits = {
        name: ImageSplit(split.images[: _IMAGES[name]], split.labels[: _IMAGES[name]])
        for name, split in data.splits.items()
    }
    return dataclasses.replace(data, splits=splits)


def export_random(space: NetworkSpace, evaluator: SubnetEvaluator, seed: int, home: Path) -> Path:
    """Export the network that a seed draws, in every format, and return its folder.

    It is for a device of another machine, so that nothing is measured. Networks that have learned nothing change their
    classes when they are quantised, so that may cost them everything.
    """
    genome = space.sample(1, np.random.default_rng(seed))[0]
    spec = space.lower(genome)
    candidate = Candidate(
        id=space.architecture(genome).id,
        genes=tuple(int(gene) for gene in genome),
        validation_accuracy=0.1,
        validation_standard_error=0.05,
        predicted_latency_ms=1.0,
        measured_latency_ms=None,
        params=spec.params(),
        macs=spec.macs(),
    )
    front = Front(
        space_hash=space.hash,
        supernet_hash=SUPERNET,
        device="kit:target=elsewhere",
        fingerprint_hash="cafe",
        budget_ms=2.0,
        budget_at="min",
        bounds={},
        objectives=("latency_ms",),
        reachable_ms=(0.5, 8.0),
        budget_binds=True,
        margin=0.02,
        seed=0,
        evaluations=1,
        known=1,
        validation_images=_IMAGES["validation"],
        candidates=(candidate,),
        dropped=(),
        comparison=None,
    )
    options = ExportOptions(formats=tuple(FORMATS), most_lost=1.0)
    folder = home / f"{seed}-{candidate.id}"
    export_subnet(evaluator, front, candidate, directory=folder, options=options)
    return folder


def untrained(space_name: str, folder: Path) -> tuple[NetworkSpace, SubnetEvaluator]:
    """Return a space and what evaluates the networks of a supernet that has learned nothing."""
    space = find_space(space_name, channels=CHANNELS, classes=CLASSES)
    supernet = channels_last(Supernet(space, seed=0)).eval()
    data = pictures(space.layout.input.resolution)
    return space, SubnetEvaluator(space, supernet, SUPERNET, data, Ledger(folder / "ledger.db"))
