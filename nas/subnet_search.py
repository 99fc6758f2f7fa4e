"""Searching a trained supernet for a goal: which strategies see what, and what the ledger knows already."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.bench import sustained_s
from nas.block_cache import BlockCache
from nas.budget import measured_ms
from nas.devices import Device
from nas.engine.pareto import hypervolume
from nas.engine.search import TIME_IS_OVER, search
from nas.evaluate import SubnetEvaluator
from nas.finalists import Evaluated, Source, candidates_of, make_front
from nas.front import Comparison, Front
from nas.goal import ACCURACY, Goal, Target
from nas.ledger import Genes, Ledger, latency_evaluator
from nas.network_latency import measure_beside_table, measure_networks
from nas.progress import Notice, Progress, ignore, no_progress
from nas.search_plan import SearchSettings
from predictors.accuracy import network_costs
from search_spaces.errors import CheckError
from search_spaces.space import Genomes


@dataclass(frozen=True, slots=True)
class Place:
    """A device of this machine, and the exported blocks of the networks that are measured on it."""

    device: Device
    cache: BlockCache


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """A finished search, before validation on the device.

    Attributes:
        found: the strategy's own rows.
        compared: the other strategy's rows, or None.
        cut_short: whether the time limit ended it.
    """

    found: Evaluated
    compared: Evaluated | None
    cut_short: bool = False

    def comparison(self, goal: Goal, settings: SearchSettings) -> Comparison | None:
        """Return both strategies' hypervolumes against the worst error and the highest costs that may be."""
        if self.compared is None or settings.compare is None:
            return None
        both = np.concatenate([self.found.objectives, self.compared.objectives])
        reference = np.array([both[:, 0].max(), *(goal.most(name) for name in goal.objectives)])
        return Comparison(
            strategy=settings.strategy,
            evaluations=len(self.found.genomes),
            hypervolume=hypervolume(self.found.objectives, reference),
            against=settings.compare,
            against_evaluations=len(self.compared.genomes),
            against_hypervolume=hypervolume(self.compared.objectives, reference),
            reference=dict(zip(("error", *goal.objectives), reference.tolist(), strict=True)),
            against_asked=self.compared.genes,
        )


def search_subnets(
    evaluator: SubnetEvaluator,
    goal: Goal,
    settings: SearchSettings,
    *,
    before: Mapping[Genes, float] | None = None,
    progress: Progress = no_progress,
) -> SearchOutcome:
    """Search the supernet for accurate networks that keep a goal's bounds.

    What is searched depends on seed, table, weights and what was known before alone, but for a time limit. What the
    ledger already holds is looked up instead of evaluated, so a search that was killed goes over the same networks
    again, free as far as it had come.

    Args:
        evaluator: gives true accuracy and holds the ledger.
        goal: what is bounded, and what is traded off.
        settings: how to spend evaluations.
        before: accuracies to start from, by genome; strategies that are compared both start from nothing.
        progress: told of true evaluations.

    Raises:
        InputError: no network keeps all bounds at once.
        CheckError: no network could be evaluated.
    """
    names, known = settings.strategies, before or {}
    total = settings.evaluations * len(names)
    objectives, constraints = goal.asked_of(evaluator.evaluate, evaluator.upcoming)
    arms = []
    for position, name in enumerate(names):
        start = position * settings.evaluations
        result = search(
            goal.space,
            objectives,
            constraints,
            evaluations=settings.evaluations,
            strategy=name,
            seed=settings.seed,
            known=goal.cheapest(),
            features=network_costs(goal.space),
            before=(list(known), {ACCURACY: list(known.values())}) if known and not settings.compare else None,
            time_limit_s=settings.time_limit_s,
            progress=lambda done, _, start=start: progress(start + done, total),  # type: ignore[misc]
        )
        own = result.history[result.history["round"] > 0]
        rows = own[own["failure"].isna()]
        if len(own) and not len(rows):
            raise CheckError(f"no network could be evaluated: {own['failure'].iloc[-1]}")
        genomes = np.array(rows["genome"].tolist(), dtype=np.int16).reshape(-1, goal.space.n_genes)
        arms.append(Evaluated(genomes=genomes, accuracy=rows[ACCURACY].to_numpy(), costs=goal.predicted(genomes)))
    compared = arms[1] if len(arms) > 1 else None
    return SearchOutcome(found=arms[0], compared=compared, cut_short=result.stopped == TIME_IS_OVER)


