"""Networks that wait in a ledger for evaluation, by as many processes and machines as reach it.

Who searches adds networks, in the order in which it asks for them; workers claim them, one at a time, and show that
they are alive while they are at it. What a silent worker was at is given out again. Waiting, claims and heartbeats are
those of Optuna's trials.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.ledger import DETAILS, GENES, REASON, Genes, Ledger, are_genes, is_abandoned
from nas.ledger_storage import GRACE_S, HEARTBEAT_S, RETRIES, explained, stable_optuna
from search_spaces.errors import CheckError, InputError, MachineError, ToolError, kind_and_first_line

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

_SILENCE_CHECK_S = GRACE_S / 5
_HISTORY = "retry_history"  # Optuna's: numbers of the trials whose workers fell silent


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a network.

    Attributes:
        value: of the evaluation; NaN if there is none.
        reason: why there is none, or None.
    """

    value: float
    reason: str | None = None


class LedgerQueue:
    """The networks of one evaluator that wait in a ledger.

    Args:
        ledger: may be used by other processes at the same time.
        evaluator: full name, as in the ledger.
        space_hash: of the space that gives genes their meaning.

    All methods raise `InputError` for a ledger that is none, or of another space, and `MachineError` if it cannot be
    reached.
    """

    def __init__(self, ledger: Ledger, evaluator: str, space_hash: str) -> None:
        self._ledger = ledger
        self._evaluator = evaluator
        self._space_hash = space_hash
        self._added: dict[Genes, int] = {}
        self._lost_since: dict[int, float] = {}
        self._checked_s = -math.inf
        self._values: dict[Genes, float] = {}
        self._settled = 0

    def add(self, genomes: Iterable[Genes]) -> None:
        """Let networks wait for evaluation, after those that wait already; none waits twice."""
        missing = [genes for genes in dict.fromkeys(genomes) if genes not in self._added]
        if not missing:
            return
        with explained(self._ledger.name):
            study = self._ledger.begun_study(self._evaluator, self._space_hash)
            trials = self._ledger.trials(study)
            pending = {_genes(trial): trial.number for trial in trials if not trial.state.is_finished()}
            for genes in missing:
                if genes not in pending:
                    _enqueue(study, genes)
                self._added[genes] = pending.get(genes, len(trials))

    def take(self, genomes: Iterable[Genes]) -> dict[Genes, Verdict]:
        """Return what became of those of some networks, added here, that are finished; each is told once."""
        asked = [genes for genes in genomes if genes in self._added]
        with explained(self._ledger.name):
            study = self._ledger.study(self._evaluator, self._space_hash)
            if study is None or not asked:
                return {}
            self._give_out_again(study)
            last = self._last_trials(study)
            verdicts = {genes: self._verdict(study, genes, last[genes]) for genes in asked if genes in last}
        finished = {genes: verdict for genes, verdict in verdicts.items() if verdict is not None}
        for genes in finished:
            del self._added[genes]
        return finished

    def withdraw(self, genomes: Iterable[Genes] | None = None) -> None:
        """Take back those of some networks, or of all that were added here, that nobody has claimed."""
        asked = set(self._added if genomes is None else genomes) & set(self._added)
        if asked:
            self._prune(asked)
        for genes in asked:
            del self._added[genes]

    def clear(self) -> bool:
        """Take back everything that nobody has claimed, and return whether a worker is at something.

        What a search that was killed has left waiting is not what the next one asks for. Another search on the same
        ledger lets it wait again.
        """
        from optuna.trial import TrialState

        with explained(self._ledger.name):
            study = self._ledger.study(self._evaluator, self._space_hash)
            if study is None:
                return False
            self._give_out_again(study)
            self._prune(None)
            return bool(self._ledger.trials(study, TrialState.RUNNING))

    def claimed(self) -> bool:
        """Return whether a worker is at something."""
        from optuna.trial import TrialState

        with explained(self._ledger.name):
            study = self._ledger.study(self._evaluator, self._space_hash)
            return study is not None and bool(self._ledger.trials(study, TrialState.RUNNING))

    def work(self, judge: Callable[[Genes], float]) -> bool:
        """Evaluate the network that has waited longest; return whether there was one.

        What a judge raises is kept as the reason for which the network has no value, but for what is the fault of this
        machine or of whoever ends the worker: then the network waits again.

        Args:
            judge: gives the value of a network, in the sense of the evaluator's name.

        Raises:
            InputError, MachineError: what the judge raises so, and for what the machine lacks.
        """
        from optuna.trial import TrialState

        with explained(self._ledger.name):
            study = self._ledger.study(self._evaluator, self._space_hash)
            if study is None:
                return False
            self._give_out_again(study)
            for trial in self._ledger.trials(study, TrialState.WAITING):
                if self._claim(study, trial):
                    self._evaluate(study, trial, judge)
                    return True
        return False

    def _claim(self, study: Study, trial: FrozenTrial) -> bool:
        """Claim a trial whose network is to be evaluated; false if another worker was faster or its value is known."""
        from optuna.trial import TrialState

        genes = _genes(trial)
        running = {_genes(each) for each in self._ledger.trials(study, TrialState.RUNNING)}
        if genes in running or not self._set(trial, TrialState.RUNNING):
            return False
        if genes is None or genes in self._known(study):
            self._set(trial, TrialState.PRUNED)
            return False
        return True

    def _evaluate(self, study: Study, trial: FrozenTrial, judge: Callable[[Genes], float]) -> None:
        from optuna.trial import TrialState

        genes = _genes(trial)
        assert genes is not None
        try:
            with _alive(self._ledger.storage(), trial):
                value = judge(genes)
            if not math.isfinite(value):
                raise CheckError(f"the evaluation gave {value}")
        except (InputError, MachineError):
            self._put_back(study, trial)
            raise
        except (OSError, MemoryError) as error:
            self._put_back(study, trial)
            raise MachineError(f"this machine cannot evaluate networks: {kind_and_first_line(error)}") from error
        except Exception as error:  # noqa: BLE001 - whatever else is raised is this network's failure
            reason = str(error) if isinstance(error, ToolError) else kind_and_first_line(error)
            self._ledger.storage().set_trial_user_attr(trial._trial_id, DETAILS, {REASON: reason})
            self._set(trial, TrialState.FAIL)
        except BaseException:
            self._put_back(study, trial)
            raise
        else:
            self._set(trial, TrialState.COMPLETE, [value])

    def _put_back(self, study: Study, trial: FrozenTrial) -> None:
        from optuna.trial import TrialState

        genes = _genes(trial)
        if self._set(trial, TrialState.FAIL) and genes is not None:
            _enqueue(study, genes, trial.system_attrs.get(_HISTORY, ()))

    def _set(self, trial: FrozenTrial, state: TrialState, values: list[float] | None = None) -> bool:
        """Set a trial's state; false if another worker has it, or it was taken for dead and finished meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError

        with suppress(UpdateFinishedTrialError):
            return self._ledger.storage().set_trial_state_values(trial._trial_id, state, values)
        return False

    def _prune(self, genomes: set[Genes] | None) -> None:
        """Take back what waits: some networks, or all."""
        from optuna.trial import TrialState

        with explained(self._ledger.name):
            study = self._ledger.study(self._evaluator, self._space_hash)
            for trial in [] if study is None else self._ledger.trials(study, TrialState.WAITING):
                asked = genomes is None or _genes(trial) in genomes
                # Claimed first, so that no worker has it.
                if asked and self._set(trial, TrialState.RUNNING):
                    self._set(trial, TrialState.PRUNED)

    def _give_out_again(self, study: Study) -> None:
        """Let networks wait again whose workers have been silent for too long."""
        from optuna.storages import fail_stale_trials

        if time.monotonic() - self._checked_s >= _SILENCE_CHECK_S:
            with stable_optuna():
                fail_stale_trials(study)
            self._checked_s = time.monotonic()

    def _known(self, study: Study) -> dict[Genes, float]:
        """Return all values; only trials that were not finished at the last call are looked at."""
        from optuna.trial import TrialState

        trials = self._ledger.trials(study)
        for trial in trials[self._settled :]:
            genes = _genes(trial)
            if trial.state == TrialState.COMPLETE and genes is not None and trial.value is not None:
                self._values.setdefault(genes, trial.value)
        while self._settled < len(trials) and trials[self._settled].state.is_finished():
            self._settled += 1
        return self._values

    def _last_trials(self, study: Study) -> dict[Genes, FrozenTrial]:
        """Return the newest trial of each network that was added here; retries are trials of their own."""
        last: dict[Genes, FrozenTrial] = {}
        for trial in self._ledger.trials(study)[min(self._added.values()) :]:
            genes = _genes(trial)
            if genes in self._added and trial.number >= self._added[genes]:
                last[genes] = trial
        return last

    def _verdict(self, study: Study, genes: Genes, trial: FrozenTrial) -> Verdict | None:
        """Return what became of a network whose newest trial this is, or None while it is not known."""
        from optuna.trial import TrialState

        if not trial.state.is_finished():
            return None
        known = self._known(study).get(genes)
        if known is not None:
            return Verdict(known)
        if trial.state == TrialState.PRUNED:
            _enqueue(study, genes)  # another search that asked for it too has taken it back
            return None
        if not is_abandoned(trial):
            return Verdict(math.nan, trial.user_attrs[DETAILS][REASON])
        history = trial.system_attrs.get(_HISTORY, ())
        if len(history) >= RETRIES:
            return Verdict(math.nan, f"the process that evaluated it has ended {RETRIES + 1} times")
        # Whoever saw that its worker was silent is about to let it wait again, unless it was killed just then.
        if time.monotonic() - self._lost_since.setdefault(trial.number, time.monotonic()) > GRACE_S:
            _enqueue(study, genes, [*history, trial.number])
        return None


@contextmanager
def _alive(storage: RDBStorage, trial: FrozenTrial) -> Iterator[None]:
    """Show during the block that a worker is at a trial; what the database refuses is tried again."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_S):
            with suppress(Exception):
                storage.record_heartbeat(trial._trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _enqueue(study: Study, genes: Genes, history: Iterable[int] = ()) -> None:
    from optuna.trial import TrialState, create_trial

    retries = {_HISTORY: list(history)} if history else {}
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={GENES: list(genes)}, system_attrs=retries))


def _genes(trial: FrozenTrial) -> Genes | None:
    genes = trial.user_attrs.get(GENES)
    return tuple(genes) if are_genes(genes) else None
