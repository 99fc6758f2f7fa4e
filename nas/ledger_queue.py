"""Networks that wait in a ledger for evaluation, by as many processes and machines as reach it.

Who searches adds networks, in the order in which it asks for them; workers claim them through Optuna, one at a time,
and show that they are alive while they are at it. What a silent worker was at is given out again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.ledger import DETAILS, GENES, REASON, Genes, Ledger, are_genes, is_abandoned
from nas.ledger_storage import GRACE_S, RETRIES, explained, quiet_optuna, stable_optuna
from search_spaces.errors import CheckError, ToolError, kind_and_first_line

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_SILENCE_CHECK_S = GRACE_S / 5


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
        self._abandoned_since: dict[Genes, float] = {}
        self._checked_s = -math.inf

    def add(self, genomes: Iterable[Genes]) -> None:
        """Let networks wait for evaluation, after those that wait already; none waits twice."""
        with explained(self._ledger.name):
            study = self._ledger.begun_study(self._evaluator, self._space_hash)
            trials = study.get_trials(deepcopy=False)
            # A search that was killed has left some, and a worker may be at one of them.
            pending = {_genes(trial): trial.number for trial in trials if not trial.state.is_finished()}
            for genes in dict.fromkeys(genomes):
                if genes in self._added:
                    continue
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
            trials = self._last_trials(study)
            verdicts = {genes: self._verdict(study, genes, trials[genes]) for genes in asked if genes in trials}
        finished = {genes: verdict for genes, verdict in verdicts.items() if verdict is not None}
        for genes in finished:
            del self._added[genes]
        return finished

    def withdraw(self, genomes: Iterable[Genes] | None = None) -> None:
        """Take back those of some networks, or of all that were added here, that nobody has claimed."""
        from optuna.trial import TrialState

        asked = set(self._added if genomes is None else genomes) & set(self._added)
        if not asked:
            return
        with explained(self._ledger.name):
            study, storage = self._ledger.study(self._evaluator, self._space_hash), self._ledger.storage()
            for trial in [] if study is None else study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                # Claimed first, so that no worker has it.
                number = trial._trial_id
                if _genes(trial) in asked and storage.set_trial_state_values(number, TrialState.RUNNING):
                    storage.set_trial_state_values(number, TrialState.PRUNED)
        for genes in asked:
            del self._added[genes]

    def work(self, judge: Callable[[Genes], float]) -> bool:
        """Evaluate the network that has waited longest, and return whether there was one.

        Whatever a judge raises is kept as the reason for which the network has no value. A worker that is interrupted
        puts its network back.

        Args:
            judge: gives the value of a network, in the sense of the evaluator's name.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with explained(self._ledger.name):
            study = self._ledger.study(self._evaluator, self._space_hash)
            if study is None:
                return False
            self._give_out_again(study)
            if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                return False
            task = _Task(study, judge)
            try:
                with quiet_optuna(logging.CRITICAL):
                    study.optimize(task, n_trials=1, catch=(Exception,))
            except UpdateFinishedTrialError:
                pass  # it was taken for dead, and another worker is at it
            except KeyboardInterrupt:
                if task.genes is not None:
                    _enqueue(study, task.genes)
                raise
        return True

    def _give_out_again(self, study: Study) -> None:
        """Let networks wait again whose workers have been silent for too long."""
        from optuna.storages import fail_stale_trials

        if time.monotonic() - self._checked_s >= _SILENCE_CHECK_S:
            with stable_optuna():
                fail_stale_trials(study)
            self._checked_s = time.monotonic()

    def _last_trials(self, study: Study) -> dict[Genes, FrozenTrial]:
        """Return the newest trial of each network that was added here; retries are trials of their own."""
        trials = study.get_trials(deepcopy=False)[min(self._added.values()) :]
        last: dict[Genes, FrozenTrial] = {}
        for trial in trials:
            genes = _genes(trial)
            if genes in self._added and trial.number >= self._added[genes] and not _is_done(last.get(genes)):
                last[genes] = trial
        return last

    def _verdict(self, study: Study, genes: Genes, trial: FrozenTrial) -> Verdict | None:
        from optuna.trial import TrialState

        if trial.state == TrialState.COMPLETE:
            return Verdict(math.nan if trial.value is None else trial.value)
        if trial.state == TrialState.PRUNED:
            # It was known already, or another search that asked for it too has taken it back.
            done = [each for each in study.get_trials(deepcopy=False) if _is_done(each) and _genes(each) == genes]
            if done:
                return self._verdict(study, genes, done[0])
            _enqueue(study, genes)
        if trial.state != TrialState.FAIL:
            return None
        if not is_abandoned(trial):
            return Verdict(math.nan, trial.user_attrs[DETAILS][REASON])
        if len(trial.system_attrs.get("retry_history", ())) >= RETRIES:
            return Verdict(math.nan, f"the process that evaluated it has ended {RETRIES + 1} times")
        # Whoever saw that its worker was silent is about to let it wait again, unless it was killed just then.
        since = self._abandoned_since.setdefault(genes, time.monotonic())
        if time.monotonic() - since > GRACE_S:
            del self._abandoned_since[genes]
            _enqueue(study, genes)
        return None


class _Task:
    """What Optuna calls for a claimed trial."""

    def __init__(self, study: Study, judge: Callable[[Genes], float]) -> None:
        self._study = study
        self._judge = judge
        self.genes: Genes | None = None

    def __call__(self, trial: Trial) -> float:
        from optuna import TrialPruned
        from optuna.trial import TrialState

        # Another worker may have claimed the last one, or evaluated the same network, while this one looked.
        genes = _genes(trial)
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if genes is None or any(_genes(each) == genes for each in done):
            raise TrialPruned
        self.genes = genes
        try:
            value = self._judge(genes)
            if not math.isfinite(value):
                raise CheckError(f"the evaluation gave {value}")
        except Exception as error:
            reason = str(error) if isinstance(error, ToolError) else kind_and_first_line(error)
            trial.set_user_attr(DETAILS, {REASON: reason})
            raise
        return value


def _enqueue(study: Study, genes: Genes) -> None:
    study.enqueue_trial({}, user_attrs={GENES: list(genes)})


def _is_done(trial: FrozenTrial | None) -> bool:
    from optuna.trial import TrialState

    return trial is not None and trial.state == TrialState.COMPLETE


def _genes(trial: FrozenTrial | Trial) -> Genes | None:
    genes = trial.user_attrs.get(GENES)
    return tuple(genes) if are_genes(genes) else None