def validate_front(
    outcome: SearchOutcome,
    evaluator: SubnetEvaluator,
    goal: Goal,
    settings: SearchSettings,
    *,
    places: Mapping[str, Place],
    progress: Progress = no_progress,
    notice: Notice = ignore,
) -> Front:
    """Measure the finalists as whole networks and keep the non-dominated ones that are really inside the budget.

    Finalists come from everything that the ledger holds inside the predicted budget, this search's networks and older
    ones alike. A measurement must clear the budget by what two measurements of a network differ by, so that the next
    one does too.

    Args:
        outcome: of the search.
        evaluator: as of the search.
        goal: as of the search.
        settings: as of the search.
        places: where to measure, by the names of the goal's devices that are here.
        progress: told of measuring.
        notice: told of a machine that is no longer what a table was measured on.

    Raises:
        CheckError: every finalist was measured outside the budget.
        InputError, MachineError: as ``device.measure``.
    """
    known = Evaluated.inside(evaluator.known(), goal, lambda target: target.search_limit_ms)
    if not len(known.genomes):
        raise CheckError("no network that was evaluated is predicted inside the budget")
    finalists = known.finalists()
    measured: dict[str, dict[Genes, float]] = {}
    for position, (name, target) in enumerate(goal.latencies.items()):
        measured[name] = {}
        if target.here:
            measured[name] = _measured(
                finalists.genomes,
                target,
                places[target.device],
                evaluator.ledger,
                seed=settings.seed,
                progress=_share(progress, position, len(goal.latencies)),
                notice=notice,
            )
    images = evaluator.validation_images
    source = Source(
        supernet_hash=evaluator.supernet_hash,
        validation_images=images,
        seed=settings.seed,
        evaluations=len(outcome.found.genomes),
        comparison=outcome.comparison(goal, settings),
        strategy=settings.strategy,
        asked=outcome.found.genes,
    )
    candidates = candidates_of(goal, finalists, measured, images)
    return make_front(goal, candidates, source, known=len(known.genomes), margin=lambda target: target.margin)


def _measured(
    genomes: Genomes,
    target: Target,
    place: Place,
    ledger: Ledger,
    *,
    seed: int,
    progress: Progress,
    notice: Notice,
) -> dict[Genes, float]:
    """Return the latencies of whole networks on one device, by the statistic of its budget, and record them."""
    space, at, device, cache = target.latency.space, target.budget.at, place.device, place.cache
    networks = {space.architecture(genome).id: space.lower(genome) for genome in genomes}
    with tempfile.TemporaryDirectory(prefix="nas-search-") as name:
        folder = Path(name)
        if at == "min":
            beside = measure_beside_table(
                target.latency, networks, cache, device, work_dir=folder, seed=seed, progress=progress, notice=notice
            )
            found, details = beside.latency_ms, {"pace": beside.pace}
        else:
            measured = measure_networks(
                cache, networks, device, work_dir=folder, seed=seed, sustained_s=sustained_s(at), progress=progress
            )
            found, details = tuple(measured_ms(each, at) for each in measured), {}
    # The table may be one of other conditions: figures are kept under those of here.
    evaluator = latency_evaluator(device.fingerprint().hash, at, device.precision, device.batch)
    latencies = dict(zip(map(tuple, genomes.tolist()), found, strict=True))
    for genes, latency_ms in latencies.items():
        ledger.record(evaluator, space.hash, genes, latency_ms, details)
    return latencies


def _share(progress: Progress, position: int, parts: int) -> Progress:
    """Return the progress of one of several parts of equal length."""
    return lambda done, total: progress(position * total + done, parts * total)
