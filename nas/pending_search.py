"""What a search started from, so that one that was killed goes on and ends as it would have ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from nas.evaluate import SubnetEvaluator
from nas.files import read_document, write_atomic
from nas.goal import Goal
from nas.ledger import Genes
from nas.search_plan import SearchSettings
from search_spaces.documents import content_hash, document, pretty_json


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSearches:
    """Searches that have begun and not ended, as kept in ``search.json`` until they end.

    Attributes:
        began: by what was asked for, number of the first row in the ledger that is the search's own.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    began: dict[str, int]


def known_before(file: Path, evaluator: SubnetEvaluator, goal: Goal, settings: SearchSettings) -> dict[Genes, float]:
    """Return the accuracies that a search starts from: all in the ledger, but those that are its own already.

    Args:
        file: keeps what has begun; written here, to be removed when the fronts are written.
        evaluator: names the rows of the ledger.
        goal: what is asked for.
        settings: how; a search that goes on may be given more evaluations or another time.

    Raises:
        InputError, MachineError: the file or the ledger cannot be read or written.
    """
    pending = PendingSearches(format_version=PendingSearches.CURRENT_VERSION, began={})
    if file.exists():
        pending = read_document(file, PendingSearches, next_step=f"remove {file} to search anew")
    tables = [target.latency.table for target in goal.targets]
    request = content_hash(
        [goal.options, tables, evaluator.ledger_name("validation"), settings.strategy, settings.seed]
    )
    rows = evaluator.ledger.rows(evaluator.ledger_name("validation"), evaluator.space.hash)
    began = pending.began.get(request)
    if began is None:
        began = 1 + max((row.number for row in rows), default=-1)
        now = PendingSearches(format_version=pending.format_version, began=pending.began | {request: began})
        write_atomic(file, pretty_json(now))
    known: dict[Genes, float] = {}
    for row in rows:
        if row.number < began:
            known.setdefault(row.genes, row.value)
    return known
