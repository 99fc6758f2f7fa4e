"""What a search is for: a budget of latency, bounds on sizes, and the costs that are traded against accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nas import defaults
from nas.budget import Budget, rounded_up
from nas.engine.objectives import Constraint, Evaluate, Objective
from predictors.additive import AdditiveCost
from predictors.latency import LatencyPredictor
from search_spaces.errors import InputError, unknown_name
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]

LATENCY = "latency_ms"
ACCURACY = "accuracy"
BOUND_OPTIONS = {"params": "max-params", "file_mb": "max-size-mb", "memory_mb": "max-memory-mb"}


class Cost(Protocol):
    """A figure that is known of every network of a space, and the ends of what it can be."""

    def predict(self, genomes: Genomes) -> Values:
        """Return the cost of canonical genomes ``int16[n, n_genes]``, ``float64[n]``."""

    def cheapest(self) -> tuple[float, Genomes]:
        """Return the smallest cost and a genome ``int16[n_genes]`` that has it."""

    def dearest(self) -> tuple[float, Genomes]:
        """Return the largest cost and a genome ``int16[n_genes]`` that has it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A device that networks are to run on, and how fast they have to be there.

    Attributes:
        latency: predicts the latency of networks on the device.
        budget: upper bound of it.
        here: whether finalists are measured on it; if not, predictions keep a wider margin.
    """

    latency: LatencyPredictor
    budget: Budget
    here: bool = True

    @property
    def device(self) -> str:
        """Its name."""
        return self.latency.table.device

    @property
    def search_limit_ms(self) -> float:
        """What the predicted latency of a network must not exceed for it to be evaluated."""
        return self.budget.predicted_limit_ms if self.here else self.budget.unmeasured_limit_ms

    @property
    def margin(self) -> float:
        """Relative distance that such predictions keep from the budget."""
        return self.budget.margin if self.here else self.budget.wide_margin


@dataclass(frozen=True)
class Goal:
    """A request that some network of the space is known to keep.

    Attributes:
        targets: devices of one precision and batch; what is sized is sized on the first.
        objectives: names of the costs that are traded off with accuracy.
        bounds: largest values of costs other than latencies, by name.
    """

    targets: tuple[Target, ...]
    objectives: tuple[str, ...]
    bounds: Mapping[str, float]

    @property
    def latency(self) -> LatencyPredictor:
        """Of the first device."""
        return self.targets[0].latency

    @property
    def budget(self) -> Budget:
        """Of the first device."""
        return self.targets[0].budget

    @property
    def space(self) -> NetworkSpace:
        """What is searched."""
        return self.latency.space

    @cached_property
    def latencies(self) -> dict[str, Target]:
        """The devices by the name of the latency on them: the first one's is plain, the others' tells which."""
        first, *others = self.targets
        return {LATENCY: first} | {latency_on(each.device): each for each in others}

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """All costs that are known of networks on the devices, by name."""
        return exact_costs(self.latency) | {name: target.latency for name, target in self.latencies.items()}

    @property
    def options(self) -> str:
        """What to add to a command that is shown to the user, so that it asks for the same."""
        names, limits = [each.device for each in self.targets], [each.budget.limit_ms for each in self.targets]
        parts = [f" --device {name}" for name in names if names != [defaults.DEVICE]]
        parts += [" --joint"] if len(names) > 1 else []
        parts += [f" --budget-ms {limit:.10g}" for limit in limits if limit is not None]
        parts += [f" --budget-at {self.budget.at}"] if self.budget.at != "min" else []
        parts += [f" --{BOUND_OPTIONS[name]} {limit:.10g}" for name, limit in self.bounds.items()]
        parts += [f" --objective {name}" for name in self.objectives if self.objectives != tuple(self.latencies)]
        return "".join(parts)

    def reachable(self, name: str) -> tuple[float, float]:
        """Return the smallest and the largest value of a cost in the space."""
        if name in self.latencies:
            return self.latencies[name].budget.reachable_ms
        return self.costs[name].cheapest()[0], self.costs[name].dearest()[0]

    def most(self, name: str) -> float:
        """Return the largest value of a cost that the goal allows, and that can be reached."""
        limit = self.latencies[name].budget.limit_ms if name in self.latencies else self.bounds.get(name)
        return min(math.inf if limit is None else limit, self.reachable(name)[1])

    def predict(self, name: str, genomes: Genomes) -> Values:
        """Return a cost of canonical genomes ``int16[n, n_genes]``, ``float64[n]``; latency as its budget counts it."""
        scale = self.latencies[name].budget.ratio if name in self.latencies else 1.0
        return self.costs[name].predict(genomes) * scale

    def predicted(self, genomes: Genomes) -> Values:
        """Return the costs that are traded off, ``float64[n, n_objectives]``."""
        return np.stack([self.predict(name, genomes) for name in self.objectives], axis=1)

    def keeps(self, genomes: Genomes, limit_ms: Callable[[Target], float]) -> npt.NDArray[np.bool_]:
        """Return which canonical genomes keep all bounds and a predicted latency on each device, ``bool[n]``."""
        limits = dict(self.bounds) | {name: limit_ms(target) for name, target in self.latencies.items()}
        kept = np.ones(len(genomes), dtype=np.bool_)
        for name, limit in limits.items():
            kept &= self.predict(name, genomes) <= limit
        return kept

    def asked_of(
        self, accuracy: Evaluate, upcoming: Callable[[Genomes], None] | None = None
    ) -> tuple[list[Objective], list[Constraint]]:
        """Return the goal as the engine takes it, with a costly function for accuracy, and whom it tells what comes."""

        def function(name: str) -> Evaluate:
            return lambda genomes: self.predict(name, genomes)

        objectives = [Objective(ACCURACY, accuracy, maximize=True, costly=True, upcoming=upcoming)]
        objectives += [Objective(name, function(name)) for name in self.objectives]
        limits = dict(self.bounds)
        for name, target in self.latencies.items():
            if target.budget.limit_ms is not None:
                limits[name] = target.search_limit_ms
        constraints = [
            Constraint(name, upper=limit, evaluate=None if name in self.objectives else function(name))
            for name, limit in limits.items()
        ]
        return objectives, constraints

    def cheapest(self) -> Genomes:
        """Return the networks that are cheapest in what is bounded, those of them that keep all bounds."""
        names = (*self.latencies, *self.bounds)
        genomes = self.space.unique(np.stack([self.costs[name].cheapest()[1] for name in names]))
        kept: Genomes = genomes[self.keeps(genomes, lambda target: target.search_limit_ms)]
        return kept


def latency_on(device: str) -> str:
    """Return the name of the latency on a device beside the first one."""
    return f"{LATENCY}@{device}"


def exact_costs(latency: LatencyPredictor) -> dict[str, Cost]:
    """Return what is known of all networks of a table's space: latency, parameters, MACs, and the sizes it tells."""
    space, table = latency.space, latency.table
    return {
        LATENCY: latency,
        "params": AdditiveCost.of(space, lambda block: block.params()),
        "macs": AdditiveCost.of(space, lambda block: block.macs()),
        **{name: fit.cost(space, table.precision) for name, fit in table.sizes.items()},
    }


