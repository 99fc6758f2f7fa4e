"""What every regression offers, and what several of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    """Columns of a feature matrix that are alike, so that they are worth a common prior.

    Attributes:
        width: how many columns; groups stand one after the other.
        coarse: whether they describe the network as a whole, such as its cost, and not one gene.
    """

    width: int
    coarse: bool = False


class Regression(Protocol):
    """A fitted regression; immutable."""

    @property
    def noise(self) -> float:
        """Standard deviation of single evaluations around the function, as far as the rows tell."""

    def mean(self, x: Values) -> Values:
        """Return the expected value ``float64[n]`` for features ``float64[n, k]``; the quick part of a prediction."""

    def std(self, x: Values) -> Values:
        """Return the standard deviation of the function, ``float64[n]``, without the noise of an evaluation."""

    def draw(self, x: Values, n_draws: int, rng: np.random.Generator) -> Values:
        """Return functions that the data allow, each at all of `x`: ``float64[n_draws, n]``."""


Fit = Callable[[Values, Values, "Scaling", int], Regression]
"""Called as ``fit(x, y, scaling, seed)``: features ``float64[n, k]`` from that scaling, and values ``float64[n]``."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """Brings each group of features to mean 0 and a typical squared length of 1; leaves out what never varies.

    Attributes:
        kept: the columns that vary.
        mean, scale: of those.
        groups: those of the groups that are not empty, over the kept columns.
        coarse: which of them are coarse.
    """

    kept: npt.NDArray[np.int64]
    mean: Values
    scale: Values
    groups: tuple[slice, ...]
    coarse: tuple[bool, ...]

    @classmethod
    def of(cls, x: Matrix, groups: Sequence[FeatureGroup] = ()) -> Scaling:
        """Learn from ``float[n, k]``; without groups, all columns are one."""
        scale = x.std(axis=0, dtype=np.float64)
        kept = np.flatnonzero(scale > 1e-9 * np.abs(x).max(axis=0, initial=0.0))
        mean, scale = x[:, kept].mean(axis=0, dtype=np.float64), scale[kept]
        slices, coarse, start = [], [], 0
        for group in groups or [FeatureGroup(x.shape[1])]:
            begin, end = np.searchsorted(kept, [start, start + group.width]).tolist()
            if end > begin:
                slices.append(slice(begin, end))
                coarse.append(group.coarse)
                scale[begin:end] *= np.sqrt(end - begin)
            start += group.width
        assert start == x.shape[1]
        return cls(kept, mean, scale, tuple(slices), tuple(coarse))

    def __call__(self, x: Matrix) -> Values:
        """Return the features that vary, scaled, ``float64[n, k']``."""
        scaled: Values = (x[:, self.kept] - self.mean) / self.scale
        return scaled


@dataclass(frozen=True, slots=True)
class ResidualEnsemble:
    """A linear regression, and an ensemble of functions that was fitted to what it leaves.

    Attributes:
        base: explains the most.
        members: each from features ``float64[n, k]`` to a correction ``float64[n]``.
    """

    base: Regression
    members: tuple[Callable[[Values], Values], ...]

    @property
    def noise(self) -> float:
        """That of the base, which leaves more unexplained: rather too much than too little."""
        return self.base.noise

    def mean(self, x: Values) -> Values:
        """Return the base plus the mean correction."""
        mean: Values = self.base.mean(x) + self._corrections(x).mean(axis=0)
        return mean

    def std(self, x: Values) -> Values:
        """Return the disagreement of the members, joined with the uncertainty of the base."""
        deviation: Values = np.hypot(self.base.std(x), self._corrections(x).std(axis=0, ddof=1))
        return deviation

    def draw(self, x: Values, n_draws: int, rng: np.random.Generator) -> Values:
        """Return draws of the base, each with the correction of a member."""
        chosen = rng.integers(0, len(self.members), size=n_draws)
        drawn: Values = self.base.draw(x, n_draws, rng) + self._corrections(x)[chosen]
        return drawn

    def _corrections(self, x: Values) -> Values:
        return np.stack([member(x) for member in self.members])
