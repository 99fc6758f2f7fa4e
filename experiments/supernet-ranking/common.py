"""What the parts of this study share: its settings, its networks, its trainings."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nas.data import ImageData, load_data
from nas.run import SPLIT_SEED
from nas.training_record import TrainingConfig
from search_spaces.catalogue import find_space
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.study import ConfiguredStudy, save_table  # noqa: E402

save = functools.partial(save_table, RESULTS)
Values = npt.NDArray[np.float64]


class Study(ConfiguredStudy):
    """The settings, and where what was trained is kept."""

    @functools.cached_property
    def data(self) -> ImageData:
        """The images."""
        return load_data(self.config["data"], resolution=self.space.layout.input.resolution, seed=SPLIT_SEED)

    @functools.cached_property
    def space(self) -> NetworkSpace:
        """What is searched."""
        return find_space(self.config["space"], channels=1, classes=10)

    def training(self, seed: int, **changes: object) -> TrainingConfig:
        """Return how everything is trained, but for some changes."""
        plain = TrainingConfig(**self.config["training"], seed=seed)
        return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]

    @functools.cached_property
    def networks(self) -> pd.DataFrame:
        """What ``networks.csv`` holds."""
        return pd.read_csv(RESULTS / "networks.csv")

    @functools.cached_property
    def genomes(self) -> Genomes:
        """The networks' genes, ``int16[n, n_genes]``."""
        return self.space.check([[int(gene) for gene in genes.split()] for genes in self.networks["genes"]])
