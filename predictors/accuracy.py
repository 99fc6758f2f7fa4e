"""Learned accuracy predictors: true evaluations in, ranking of unseen architectures out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from predictors.additive import AdditiveCost
from predictors.features import StructureFeatures
from predictors.regression.chosen import REGRESSIONS, ChosenRegression
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes, SearchSpace

Values = npt.NDArray[np.float64]


class AccuracyPredictor(Protocol):
    """What every predictor offers; fitted again from all rows, never updated in place."""

    def fit(self, genomes: Genomes, y: Values) -> None:
        """Learn from canonical genomes ``int16[n, n_genes]`` with true values ``float64[n]``."""

    def predict(self, genomes: Genomes) -> tuple[Values, Values]:
        """Return mean and standard deviation of an evaluation, ``float64[n]`` each."""


class LearnedPredictor:
    """A regression on the structure of genomes, chosen by cross-validated ranks (see `ChosenRegression`).

    Args:
        space: what the genomes mean.
        known: from genomes to figures that are known anyway, ``float64[n, k]``, such as MACs.
        regressions: names to choose among, cheapest first.
        seed: of the choice, and of regressions that draw.

    Raises:
        InputError: a name is not known.
    """

    def __init__(
        self,
        space: SearchSpace,
        known: Callable[[Genomes], Values] | None = None,
        *,
        regressions: Sequence[str] = tuple(REGRESSIONS),
        seed: int = 0,
    ) -> None:
        self._features = StructureFeatures(space)
        self._known = known
        self._new = functools.partial(ChosenRegression, regressions, seed=seed)
        self._regression = self._new()

    @property
    def chosen(self) -> str:
        """Name of the regression in use."""
        return self._regression.chosen

    def fit(self, genomes: Genomes, y: Values) -> None:
        """Learn from canonical genomes ``int16[n, n_genes]`` with true values ``float64[n]``.

        Raises:
            InputError: fewer than two networks, or figures that are not finite.
        """
        known = None if self._known is None else self._known(genomes)
        groups = self._features.groups(0 if known is None else known.shape[1])
        self._regression = self._new()
        self._regression.fit(self._features(genomes, known), y, groups)

    def predict(self, genomes: Genomes) -> tuple[Values, Values]:
        """Return mean and standard deviation of an evaluation, its noise included, ``float64[n]`` each."""
        raw = self._features(genomes, None if self._known is None else self._known(genomes))
        return self._regression.predict(raw, of_evaluation=True)


def network_costs(space: NetworkSpace) -> Callable[[Genomes], Values]:
    """Return a function that gives MACs and parameters of genomes in bulk, ``float64[n, 2]``."""
    macs = AdditiveCost.of(space, lambda block: block.macs())
    params = AdditiveCost.of(space, lambda block: block.params())
    return lambda genomes: np.stack([macs.predict(genomes), params.predict(genomes)], axis=1)
