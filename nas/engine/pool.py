"""Networks that keep the cheap constraints: found in bounded time, however rare they are, or shown not to be there."""

from __future__ import annotations

import numpy as np

from nas.engine.problem import Problem, Values
from search_spaces.errors import InputError
from search_spaces.space import Genomes

_ROUNDS = 24
_DRAW = 2048
_KEPT = 256  # the nearest to feasible, from which the next round starts


def feasible_pool(problem: Problem, size: int, rng: np.random.Generator, *, found: Genomes | None = None) -> Genomes:
    """Return up to about `size` distinct canonical genomes that keep the cheap constraints, known ones first.

    Infeasible networks never cost a true evaluation (EEEA-Net's early exit, arXiv:2108.06156), and there is no
    unbounded rejection loop: rounds of random draws alternate with mutations of what is feasible, or nearest to it.
    A space that is small enough is listed, so that the pool has all there is.

    Args:
        problem: what is searched.
        size: how many are enough.
        rng: of all draws.
        found: genomes ``int16[k, n_genes]`` from earlier, of which those that keep the bounds are known, too.
    """
    space = problem.space
    told = problem.known if found is None else np.concatenate([problem.known, found])
    known = space.unique(told[problem.keeps_bounds(told)])
    if problem.everything is not None:
        rest = problem.everything[rng.permutation(len(problem.everything))]
        pool: Genomes = space.unique(np.concatenate([known, rest]))
        return pool[: max(size, len(known))]
    pool, nearest, distance = known, problem.known, np.empty(0)
    for turn in range(_ROUNDS):
        parents = pool if len(pool) else nearest
        if turn % 2 == 0 or not len(parents):
            drawn = space.sample(_DRAW, rng)
        else:
            chosen = parents[rng.integers(0, len(parents), size=_DRAW)]
            drawn = space.mutate(chosen, rng, probability=2.0 / space.n_genes)
        values = problem.cheap(drawn)
        kept = problem.feasible(values)
        pool = space.unique(np.concatenate([pool, drawn[kept]]))
        if len(pool) >= size:
            break
        if not len(pool):
            nearest, distance = _nearest(problem, nearest, distance, drawn, values)
    return pool


def refuse_empty(problem: Problem, rng: np.random.Generator) -> None:
    """Refuse bounds that no network keeps.

    Raises:
        InputError: no feasible network was found; names the range that each bounded cheap metric was seen to reach.
    """
    if len(feasible_pool(problem, 1, rng)):
        return
    ranges = []
    for metric in (~problem.costly).nonzero()[0]:
        low, high = reachable(problem, int(metric), rng)
        name = problem.metrics[metric]
        if np.isnan(low):
            raise InputError(f"{name}: evaluate gives no network a finite value; mend the function")
        bounds = [constraint for constraint in problem.constraints if constraint.name == name]
        ranges += [f"{constraint} (reachable: {low:g} to {high:g})" for constraint in bounds]
    one = len(ranges) == 1
    raise InputError(
        f"no network keeps {'the bound ' if one else 'all bounds at once: '}{', '.join(ranges)}; "
        f"loosen {'it' if one else 'one of them'}"
    )


def reachable(problem: Problem, metric: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the smallest and the largest value found of a cheap metric, NaN if none has any; exact in small spaces."""
    space = problem.space
    if space.count() <= _DRAW * _ROUNDS // 2:
        values = problem.cheap(space.enumerate())[:, metric]
        finite = values[np.isfinite(values)]
        return (float(finite.min()), float(finite.max())) if len(finite) else (np.nan, np.nan)
    ends = []
    for sign in (1.0, -1.0):
        best = np.concatenate([problem.known, space.sample(_DRAW, rng)])
        for _ in range(_ROUNDS):
            parents = best[rng.integers(0, len(best), size=_DRAW)]
            drawn = space.mutate(parents, rng, probability=1.0 / space.n_genes)
            best = space.unique(np.concatenate([best, drawn]))
            # NaN sorts last.
            best = best[np.argsort(sign * problem.cheap(best)[:, metric], kind="stable")[:_KEPT]]
        ends.append(float(problem.cheap(best[:1])[0, metric]))
    return ends[0], ends[1]


def _nearest(
    problem: Problem, genomes: Genomes, distance: Values, drawn: Genomes, values: Values
) -> tuple[Genomes, Values]:
    """Return the genomes that break the bounds least, of those kept so far and new ones with their metrics."""
    if len(distance) != len(genomes):
        distance = problem.violations(problem.cheap(genomes)).sum(axis=1)
    genomes = np.concatenate([genomes, drawn])
    distance = np.concatenate([distance, problem.violations(values).sum(axis=1)])
    order = np.argsort(distance, kind="stable")[:_KEPT]
    return genomes[order], distance[order]
