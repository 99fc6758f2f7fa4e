"""The regression that ranks best, of several, on rows it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from predictors.quality import kendall_tau
from predictors.regression.base import FeatureGroup, Fit, Matrix, Regression, Scaling, Values
from predictors.regression.boosting import fit_boosting
from predictors.regression.gaussian_process import fit_gaussian_process
from predictors.regression.mlp import fit_mlp_ensemble
from predictors.regression.ridge import fit_ridge
from predictors.regression.warp import Warp, fit_warp
from search_spaces.errors import InputError, unknown_name

REGRESSIONS: dict[str, Fit] = {
    "ridge": fit_ridge,
    "gaussian-process": fit_gaussian_process,
    "mlp-ensemble": fit_mlp_ensemble,
    "boosting": fit_boosting,
}
"""In order of preference, cheapest first. To add one: a file, and its line here."""

_FOLDS = 5
_CHOICE_FROM = 40  # with fewer rows, a fold says too little about ranks
_CHOOSE_AGAIN = 1.8
_WARP_AGAIN = 1.2


class ChosenRegression:
    """A regression on features as they are, chosen by cross-validation and fitted again from all rows each time.

    Values are warped first (see `fit_warp`), alike for all. The choice is by Kendall τ on held-out folds and the
    one-standard-error rule (Breiman et al. 1984): the first, and so the cheapest, that is not clearly worse than the
    best. It is made anew when the rows have nearly doubled, the warp a little sooner: for rows that grow.

    Args:
        names: of `REGRESSIONS`, in order of preference; with one name there is nothing to choose.
        seed: of folds, and of regressions that draw.

    Attributes:
        chosen: name of the regression in use.
        held_out_tau: mean τ over the folds by name, as of the last choice; empty before the first.

    Raises:
        InputError: no name, or one that is not known.
    """

    def __init__(self, names: Sequence[str] = tuple(REGRESSIONS), *, seed: int = 0) -> None:
        if not names:
            raise InputError(f"name at least one regression: {', '.join(REGRESSIONS)}")
        for name in names:
            if name not in REGRESSIONS:
                raise unknown_name("regression", name, REGRESSIONS)
        self._names = tuple(names)
        self._seed = seed
        self._chosen_at = self._warped_at = 0
        self._warp = Warp()
        self.chosen = self._names[0]
        self.held_out_tau: dict[str, float] = {}

    def fit(self, raw: Matrix, y: Values, groups: Sequence[FeatureGroup] = ()) -> None:
        """Learn from features ``float[n, k]`` in groups and values ``float64[n]``.

        Raises:
            InputError: fewer than two rows, or figures that are not finite.
        """
        if len(raw) < 2:
            raise InputError(f"a predictor needs at least 2 evaluated networks, got {len(raw)}")
        if not (np.isfinite(raw).all() and np.isfinite(y).all()):
            raise InputError("a predictor learns from finite figures only; leave failed evaluations out")
        self._scaling = Scaling.of(raw, groups)
        x = self._scaling(raw)
        if len(raw) >= _WARP_AGAIN * self._warped_at or not self._warp.suits(y):
            self._warp, self._warped_at = fit_warp(x, y, self._scaling), len(raw)
        warped = self._warp(y)
        if len(self._names) > 1 and len(raw) >= max(_CHOICE_FROM, _CHOOSE_AGAIN * self._chosen_at):
            self._choose(raw, warped, groups)
            self._chosen_at = len(raw)
        self._fitted: Regression = REGRESSIONS[self.chosen](x, warped, self._scaling, self._seed)

    def mean(self, raw: Matrix) -> Values:
        """Return the expected value ``float64[n]``, or the median where values are warped; the quick part."""
        return self._warp.back(self._fitted.mean(self._scaling(raw)))

    def predict(self, raw: Matrix, *, of_evaluation: bool = False) -> tuple[Values, Values]:
        """Return `mean`, and the standard deviation of the function, or that of an evaluation, which has noise."""
        x = self._scaling(raw)
        mean, std = self._fitted.mean(x), self._fitted.std(x)
        if of_evaluation:
            std = np.hypot(std, self._fitted.noise)
        return self._warp.back(mean), std * self._warp.slope(mean)

    def draw(self, raw: Matrix, n_draws: int, rng: np.random.Generator) -> Values:
        """Return functions that the rows allow, each at all features: ``float64[n_draws, n]``."""
        return self._warp.back(self._fitted.draw(self._scaling(raw), n_draws, rng))

    def _choose(self, raw: Matrix, warped: Values, groups: Sequence[FeatureGroup]) -> None:
        fold = np.random.default_rng(self._seed).permutation(len(warped)) % _FOLDS
        taus = {
            name: np.array([self._tau(name, raw, warped, groups, fold == f) for f in range(_FOLDS)])
            for name in self._names
        }
        self.held_out_tau = {name: float(values.mean()) for name, values in taus.items()}
        best = taus[max(taus, key=lambda name: self.held_out_tau[name])]
        # All have the same folds, so what varies by chance is the difference within a fold.
        self.chosen = next(
            name
            for name, values in taus.items()
            if (best - values).mean() <= (best - values).std(ddof=1) / np.sqrt(_FOLDS)
        )

    def _tau(
        self, name: str, raw: Matrix, warped: Values, groups: Sequence[FeatureGroup], held_out: npt.NDArray[np.bool_]
    ) -> float:
        scaling = Scaling.of(raw[~held_out], groups)
        fitted = REGRESSIONS[name](scaling(raw[~held_out]), warped[~held_out], scaling, self._seed)
        return kendall_tau(fitted.mean(scaling(raw[held_out])), warped[held_out])
