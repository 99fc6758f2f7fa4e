"""``boosting``: gradient-boosted trees (Friedman 2001, through scikit-learn) on what a ridge regression leaves."""

from __future__ import annotations

import numpy as np

from predictors.regression.base import Regression, ResidualEnsemble, Scaling, Values
from predictors.regression.ridge import fit_ridge

_MEMBERS = 4


def fit_boosting(x: Values, y: Values, scaling: Scaling, seed: int) -> Regression:
    """Fit to at least two rows; each member to its own bootstrap of them."""
    from sklearn.ensemble import GradientBoostingRegressor

    base = fit_ridge(x, y, scaling, seed)
    if not x.shape[1]:
        return base
    left = y - base.mean(x)
    rng = np.random.default_rng(seed)
    members = []
    for member in range(_MEMBERS):
        rows = rng.integers(0, len(x), size=len(x))
        model = GradientBoostingRegressor(
            n_estimators=80, max_depth=3, learning_rate=0.08, subsample=0.7, max_features="sqrt", random_state=member
        )
        members.append(model.fit(x[rows], left[rows]).predict)
    return ResidualEnsemble(base, tuple(members))
