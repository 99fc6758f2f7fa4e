"""Fronts in bulk: who dominates whom, and who stands out; sorting and crowding are pymoo's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas.engine.problem import Values

Indices = npt.NDArray[np.int64]


def front_rows(minimised: Values) -> Indices:
    """Return the rows of ``float64[n, m]`` that no other row dominates, in their order; of equal rows the first."""
    from moocore import is_nondominated

    if not len(minimised):
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(is_nondominated(minimised, keep_weakly=False))


def best_rows(minimised: Values, violation: Values | None = None, *, n: int) -> Indices:
    """Return at most `n` rows, best first: NSGA-II's order (Deb et al. 2002).

    Args:
        minimised: objectives, ``float64[n, m]``.
        violation: ``float64[n]``; what is above 0 comes after everything else, by how much it is.
        n: how many.
    """
    order, _ = ranked(minimised, np.zeros(len(minimised)) if violation is None else violation, n=n)
    return order


def ranked(minimised: Values, violation: Values, *, n: int) -> tuple[Indices, Indices]:
    """Return at most `n` rows, best first, and their places ``int64[n]``: equal where neither is better.

    Feasible rows come first, by non-dominated rank, then by crowding distance; infeasible ones by their violation.
    """
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    feasible = np.flatnonzero(violation <= 0.0)
    order: list[Indices] = []
    places: list[Indices] = []
    taken = 0
    for front in NonDominatedSorting().do(minimised[feasible], n_stop_if_ranked=n) if len(feasible) else []:
        values = minimised[feasible[front]]
        crowding = calc_crowding_distance(values) if len(front) > 2 else np.full(len(front), np.inf)
        by_crowding = np.argsort(-crowding, kind="stable")
        order.append(feasible[front[by_crowding]])
        # Equal crowding (the ends of a front) is an equal place.
        in_order = crowding[by_crowding]
        falls = np.concatenate([[0], np.cumsum(in_order[1:] < in_order[:-1])])
        places.append(taken + falls)
        taken += len(front)
    rest = np.flatnonzero(violation > 0.0)
    if taken < n and len(rest):
        by_violation = rest[np.argsort(violation[rest], kind="stable")]
        order.append(by_violation)
        places.append(taken + np.arange(len(rest)))
    if not order:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate(order)[:n], np.concatenate(places)[:n]


def hypervolume(minimised: Values, reference: Values) -> float:
    """Return the volume that ``float64[n, m]`` dominates up to a reference point ``float64[m]``; 0 for no rows."""
    import moocore

    return float(moocore.hypervolume(minimised, ref=reference)) if len(minimised) else 0.0
