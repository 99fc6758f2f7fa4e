"""The result of a search: networks with their predicted and true figures, as written to ``front.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from search_spaces.documents import document
from search_spaces.errors import InputError, unknown_name


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One network, truly evaluated and measured.

    Attributes:
        validation_accuracy: on the search-validation split, in 0..1, weights inherited from the supernet.
        validation_standard_error: binomial, of that accuracy.
        predicted_latency_ms: by the calibrated table.
        measured_latency_ms: of the whole network, by the table's protocol.
    """

    id: str
    genes: tuple[int, ...]
    validation_accuracy: float
    validation_standard_error: float
    predicted_latency_ms: float
    measured_latency_ms: float
    params: int
    macs: int


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The search against another strategy, on one seed.

    Both are asked for as many networks; they evaluate fewer only where the space has no more inside the budget.
    Hypervolume is that of true error against predicted latency inside the budget, in units of accuracy x ms, relative
    to the reference point.
    """

    strategy: str
    evaluations: int
    hypervolume: float
    against: str
    against_evaluations: int
    against_hypervolume: float
    reference_error: float
    reference_latency_ms: float


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A validated front: no network in it is both slower and less accurate than another.

    Attributes:
        budget_ms: what the search was given; every candidate was measured inside it.
        reachable_ms: predicted latency of the fastest and the slowest network of the space.
        budget_binds: whether the slowest network of the space breaks the budget.
        margin: relative distance that predictions had to keep from the budget.
        evaluations: networks that this search's strategy evaluated or looked up.
        validation_images: how many images each accuracy was counted on.
        candidates: fastest first.
        dropped: evaluated networks that were predicted inside the budget and measured outside.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    space_hash: str
    supernet_hash: str
    device: str
    fingerprint_hash: str
    budget_ms: float
    reachable_ms: tuple[float, float]
    budget_binds: bool
    margin: float
    seed: int
    evaluations: int
    validation_images: int
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    dropped: tuple[Candidate, ...]
    comparison: Comparison | None

    @property
    def best(self) -> Candidate:
        """The most accurate candidate; the fastest of equals."""
        return max(
            self.candidates, key=lambda candidate: (candidate.validation_accuracy, -candidate.measured_latency_ms)
        )

    def within(self, limit_ms: float, *, device: str, supernet_hash: str) -> Candidate | None:
        """Return the most accurate candidate inside a latency, or None if there is none of this device and supernet."""
        inside = [candidate for candidate in self.candidates if candidate.measured_latency_ms <= limit_ms]
        if not inside or (self.device, self.supernet_hash) != (device, supernet_hash):
            return None
        return max(inside, key=lambda candidate: (candidate.validation_accuracy, -candidate.measured_latency_ms))

    def pick(self, choice: str) -> Candidate:
        """Return the candidate named ``best``, or by its id or a beginning of its id that is unique.

        Raises:
            InputError: no candidate, or more than one, is meant.
        """
        if choice == "best":
            return self.best
        found = [candidate for candidate in self.candidates if candidate.id.startswith(choice)]
        if len(found) > 1:
            raise InputError(f"id {choice!r} is the beginning of {', '.join(candidate.id for candidate in found)}")
        if not found:
            raise unknown_name("network", choice, ["best", *(candidate.id for candidate in self.candidates)])
        return found[0]
