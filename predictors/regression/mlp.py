"""``mlp-ensemble``: small neural networks (through scikit-learn) on what a ridge regression leaves.

Networks that start from different weights agree where there are data (Lakshminarayanan et al. 2017, arXiv:1612.01474).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from predictors.regression.base import Regression, ResidualEnsemble, Scaling, Values
from predictors.regression.ridge import fit_ridge

_MEMBERS = 5
_HIDDEN = 32
_PENALTY = 10.0
_STEPS = 120


@dataclass(frozen=True, slots=True)
class _Network:
    """A fitted network with one hidden layer of ReLUs; scikit-learn's own prediction checks more than it computes."""

    into: Values
    hidden_bias: Values
    out: Values
    bias: float

    def __call__(self, x: Values) -> Values:
        result: Values = np.maximum(x @ self.into + self.hidden_bias, 0.0) @ self.out + self.bias
        return result


def fit_mlp_ensemble(x: Values, y: Values, scaling: Scaling, seed: int) -> Regression:
    """Fit to at least two rows."""
    from sklearn.neural_network import MLPRegressor

    base = fit_ridge(x, y, scaling, seed)
    left = y - base.mean(x)
    scale = float(left.std())
    if not x.shape[1] or scale == 0.0:
        return base
    spread = x.std(axis=0)
    members: list[Callable[[Values], Values]] = []
    for member in range(_MEMBERS):
        model = MLPRegressor(
            hidden_layer_sizes=(_HIDDEN,),
            solver="lbfgs",
            alpha=_PENALTY,
            max_iter=_STEPS,
            random_state=seed % 2**31 + member,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a limit of steps is a penalty too
            model.fit(x / spread, left / scale)
        into, out = model.coefs_
        hidden_bias, bias = model.intercepts_
        members.append(_Network(into / spread[:, None], hidden_bias, scale * out[:, 0], scale * float(bias[0])))
    return ResidualEnsemble(base, tuple(members))
