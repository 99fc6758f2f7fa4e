"""The ledger: every *true* evaluation, kept through Optuna in a SQLite file or in a database that workers share.

One single-value study per evaluator. The genome is one JSON attribute of a trial instead of a parameter per gene,
which would make a trial several times slower to write and to load. Predicted values never enter.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from nas.ledger_storage import damaged, explained, open_storage, quiet_optuna
from nas.onnx_format import quantizer_name
from search_spaces.documents import canonical_json
from search_spaces.errors import CheckError, InputError, unknown_name

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from nas.budget import Statistic
    from nas.devices import Precision

Scalar = str | int | float | bool | None
Detail = Scalar | Sequence[Scalar]
"""What can be kept beside a value: JSON, of one level."""

DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "accuracy": "maximize",
    "latency": "minimize",
    "maximize": "maximize",
    "minimize": "minimize",
}
"""What is better, by the first part of an evaluator's name."""

Genes = tuple[int, ...]
"""A canonical genome, as option indices."""

_MAX_NAME_LENGTH = 512  # of Optuna's column
GENES, DETAILS, REASON = "genes", "details", "reason"
"""Where a trial keeps what; the last one is a detail."""
_SPACE = "space"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One true evaluation.

    Attributes:
        genes: the canonical genome, as option indices.
        value: accuracy in 0..1, or milliseconds, as the evaluator's name says.
        details: what the evaluator kept beside the value.
        number: position in the order of recording, per evaluator.
    """

    genes: tuple[int, ...]
    value: float
    details: Mapping[str, Detail]
    number: int


@dataclass(frozen=True, slots=True)
class LedgerFailure:
    """An evaluation that gave no result; its fields are those of a `LedgerRow`, with the reason in place of a value."""

    genes: tuple[int, ...]
    reason: str
    details: Mapping[str, Detail]
    number: int


class Ledger:
    """All true evaluations of a run, by evaluator.

    An evaluator is named ``accuracy:<supernet hash>:<split>:<precision>`` or ``latency:<fingerprint hash>`` (followed
    by what differs from undisturbed runs of one image in floats), or, for figures that this tool does not know,
    ``maximize:<name>`` or ``minimize:<name>``; what stands before the first colon tells whether more is better. A row
    is written as a whole or not at all, and is on the disk when `record` returns. Nothing is created before the first
    record. Several processes can use one ledger.

    Args:
        path_or_url: a SQLite file, in a folder that exists, or the URL of a database (``postgresql://…``).

    Attributes:
        place: that file or URL.
        name: the same as messages may show it, without a password.
    """

    def __init__(self, path_or_url: Path | str) -> None:
        # Of SQLite, it is the file that is known how to open.
        place = path_or_url.removeprefix("sqlite:///") if isinstance(path_or_url, str) else path_or_url
        self.place = place if isinstance(place, str) and "://" in place else Path(place)
        self.name = re.sub(r"://.*@", "://***@", str(path_or_url))
        self._opened: RDBStorage | None = None
        # Optuna's studies remember the rows they have read: kept open, they fetch only what is new.
        self._studies: dict[str, Study] = {}

    def record(
        self,
        evaluator: str,
        space_hash: str,
        genes: tuple[int, ...],
        value: float,
        details: Mapping[str, Detail] | None = None,
    ) -> None:
        """Append one true evaluation.

        Args:
            evaluator: the evaluator's full name.
            space_hash: the space that gives the genes their meaning.
            genes: the canonical genome, as option indices.
            value: what was measured.
            details: more about the measurement, such as the rounds that `value` is the minimum of.

        Raises:
            CheckError: the value or a detail is not finite, so that it is not a result.
            InputError: the evaluator's name is not known, it holds rows of another space, or this is no ledger.
            MachineError: the row could not be stored.
        """
        if not math.isfinite(value):
            raise CheckError(f"{evaluator} gave {value}, which is no result: {list(genes)}; nothing was recorded")
        self._append(evaluator, space_hash, genes, details, value=float(value))

    def record_failure(
        self,
        evaluator: str,
        space_hash: str,
        genes: tuple[int, ...],
        reason: str,
        details: Mapping[str, Detail] | None = None,
    ) -> None:
        """Append an evaluation that gave no result, so that it is not tried again without need.

        Raises:
            CheckError, InputError, MachineError: as `record`.
        """
        from optuna.trial import TrialState

        more = dict(details or {}) | {REASON: reason}
        self._append(evaluator, space_hash, genes, more, state=TrialState.FAIL)

    def rows(self, evaluator: str, space_hash: str) -> list[LedgerRow]:
        """Return every complete row of an evaluator in the order of recording; none if it never recorded.

        All rows are read at once, and a second call on the same ledger reads only what is new.

        Raises:
            InputError: the evaluator's name is not known, it holds rows of another space, or this is no ledger.
            MachineError: the ledger cannot be read.
        """
        with explained(self.name):
            study = self.study(evaluator, space_hash)
            return [] if study is None else [self._row(trial) for trial in self._complete_trials(study)]

    def failures(self, evaluator: str, space_hash: str) -> list[LedgerFailure]:
        """Return every failure of an evaluator in the order of recording; a worker that was killed is none.

        Raises:
            InputError, MachineError: as `rows`.
        """
        from optuna.trial import TrialState

        with explained(self.name):
            study = self.study(evaluator, space_hash)
            trials = [] if study is None else self.trials(study, TrialState.FAIL)
            return [self._failure(trial) for trial in trials if not is_abandoned(trial)]

    def values(self, evaluator: str, space_hash: str) -> dict[tuple[int, ...], float]:
        """Return the value of every genome that an evaluator recorded, the first one where it has several.

        Raises:
            InputError, MachineError: as `rows`.
        """
        first: dict[tuple[int, ...], float] = {}
        for row in self.rows(evaluator, space_hash):
            first.setdefault(row.genes, row.value)
        return first

    def count(self, evaluator: str) -> int:
        """Return the number of complete rows of an evaluator, repeated genomes included.

        Raises:
            InputError, MachineError: as `rows`.
        """
        with explained(self.name):
            study = self._find(evaluator)
            return 0 if study is None else len(self._complete_trials(study))

    def median_interval_s(self, evaluator: str) -> float | None:
        """Return the median time from one complete row of an evaluator to the next, or None for fewer than two.

        Raises:
            InputError, MachineError: as `rows`.
        """
        with explained(self.name):
            study = self._find(evaluator)
            trials = [] if study is None else self._complete_trials(study)
            # Several workers do not finish in the order in which they were asked.
            ends = sorted(each.datetime_complete.timestamp() for each in trials if each.datetime_complete is not None)
            return statistics.median(b - a for a, b in itertools.pairwise(ends)) if len(ends) > 1 else None

    def evaluators(self) -> dict[str, str]:
        """Return the names of all evaluators that recorded something, each with the hash of its space.

        Raises:
            InputError, MachineError: as `rows`.
        """
        from optuna import get_all_study_names

        if isinstance(self.place, Path) and not self.place.exists():
            return {}
        with explained(self.name):
            known = [name for name in get_all_study_names(self.storage()) if name.partition(":")[0] in DIRECTIONS]
            studies = {name: self._find(name) for name in known}
        return {name: study.user_attrs[_SPACE] for name, study in studies.items() if study is not None}

    def _append(
        self,
        evaluator: str,
        space_hash: str,
        genes: tuple[int, ...],
        details: Mapping[str, Detail] | None,
        **outcome: Any,
    ) -> None:
        """Add a trial with Optuna's `outcome`."""
        from optuna.trial import create_trial

        given = {GENES: [int(gene) for gene in genes]} | ({DETAILS: dict(details)} if details else {})
        try:
            # Through JSON and back, so that this process reads what any other will.
            attributes: dict[str, Any] = json.loads(canonical_json(given))
        except ValueError:
            raise CheckError(f"{evaluator} gave details that are not finite: {given}; nothing was recorded") from None
        with explained(self.name):
            self.begun_study(evaluator, space_hash).add_trial(create_trial(user_attrs=attributes, **outcome))

    def study(self, evaluator: str, space_hash: str) -> Study | None:
        """Return the Optuna study of an evaluator, or None while nothing was recorded; creates nothing.

        Raises:
            InputError: the evaluator's name is not known, or it holds rows of another space; `explained` knows more.
        """
        study = self._find(evaluator)
        if study is not None:
            self._refuse_other_space(study, space_hash)
        return study

    def begun_study(self, evaluator: str, space_hash: str) -> Study:
        """Return the Optuna study of an evaluator, created if there is none; raises as `study`."""
        return self.study(evaluator, space_hash) or self._create(evaluator, space_hash)

    def _find(self, evaluator: str) -> Study | None:
        """Return the study of an evaluator, or None while nothing was recorded; creates nothing."""
        _direction(evaluator)
        if evaluator not in self._studies:
            if isinstance(self.place, Path) and not self.place.exists():
                return None
            from optuna import load_study

            storage = self.storage()
            try:
                study = load_study(study_name=evaluator, storage=storage)
            except KeyError:
                return None
            if _SPACE not in study.user_attrs:
                if study.get_trials(deepcopy=False):
                    raise InputError(f"{self.name}: {evaluator} holds trials that this tool has not recorded")
                # Its creator was killed between the two steps of `_create`, or is between them now.
                return None
            self._studies[evaluator] = study
        return self._studies[evaluator]

    def _create(self, evaluator: str, space_hash: str) -> Study:
        from optuna import create_study, load_study
        from optuna.exceptions import DuplicatedStudyError

        storage = self.storage()
        try:
            with quiet_optuna():
                study = create_study(study_name=evaluator, storage=storage, direction=_direction(evaluator))
        except DuplicatedStudyError:
            study = load_study(study_name=evaluator, storage=storage)
        if _SPACE not in study.user_attrs:
            study.set_user_attr(_SPACE, space_hash)
        self._studies[evaluator] = study
        return study

    def _refuse_other_space(self, study: Study, space_hash: str) -> None:
        stored = study.user_attrs[_SPACE]
        if stored != space_hash:
            raise InputError(
                f"{self.name}: {study.study_name} holds evaluations of the space {stored}, not of {space_hash}; "
                "genes of two spaces do not mix: use another run directory"
            )

    def _complete_trials(self, study: Study) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return self.trials(study, TrialState.COMPLETE)

    def trials(self, study: Study, state: TrialState | None = None) -> list[FrozenTrial]:
        """Return the trials of a study by number, those in a state or all; not to be changed.

        Raises:
            InputError: they are not what Optuna has written.
        """
        try:
            return study.get_trials(deepcopy=False, states=None if state is None else (state,))
        except (ValueError, LookupError) as error:  # what Optuna raises on columns that hold something else
            raise damaged(self.name, error) from None

    def _row(self, trial: FrozenTrial) -> LedgerRow:
        genes, details = trial.user_attrs.get(GENES), trial.user_attrs.get(DETAILS, {})
        value = math.nan if trial.value is None else trial.value
        if not are_genes(genes) or not isinstance(details, dict) or not math.isfinite(value):
            raise InputError(f"{self.name}: trial {trial.number} is not a row that this tool has recorded")
        return LedgerRow(genes=tuple(genes), value=value, details=details, number=trial.number)

    def _failure(self, trial: FrozenTrial) -> LedgerFailure:
        genes, details = trial.user_attrs.get(GENES), trial.user_attrs.get(DETAILS, {})
        if not are_genes(genes) or not isinstance(details, dict) or not isinstance(details.get(REASON), str):
            raise InputError(f"{self.name}: trial {trial.number} is not a row that this tool has recorded")
        return LedgerFailure(tuple(genes), details[REASON], details, trial.number)

    def storage(self) -> RDBStorage:
        """Return Optuna's storage, opened once; raises as `open_storage`, or `InputError` for tables of another Optuna.

        It has no memory of its own: studies do.
        """
        if self._opened is None:
            try:
                self._opened = open_storage(self.place)
            except RuntimeError as error:  # tables of another major version of Optuna
                raise damaged(self.name, error) from None
        return self._opened


def accuracy_evaluator(supernet_hash: str, split: str, precision: Precision = "fp32") -> str:
    """Return the name of what gives the accuracy of subnets; in 8 bits it depends on what quantises and computes."""
    name = f"accuracy:{supernet_hash}:{split}:{precision}"
    return name if precision == "fp32" else f"{name}:{quantizer_name()}"


def latency_evaluator(
    fingerprint_hash: str, at: Statistic = "min", precision: Precision = "fp32", batch: int = 1
) -> str:
    """Return the name of what gives the latency of whole networks on a machine, by a statistic of running."""
    plain = {"fp32", "batch=1", "min"}
    parts = [precision, f"batch={batch}", at]
    return ":".join(["latency", fingerprint_hash, *(part for part in parts if part not in plain)])


def _direction(evaluator: str) -> Literal["maximize", "minimize"]:
    kind = evaluator.partition(":")[0]
    if kind not in DIRECTIONS:
        raise unknown_name("kind of evaluator", kind, DIRECTIONS)
    if len(evaluator) > _MAX_NAME_LENGTH:
        raise InputError(f"an evaluator's name has at most {_MAX_NAME_LENGTH} characters, got {len(evaluator)}")
    return DIRECTIONS[kind]


def is_abandoned(trial: FrozenTrial) -> bool:
    """Return whether a failed trial is one whose worker was killed or stopped, which says nothing of the network."""
    return are_genes(trial.user_attrs.get(GENES)) and REASON not in trial.user_attrs.get(DETAILS, {})


def are_genes(value: object) -> TypeGuard[list[int]]:
    """Return whether a value is a genome as a trial keeps it."""
    return isinstance(value, list) and all(type(gene) is int for gene in value)
