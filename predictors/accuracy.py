"""Learned accuracy predictors: true evaluations in, ranking of unseen architectures out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from predictors.additive import AdditiveCost
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]
Features = Callable[[Genomes], npt.NDArray[np.float32]]


class AccuracyPredictor(Protocol):
    """What every predictor offers; fitted again from all rows, never updated in place."""

    def fit(self, genomes: Genomes, y: Values) -> None:
        """Learn from canonical genomes ``int16[n, n_genes]`` with true values ``float64[n]``."""

    def predict(self, genomes: Genomes) -> tuple[Values, Values]:
        """Return mean and standard deviation, ``float64[n]`` each."""


class RidgePredictor:
    """Bayesian ridge regression (MacKay 1992, as in scikit-learn), its own penalty fitted by evidence.

    Args:
        features: from genomes to ``float32[n, n_features]``.
    """

    def __init__(self, features: Features) -> None:
        self._features = features

    def fit(self, genomes: Genomes, y: Values) -> None:
        """Learn from canonical genomes ``int16[n, n_genes]`` with true values ``float64[n]``, n at least 2."""
        from sklearn.linear_model import BayesianRidge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if len(genomes) < 2:
            raise ValueError(f"a predictor needs at least 2 evaluated networks, got {len(genomes)}")
        self._model: Any = make_pipeline(StandardScaler(), BayesianRidge())
        self._model.fit(self._features(genomes).astype(np.float64), y)

    def predict(self, genomes: Genomes) -> tuple[Values, Values]:
        """Return mean and standard deviation, ``float64[n]`` each."""
        mean, std = self._model.predict(self._features(genomes).astype(np.float64), return_std=True)
        return mean, std


def structure_features(space: NetworkSpace) -> Features:
    """Return features that know the structure: masked one-hots, and log MACs and parameters as prior knowledge.

    Cost alone already ranks networks well over the whole range of a space, so the one-hots only have to explain the
    rest.
    """
    macs = AdditiveCost.of(space, lambda block: block.macs())
    params = AdditiveCost.of(space, lambda block: block.params())

    def features(genomes: Genomes) -> npt.NDArray[np.float32]:
        costs = np.log(np.stack([macs.predict(genomes), params.predict(genomes)], axis=1))
        return np.concatenate([space.encode(genomes), costs.astype(np.float32)], axis=1)

    return features
