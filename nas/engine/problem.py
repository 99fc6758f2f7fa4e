"""A search problem in bulk: user functions checked and turned into matrices that strategies work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas.engine.objectives import Constraint, Evaluate, Objective, check_request
from search_spaces.errors import InputError, MachineError, ToolError
from search_spaces.space import Genomes, SearchSpace

Values = npt.NDArray[np.float64]

_ENUMERABLE = 20_000
"""Spaces up to this size are listed as a whole, so that nothing in them is missed and their end is known."""


class Problem:
    """What is searched, for what, and within which bounds.

    A *metric* is any figure of a network: the objectives in their order, then the constraints' own figures. Metric
    values are in the user's own sign; `minimised` and `violations` turn them into what is minimised and what must not
    be above 0.

    Args:
        space: what is searched.
        objectives: what is traded off.
        constraints: what is kept.
        known: genomes ``int16[k, n_genes]`` that keep the cheap constraints, such as the cheapest network: where such
            networks are rare, the search starts from here.
        features: more that is known about genomes ``int16[n, n_genes]``, for predictors: ``float[n, k]``.

    Raises:
        InputError: objectives and constraints do not fit together, or `known` are no genomes of the space.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint] = (),
        *,
        known: npt.ArrayLike | None = None,
        features: Evaluate | None = None,
    ) -> None:
        check_request(objectives, constraints)
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        metrics: list[Objective | Constraint] = [*objectives, *(each for each in constraints if each.evaluate)]
        self._functions = [metric.evaluate for metric in metrics]
        self._upcoming = [metric.upcoming if isinstance(metric, Objective) else None for metric in metrics]
        self.metrics = tuple(metric.name for metric in metrics)
        self.costly: npt.NDArray[np.bool_] = np.array([metric.costly for metric in metrics])
        self._signs = np.array([-1.0 if objective.maximize else 1.0 for objective in objectives])
        self._bounds = [(self.metrics.index(constraint.name), constraint) for constraint in constraints]
        self._features = features
        none = np.empty((0, space.n_genes), dtype=np.int16)
        self.known = none if known is None else space.unique(space.check(known))

    @property
    def n_objectives(self) -> int:
        """How many figures are traded off."""
        return len(self.objectives)

    def function(self, metric: int) -> Evaluate | None:
        """Return what computes a metric; none for an objective that is only told."""
        return self._functions[metric]

    def upcoming(self, metric: int) -> Callable[[Genomes], None] | None:
        """Return what wants to know which networks a metric is computed of next, if anything does."""
        return self._upcoming[metric]

    def cheap(self, genomes: Genomes) -> Values:
        """Return all metrics ``float64[n, n_metrics]`` of canonical genomes, NaN in the costly columns.

        Raises:
            InputError: a cheap function raises, or returns another shape than ``[n]``.
        """
        values = np.full((len(genomes), len(self.metrics)), np.nan)
        if not len(genomes):
            return values  # a user's function need not know what to do with none
        for column, (name, function) in enumerate(zip(self.metrics, self._functions, strict=True)):
            if not self.costly[column]:
                assert function is not None
                values[:, column] = call(name, function, genomes)
        return values

    def sign(self, metric: int) -> float:
        """Return 1 for a metric that should be small, -1 for one that should be large, 0 for one without a side."""
        if metric < self.n_objectives:
            return float(self._signs[metric])
        sides = {
            1.0 if constraint.lower is None else -1.0 if constraint.upper is None else 0.0
            for of, constraint in self._bounds
            if of == metric
        }
        return sides.pop() if len(sides) == 1 else 0.0

    def minimised(self, values: Values) -> Values:
        """Return the objectives ``float64[n, m]``, all to be minimised, from metrics ``float64[n, n_metrics]``."""
        minimised: Values = values[:, : self.n_objectives] * self._signs
        return minimised

    def violations(self, values: Values) -> Values:
        """Return by how much each bound is broken, relative to it, ``float64[n, n_constraints]``; kept at 0.

        A metric that is NaN keeps no bound if it is cheap (it cannot be known), every bound if it is costly (it is not
        known yet).
        """
        result = np.zeros((len(values), len(self._bounds)))
        for column, (metric, constraint) in enumerate(self._bounds):
            value = values[:, metric]
            for bound, sign in ((constraint.upper, 1.0), (constraint.lower, -1.0)):
                if bound is not None:
                    excess = sign * (value - bound) / (abs(bound) or 1.0)
                    result[:, column] = np.maximum(result[:, column], excess)
            unknown = np.isnan(value)
            result[unknown, column] = 0.0 if self.costly[metric] else np.inf
        return result

    def feasible(self, values: Values) -> npt.NDArray[np.bool_]:
        """Return which rows of metrics ``float64[n, n_metrics]`` can be searched, ``bool[n]``.

        They keep every bound as far as it is known, and have a value for every cheap metric.
        """
        fine = np.concatenate([np.isfinite(values[:, ~self.costly]), self.violations(values) <= 0.0], axis=1)
        return np.asarray(fine.all(axis=1), dtype=np.bool_)

    def keeps_bounds(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Return which canonical genomes keep all cheap constraints, ``bool[n]``."""
        return self.feasible(self.cheap(genomes))

    def known_figures(self, genomes: Genomes, values: Values) -> Values:
        """Return what is known of genomes beside their genes, ``float64[n, k]``: cheap metrics, the user's features.

        What is not finite counts as 0: it can only mislead a prediction, of networks that are searched all the same.

        Args:
            genomes: canonical, ``int16[n, n_genes]``.
            values: their metrics, ``float64[n, n_metrics]``.

        Raises:
            InputError: the user's function raises, or returns anything else than ``[n, k]``.
        """
        figures = values[:, ~self.costly]
        if self._features is not None and len(genomes):
            figures = np.concatenate([figures, call("features", self._features, genomes, ndim=2)], axis=1)
        return np.where(np.isfinite(figures), figures, 0.0)

    @cached_property
    def everything(self) -> Genomes | None:
        """All genomes that keep the cheap constraints, or None where the space is too large to list."""
        if self.space.count() > _ENUMERABLE:
            return None
        genomes = self.space.enumerate()
        kept: Genomes = genomes[self.keeps_bounds(genomes)]
        return kept


def call(name: str, function: Evaluate, genomes: Genomes, *, ndim: int = 1) -> Values:
    """Call a user's function and check what comes back: ``float64[n]``, or ``float64[n, k]``.

    Raises:
        InputError: it raises, or returns something else; names the function and what it returned.
    """
    try:
        result = np.asarray(function(genomes.copy()))
    except ToolError:
        raise
    except Exception as error:
        raise InputError(f"{name}: evaluate raised {described(error)} for {len(genomes)} networks") from error
    if result.ndim != ndim or len(result) != len(genomes):
        wanted = f"({len(genomes)},)" if ndim == 1 else f"({len(genomes)}, k)"
        raise InputError(f"{name}: evaluate must return shape {wanted} for {len(genomes)} networks, got {result.shape}")
    try:
        return result.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: evaluate must return numbers, got dtype {result.dtype}") from None


def call_costly(name: str, function: Evaluate, genome: Genomes) -> float | str:
    """Return a costly figure of one genome ``int16[1, n_genes]``, or in words why there is none.

    Raises:
        InputError, MachineError: what the function itself explains so; it is not this network's fault.
    """
    try:
        result = np.asarray(function(genome.copy()))
    except (InputError, MachineError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises is the network's failure
        return f"{name} raised {described(error)}"
    if result.shape != (1,):
        return f"{name} returned shape {result.shape} for 1 network instead of (1,)"
    try:
        value = float(result[0])
    except (TypeError, ValueError):
        return f"{name} returned dtype {result.dtype} instead of a number"
    return value if np.isfinite(value) else f"{name} returned {value}"


def described(error: BaseException) -> str:
    """Return an error's kind and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