def parse_goal(
    targets: Sequence[Target],
    *,
    objectives: Iterable[str] = (),
    bounds: Mapping[str, float | None] | None = None,
) -> Goal:
    """Read what a search is for.

    Args:
        targets: the device, or all devices that the same network has to be fast enough on; one at least.
        objectives: names of costs; accuracy is always traded off, and may be named. None at all means the latencies.
        bounds: largest values of costs other than latency, by name; those that are None do not bound.

    Raises:
        InputError: a cost is not known of this device, a bound is no number, or no network of the space keeps it.
    """
    _refuse_unlike(targets)
    first, *others = targets
    goal = Goal(
        tuple(targets),
        tuple(dict.fromkeys(name for name in objectives if name != ACCURACY))
        or (LATENCY, *(latency_on(each.device) for each in others)),
        {name: limit for name, limit in (bounds or {}).items() if limit is not None},
    )
    for name in (*goal.objectives, *goal.bounds):
        if name not in goal.costs:
            raise unknown_name(f"cost on device {first.device}", name, goal.costs)
    for name, limit in goal.bounds.items():
        if name in goal.latencies:
            raise InputError(f"{name} is bounded by the budget, not beside it")
        low, high = goal.reachable(name)
        reach = f"it reaches from {rounded_up(low)} to {rounded_up(high)}"
        if not low <= limit < math.inf:
            raise InputError(f"no network of the space is known to keep {name} <= {limit:.10g}: {reach}")
    return goal


def _refuse_unlike(targets: Sequence[Target]) -> None:
    """Raise `InputError` for devices that one network is not searched for together."""
    names = [target.device for target in targets]
    if len(set(names)) < len(names):
        raise InputError(f"a device is named twice: {', '.join(names)}")
    tables = [target.latency.table for target in targets]
    if len({(table.precision, table.batch) for table in tables}) > 1:
        raise InputError(
            f"devices of one network are of one precision and one batch, not {' and '.join(names)}; search for them "
            "one by one, without --joint"
        )
