"""What a run holds, read once for all sections of a report. Loads neither torch nor ONNX Runtime."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from nas.analysis_record import Analysis
from nas.baseline_record import RESULT_FILE, Baseline
from nas.defaults import DEVICE, EVALUATIONS, STRATEGY
from nas.devices import PRECISIONS, Precision, parse_device
from nas.export.record import ExportedModel, read_export
from nas.files import read_document
from nas.front import Front
from nas.goal import BOUND_OPTIONS, LATENCY, latency_on
from nas.ledger import Genes
from nas.run import Run, run_option
from nas.status import RunStatus, run_status
from nas.training_record import TrainingRecord, find_record
from predictors.accuracy import LearnedPredictor, network_costs
from predictors.latency import LatencyPredictor, LatencyTable
from predictors.regression.chosen import REGRESSIONS
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]
Kept = TypeVar("Kept")

LEAST_TO_LEARN = 16
"""Evaluated networks without which accuracy is not predicted."""
_FOLDS = 5


class Accuracies:
    """Networks with their true search-validation accuracy, and what is learned from them.

    Args:
        space: what is searched.
        known: accuracies in 0..1 by genome, in the order of their evaluation.

    Attributes:
        space: as given.
        known: as given.
        genomes: canonical, ``int16[n, n_genes]``.
        values: ``float64[n]``.
    """

    def __init__(self, space: NetworkSpace, known: Mapping[Genes, float]) -> None:
        self.space, self.known = space, known
        self.genomes: Genomes = np.array(list(known), dtype=np.int16).reshape(-1, space.n_genes)
        self.values: Values = np.array(list(known.values()), dtype=np.float64)

    def __len__(self) -> int:
        """Return how many networks there are."""
        return len(self.genomes)

    def of(self, asked: Sequence[Genes]) -> Accuracies:
        """Return some of the networks, in the order in which they were asked for; those that are known."""
        return Accuracies(self.space, {genes: self.known[genes] for genes in asked if genes in self.known})

    @functools.cached_property
    def predictor(self) -> LearnedPredictor | None:
        """Fitted to all of them; None where they are too few."""
        return _fitted(self) if len(self) >= LEAST_TO_LEARN else None

    @functools.cached_property
    def unseen(self) -> Values | None:
        """Predictions for each network by a predictor that was not fitted to it, ``float64[n]``; None for too few.

        The networks are divided into five parts by a hash of their genes; each part is predicted from the others, by
        the kind of regression that was chosen on all.
        """
        if self.predictor is None:
            return None
        kinds = (self.predictor.chosen,)
        folds = np.array([hashlib.sha256(row.tobytes()).digest()[0] % _FOLDS for row in self.genomes])
        predicted = np.empty(len(self))
        for fold in np.unique(folds):
            rest = self.of([genes for genes, other in zip(self.known, folds, strict=True) if other != fold])
            predicted[folds == fold] = _fitted(rest, kinds).predict(self.genomes[folds == fold])[0]
        return predicted


class Holdings:
    """A run's content, each part read when it is first asked for.

    Args:
        run: as opened.

    Attributes:
        run: as given.
        status: where it stands; what is damaged is told there.
        record: of the supernet; None without one.

    Raises:
        InputError: a file that everything rests on is damaged.
        MachineError: the run cannot be read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.status: RunStatus = run_status(run)
        self.record: TrainingRecord | None = find_record(run.supernet_dir)
        self._damaged: dict[str, None] = {}  # in order, each once

    @property
    def space(self) -> NetworkSpace:
        """What is searched."""
        return self.run.space

    def command(self, text: str) -> str:
        """Return a command as it is to be typed for this run."""
        return text + run_option(self.run.path)

    @functools.cached_property
    def latencies(self) -> dict[str, LatencyPredictor]:
        """What each usable table predicts, by device."""
        usable = [each.device for each in self.status.tables if each.problem is None]
        return {name: LatencyPredictor(self.space, self._table(name)) for name in usable}

    @functools.cached_property
    def fronts(self) -> dict[str, Front]:
        """Fronts found with these weights, by name; those of the last search first."""
        if not self.status.fronts:
            return {}
        kept = self.run.fronts()
        return {each.device: kept.pick(each.device) for each in self.status.fronts}

    def latency_of(self, front: Front) -> LatencyPredictor | None:
        """Return what the table of a front's first device predicts, if it is there."""
        return self.latencies.get(front.device)

    @functools.cached_property
    def accuracies(self) -> dict[Precision, Accuracies]:
        """All networks that were evaluated with these weights, by arithmetic."""
        known = {each: self.run.known_accuracies(each) if self.record else {} for each in PRECISIONS}
        return {precision: Accuracies(self.space, found) for precision, found in known.items()}

    def accuracies_of(self, front: Front) -> Accuracies:
        """Return those that a front is of."""
        return self.accuracies[parse_device(front.device).precision]

    @functools.cached_property
    def test_reads(self) -> int:
        """How often the test split was read in this run, with whatever weights."""
        ledger = self.run.ledger
        return sum(ledger.count(name) for name in ledger.evaluators() if name.split(":")[2:3] == ["test"])

    @functools.cached_property
    def baselines(self) -> tuple[Baseline, ...]:
        """Hand-made networks that were trained beside the search, fastest first; those that can be read."""
        paths = sorted(self.run.path.glob(f"baselines/*/{RESULT_FILE}"))
        found = [self._readable(path, lambda path: read_document(path, Baseline)) for path in paths]
        return tuple(sorted((each for each in found if each), key=lambda each: each.plan.latency_ms))

    @functools.cached_property
    def analyses(self) -> dict[str, Analysis]:
        """What the layers of exported networks take, by export and device; of files that have changed not."""
        of = {record.main.sha256: name for name, record in self.exports.items()}
        paths = sorted((self.run.path / "analyses").glob("*.json"))
        found = [self._readable(path, lambda path: read_document(path, Analysis)) for path in paths]
        return {f"{of[each.sha256]} on {each.device}": each for each in found if each and each.sha256 in of}

    @functools.cached_property
    def exports(self) -> dict[str, ExportedModel]:
        """Exported networks that can be read, by the name of their folder."""
        found = {folder.name: self._readable(folder, read_export) for folder in self.run.exports()}
        return {name: record for name, record in found.items() if record is not None}

    def damaged(self) -> tuple[str, ...]:
        """Return what is wrong with exports, analyses and hand-made networks that cannot be read."""
        _ = self.exports, self.analyses, self.baselines
        return tuple(self._damaged)

    def _readable(self, path: Path, read: Callable[[Path], Kept]) -> Kept | None:
        """Return what is in a file or folder, or None where it cannot be read; what is wrong is kept."""
        try:
            return read(path)
        except InputError as error:
            self._damaged[str(error)] = None
            return None

    def _table(self, device: str) -> LatencyTable:
        return read_document(self.run.lut_path(parse_device(device)), LatencyTable)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let numerical libraries use one thread: for matrices this small more of them wait for each other, often long."""
    import sklearn.gaussian_process  # noqa: F401 - what is not loaded yet would not be limited

    with ThreadpoolController().limit(limits=1):
        yield


def ratio_of(front: Front, latency: LatencyPredictor) -> float | None:
    """Return a front's statistic over the table's latency; None where the table does not tell it."""
    if front.budget_at == "min":
        return 1.0
    told = latency.table.sustained.get(front.budget_at)
    return None if told is None else told.ratio


def search_options(front: Front, *, compare: str = "", anew: bool = False) -> str:
    """Return the command that asks for what a front was asked, and for a comparison, or to search anew in any case."""
    names = [each.device for each in front.devices]
    usual = (LATENCY, *(latency_on(name) for name in names[1:]))
    parts = ["nas search", *(f"--device {quote(name)}" for name in names if names != [DEVICE])]
    parts += ["--joint"] if front.others else []
    parts += [f"--budget-ms {each.budget_ms:.10g}" for each in front.devices if each.budget_ms is not None]
    parts += [f"--budget-at {front.budget_at}"] if front.budget_at != "min" else []
    parts += [f"--{BOUND_OPTIONS[name]} {limit:.10g}" for name, limit in front.bounds.items() if name in BOUND_OPTIONS]
    parts += [f"--objective {name}" for name in front.objectives if front.objectives != usual]
    if evaluations := front.evaluations or (EVALUATIONS if compare or anew else 0):
        parts.append(f"--evaluations {evaluations} --seed {front.seed}")
    parts += [f"--strategy {front.strategy}"] if front.strategy not in ("", STRATEGY) else []
    against = front.comparison.against if front.comparison else compare
    parts += [f"--compare {against}"] if against else []
    return " ".join(parts)


def _fitted(known: Accuracies, kinds: Sequence[str] = tuple(REGRESSIONS)) -> LearnedPredictor:
    predictor = LearnedPredictor(known.space, network_costs(known.space), regressions=kinds)
    predictor.fit(known.genomes, known.values)
    return predictor
