"""What a search is asked for: objectives to trade off, constraints to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from search_spaces.errors import InputError, unknown_name
from search_spaces.space import Genomes

RESERVED = ("round", "why", "failure", "genome")
"""Columns of a search's history that are no figures."""

Evaluate = Callable[[Genomes], Any]
"""From canonical genomes ``int16[n, n_genes]`` to ``float[n]``, anything that numpy can make an array of."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure of networks that should be small, or large.

    Attributes:
        name: the column that it has in results, with its unit, such as ``latency_ms``.
        evaluate: computes it. A costly one is called with one network at a time, so that each result is kept as soon as
            it is there and a failure is blamed on the right network; a cheap one with thousands. A costly objective
            that is only ever told to a `Search` needs none.
        maximize: whether large is good.
        costly: whether evaluations are to be saved; it is then predicted from those that were made. What is not costly
            is computed for every network that the search looks at, and never predicted.
        upcoming: of a costly one: told of the networks, ``int16[n, n_genes]``, that `evaluate` is going to be called
            with next, so that it can begin with several of them at once; some may be left out after all.
    """

    name: str
    evaluate: Evaluate | None = None
    maximize: bool = False
    costly: bool = False
    upcoming: Callable[[Genomes], None] | None = None

    def __post_init__(self) -> None:
        _check_metric("objective", self.name, self.evaluate, costly=self.costly)
        if self.upcoming is not None and not (self.costly and callable(self.upcoming)):
            raise InputError(f"`upcoming` of objective {self.name!r} is a function, of a costly objective")


@dataclass(frozen=True, slots=True)
class Constraint:
    """Bounds that every returned network keeps, both included.

    Attributes:
        name: of the objective that is bounded; or of a figure of its own, with `evaluate`.
        upper: the largest value allowed.
        lower: the smallest value allowed.
        evaluate: computes a figure that is no objective.
        costly: of a figure with `evaluate`: as of an objective.
    """

    name: str
    upper: float | None = None
    lower: float | None = None
    evaluate: Evaluate | None = None
    costly: bool = False

    def __post_init__(self) -> None:
        if self.evaluate is not None:
            _check_metric("constraint", self.name, self.evaluate, costly=self.costly)
        bounds: list[object] = [bound for bound in (self.lower, self.upper) if bound is not None]
        if not bounds or not all(_is_finite(bound) for bound in bounds):
            raise InputError(
                f"constraint {self.name!r} needs a finite `upper` or `lower`, "
                f"got lower={self.lower}, upper={self.upper}"
            )
        for side in ("lower", "upper"):
            bound = getattr(self, side)
            object.__setattr__(self, side, None if bound is None else float(bound))  # numpy's numbers are no JSON
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise InputError(
                f"constraint {self.name!r}: nothing is at least {self.lower:g} and at most {self.upper:g}; "
                "swap the bounds"
            )

    def __str__(self) -> str:
        """Return the bounds as people write them."""
        low = "" if self.lower is None else f"{self.lower:g} <= "
        high = "" if self.upper is None else f" <= {self.upper:g}"
        return f"{low}{self.name}{high}"


def check_request(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
    """Refuse objectives and constraints that do not fit together.

    Raises:
        InputError: none or repeated objectives; a constraint on nothing, or with a function for what is an objective.
    """
    if not objectives:
        raise InputError("a search needs at least one objective, such as Objective('accuracy', evaluate=..., ...)")
    names = [objective.name for objective in objectives]
    own = [constraint.name for constraint in constraints if constraint.evaluate is not None]
    for name in (*names, *own):
        if [*names, *own].count(name) > 1:
            raise InputError(
                f"{name!r} is given more than once; a constraint on an objective takes its name and no `evaluate`"
            )
    for constraint in constraints:
        if constraint.name not in names and constraint.evaluate is None:
            raise unknown_name("objective in a constraint without `evaluate`", constraint.name, names)
        if constraint.costly and constraint.evaluate is None:
            raise InputError(f"constraint {constraint.name!r} is as costly as its objective; leave `costly` out")


def _check_metric(kind: str, name: object, evaluate: object, *, costly: bool) -> None:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"the name of an {kind} is a word such as 'latency_ms', got {name!r}")
    if name in RESERVED:
        raise InputError(f"{name!r} is a column of the history already; give the {kind} another name")
    if evaluate is None and not costly:
        raise InputError(f"{kind} {name!r} needs `evaluate`; only a costly one can be told instead")
    if evaluate is not None and not callable(evaluate):
        raise InputError(f"`evaluate` of {kind} {name!r} is a function of genomes, got {type(evaluate).__name__}")


def _is_finite(bound: object) -> bool:
    return isinstance(bound, Real) and math.isfinite(bound)
