"""The result of a search: networks with their predicted and true figures, as written to ``front.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field

from nas.budget import Budget, Statistic
from search_spaces.documents import document
from search_spaces.errors import InputError, unknown_name


def _best_known(latency: DeviceLatency | Candidate) -> float:
    measured_ms = latency.measured_latency_ms
    return latency.predicted_latency_ms if measured_ms is None else measured_ms


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLatency:
    """A network's latency on one more device; its fields are those of `Candidate`."""

    device: str
    predicted_latency_ms: float
    measured_latency_ms: float | None

    @property
    def latency_ms(self) -> float:
        """The best figure there is: measured, or else predicted."""
        return _best_known(self)


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One network, truly evaluated.

    Attributes:
        validation_accuracy: on the search-validation split, in 0..1, weights inherited from the supernet.
        validation_standard_error: binomial, of that accuracy.
        predicted_latency_ms: by the calibrated table; like the next one, of the statistic that the budget is of.
        measured_latency_ms: of the whole network, by the table's protocol, as slow as it is when the machine is no
            faster than when the table was measured; None if nobody has measured it.
        file_mb: predicted size of its file, where the table tells.
        memory_mb: predicted memory of a process that runs it, where the table tells.
        others: latencies on the other devices of the front, in their order.
    """

    id: str
    genes: tuple[int, ...]
    validation_accuracy: float
    validation_standard_error: float
    predicted_latency_ms: float
    measured_latency_ms: float | None
    params: int
    macs: int
    file_mb: float | None = None
    memory_mb: float | None = None
    others: tuple[DeviceLatency, ...] = ()

    @property
    def latency_ms(self) -> float:
        """The best figure there is: measured, or else predicted."""
        return _best_known(self)

    @property
    def measured_everywhere_ms(self) -> tuple[float | None, ...]:
        """What was measured on each device of the front, the first one first."""
        return (self.measured_latency_ms, *(each.measured_latency_ms for each in self.others))

    @property
    def everywhere_ms(self) -> tuple[float, ...]:
        """The best figures there are of each device of the front, the first one first."""
        return (self.latency_ms, *(each.latency_ms for each in self.others))


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBudget:
    """What was asked of networks on one more device; its fields are those of `Front`."""

    device: str
    fingerprint_hash: str
    budget_ms: float | None
    reachable_ms: tuple[float, float]
    budget_binds: bool
    margin: float


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The search against another strategy, on one seed.

    Both are asked for as many networks; they evaluate fewer only where the space has no more inside the budget.
    Hypervolume is that of true error and of the costs that are traded off, such as predicted latency, in the product of
    their units, relative to the reference point: the worst error that either has seen and the most that costs may be.
    `against_asked` are the genes of the networks that the other strategy asked for, in its order.
    """

    strategy: str
    evaluations: int
    hypervolume: float
    against: str
    against_evaluations: int
    against_hypervolume: float
    reference: dict[str, float]
    against_asked: tuple[tuple[int, ...], ...] = ()


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A front of evaluated networks: no network in it is worse than another in accuracy and in all costs traded off.

    Attributes:
        budget_ms: what the search was given; every candidate was measured inside it, or is predicted safely inside.
            None for no budget.
        budget_at: which figure of running that is of.
        bounds: largest values of other costs, by name.
        objectives: costs that are traded off with accuracy.
        reachable_ms: predicted latency of the fastest and the slowest network of the space.
        budget_binds: whether the slowest network of the space breaks the budget.
        margin: relative distance that predictions had to keep from the budget.
        others: more devices on which each candidate keeps a budget.
        evaluations: networks that this search's strategy asked for; 0 where it only looked at what was evaluated
            before.
        known: evaluated networks inside the budget, those of earlier searches too, that the front is of.
        validation_images: how many images each accuracy was counted on.
        candidates: fastest first.
        dropped: evaluated networks that were predicted inside the budget and measured outside, or too close to it for
            another measurement to be inside.
        strategy: that chose which networks were evaluated; empty where the search only looked at what was known.
        asked: genes of the networks that this search's strategy asked for, in its order; what they are worth stands in
            the ledger.
    """

    space_hash: str
    supernet_hash: str
    device: str
    fingerprint_hash: str
    budget_ms: float | None
    budget_at: Statistic
    bounds: dict[str, float]
    objectives: tuple[str, ...]
    reachable_ms: tuple[float, float]
    budget_binds: bool
    margin: float
    others: tuple[DeviceBudget, ...] = ()
    seed: int
    evaluations: int
    known: int
    validation_images: int
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    dropped: tuple[Candidate, ...]
    comparison: Comparison | None
    strategy: str = ""
    asked: tuple[tuple[int, ...], ...] = ()

    @property
    def devices(self) -> tuple[DeviceBudget, ...]:
        """What was asked of networks on each device, the first one first."""
        first = DeviceBudget(
            device=self.device,
            fingerprint_hash=self.fingerprint_hash,
            budget_ms=self.budget_ms,
            reachable_ms=self.reachable_ms,
            budget_binds=self.budget_binds,
            margin=self.margin,
        )
        return (first, *self.others)

    @property
    def name(self) -> str:
        """What the run keeps it under: the names of its devices."""
        return " + ".join(each.device for each in self.devices)

    @property
    def best(self) -> Candidate:
        """The most accurate candidate; the fastest of equals."""
        return _most_accurate(self.candidates)

    @property
    def ties(self) -> tuple[Candidate, ...]:
        """Candidates that are no less accurate than the best within one standard error of it, itself left out."""
        best = self.best
        least = best.validation_accuracy - best.validation_standard_error
        return tuple(each for each in self.candidates if each != best and each.validation_accuracy >= least)

    def within(self, limit_ms: float, *, device: str, supernet_hash: str) -> Candidate | None:
        """Return the most accurate candidate inside a latency, or None if there is none of this device and supernet."""
        inside = [candidate for candidate in self.candidates if candidate.latency_ms <= limit_ms]
        if not inside or (self.device, self.supernet_hash, self.budget_at) != (device, supernet_hash, "min"):
            return None
        return _most_accurate(inside)

    @property
    def knee(self) -> Candidate:
        """The candidate farthest above the line from the fastest to the slowest one, in latency and accuracy.

        More accuracy costs more latency beyond it than before it, on average. Without a candidate above the line it is
        the best one.
        """
        ends = self.candidates[0], self.candidates[-1]
        run, rise = (
            ends[1].latency_ms - ends[0].latency_ms,
            ends[1].validation_accuracy - ends[0].validation_accuracy,
        )

        def height(each: Candidate) -> float:
            # In proportion to the distance from the line, whatever the units of the two.
            gain = each.validation_accuracy - ends[0].validation_accuracy
            return gain * run - (each.latency_ms - ends[0].latency_ms) * rise

        farthest = max(self.candidates, key=height)
        return farthest if run > 0 and height(farthest) > 0 else self.best

    def inside(self, budget: Budget) -> Front:
        """Return the front of the candidates that keep a tighter budget, of the same statistic.

        Raises:
            InputError: no candidate keeps it, it is above that of the search, or the front is of several devices.
        """
        if self.others or budget.limit_ms is None:
            raise InputError("a budget of one device is for fronts of one device; search with all budgets instead")
        again = f"run `nas search --budget-ms {budget.limit_ms:.4g}`"
        if self.budget_ms is not None and budget.limit_ms > self.budget_ms:
            raise InputError(
                f"the front is of networks inside {self.budget_ms:.4g} ms; for {budget.limit_ms:.4g} ms {again}"
            )
        kept = tuple(each for each in self.candidates if _keeps(each, budget))
        if not kept:
            raise InputError(
                f"no network of the front keeps {budget.limit_ms:.4g} ms with the margin of measurements, the fastest "
                f"takes {self.candidates[0].latency_ms:.4g} ms; {again}"
            )
        return replace(self, candidates=kept, budget_ms=budget.limit_ms)

    def pick(self, choice: str) -> Candidate:
        """Return the candidate named ``best`` or ``knee``, or by its id or a beginning of its id that is unique.

        Raises:
            InputError: no candidate, or more than one, is meant.
        """
        if choice in ("best", "knee"):
            return self.best if choice == "best" else self.knee
        found = [candidate for candidate in self.candidates if candidate.id.startswith(choice)]
        if len(found) > 1:
            raise InputError(f"id {choice!r} is the beginning of {', '.join(candidate.id for candidate in found)}")
        if not found:
            raise unknown_name("network", choice, ["best", "knee", *(candidate.id for candidate in self.candidates)])
        return found[0]


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Fronts:
    """The last front of each device, or of devices together, as kept in ``front.json``.

    Attributes:
        last: names of those of the last search.
        fronts: by name.
    """

    CURRENT_VERSION: ClassVar[int] = 4

    format_version: int
    last: Annotated[tuple[str, ...], Field(min_length=1)]
    fronts: dict[str, Front]

    def pick(self, name: str | None = None) -> Front:
        """Return the front of a device; without a name, the only one of the last search.

        Raises:
            InputError: there is none of that name, or several of the last search.
        """
        if name is None and len(self.last) > 1:
            raise InputError(
                f"the last search was for several devices: add --device with one of {', '.join(map(repr, self.last))}"
            )
        name = self.last[0] if name is None else name
        if name not in self.fronts:
            raise unknown_name("device with a front", name, self.fronts)
        return self.fronts[name]


def _most_accurate(candidates: Sequence[Candidate]) -> Candidate:
    """Return the most accurate of some candidates; the fastest of equals."""
    return max(candidates, key=lambda candidate: (candidate.validation_accuracy, -candidate.latency_ms))


def _keeps(candidate: Candidate, budget: Budget) -> bool:
    """Return whether another measurement of a candidate will keep a budget, too."""
    if candidate.measured_latency_ms is None:
        return candidate.predicted_latency_ms <= budget.unmeasured_limit_ms
    return candidate.measured_latency_ms <= budget.measured_limit_ms
