"""Supernets by recipe: trained on as many images, counted once for every network that sees them."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from common import Study

from nas.evaluate import SubnetEvaluator
from nas.files import make_folder
from nas.fitting import fit, networks_per_image
from nas.ledger import Ledger
from nas.sandwich import LARGEST, SMALLEST, Sandwich
from nas.sandwich_step import SandwichStep
from nas.supernet import Supernet, channels_last
from nas.training import load_supernet, save_supernet
from nas.training_record import TrainingConfig, find_record
from search_spaces.space import Genomes


class FixedOperators(Sandwich):
    """A sandwich whose largest and smallest networks have the same operators in every step."""

    def subnets(self, step: int) -> Genomes:
        """Return the step's networks; the ends' operators are those of the first step."""
        genomes, first = super().subnets(step), super().subnets(0)
        genomes[[LARGEST, SMALLEST]] = first[[LARGEST, SMALLEST]]
        return genomes


def inherited(study: Study) -> pd.DataFrame:
    """Return the accuracy of all networks of the study with the weights of every recipe's supernets."""
    rows = []
    for recipe in study.config["recipes"]:
        for seed in study.config["supernet_seeds"]:
            rows += study.once(f"{recipe}, seed {seed}", partial(_evaluated, study, recipe, seed))
    return pd.DataFrame(rows)


def _evaluated(study: Study, recipe: str, seed: int) -> list[dict[str, Any]]:
    evaluator = _trained(study, recipe, seed)
    _, record = load_supernet(study.space, _folder(study, recipe, seed))
    summary = evaluator.summary()
    told = {
        "recipe": recipe,
        "seed": seed,
        "seconds": record.seconds,
        "largest": summary.largest,
        "random": summary.random,
        "smallest": summary.smallest,
    }
    columns = {"id": study.networks["id"], "validation": evaluator.evaluate(study.genomes).tolist()}
    return [told | dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _trained(study: Study, recipe: str, seed: int) -> SubnetEvaluator:
    """Return an evaluator of a recipe's supernet, which is trained if it is not yet."""
    folder = _folder(study, recipe, seed)
    if find_record(folder) is None:
        make_folder(folder)
        config, kind = _config(study, recipe, seed)
        supernet = channels_last(Supernet(study.space, seed=seed))
        step = SandwichStep(supernet, study.space, kind.of(study.space, config), config)
        fitted = fit(
            supernet, step, study.data, config, checkpoint=folder / "checkpoint.pt", identity=f"{recipe} {config}"
        )
        save_supernet(
            supernet, study.space, data_hash=study.data.content_hash, directory=folder, config=config, fitted=fitted
        )
    supernet, record = load_supernet(study.space, folder)
    return SubnetEvaluator(study.space, supernet, record.supernet_hash, study.data, Ledger(folder / "ledger.db"))


def _config(study: Study, recipe: str, seed: int) -> tuple[TrainingConfig, type[Sandwich]]:
    """Return how a recipe's supernet is trained: the more networks see an image, the fewer steps."""
    changes = dict(study.config["recipes"][recipe])
    kind = FixedOperators if changes.pop("operators", "") == "fixed" else Sandwich
    times = changes.pop("times", 1)
    plain = study.training(seed, **{name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()})
    passes = times * study.config["training"]["steps"] * networks_per_image(study.training(seed))
    steps = round(passes / networks_per_image(plain))
    return dataclasses.replace(plain, steps=steps, warmup_steps=steps // 10), kind


def _folder(study: Study, recipe: str, seed: int) -> Path:
    return study.work / "supernets" / f"{recipe.replace(' ', '-').replace(',', '')}-{seed}"
