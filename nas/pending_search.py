"""What a search started from, so that one that was killed goes on and ends as it would have ended. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nas.files import read_document, write_atomic
from nas.goal import Goal
from nas.ledger import Genes
from nas.search_plan import SearchSettings
from search_spaces.documents import content_hash, document, pretty_json
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.evaluate import SubnetEvaluator


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
        file: keeps what has begun; written here, see `ended`.
        evaluator: names the rows of the ledger.
        goal: what is asked for.
        settings: how; a search that goes on may be given more evaluations or another time.

    Raises:
        InputError, MachineError: the file or the ledger cannot be read or written.
    """
    began, name = _read(file), evaluator.ledger_name("validation")
    request = _request(evaluator, goal, settings)
    rows = evaluator.ledger.rows(name, evaluator.space.hash)
    if request not in began:
        began[request] = 1 + max((row.number for row in rows), default=-1)
        _write(file, began)
    known: dict[Genes, float] = {}
    for row in rows:
        if row.number < began[request]:
            known.setdefault(row.genes, row.value)
    return known


def ended(file: Path, evaluator: SubnetEvaluator, goal: Goal, settings: SearchSettings) -> None:
    """Forget a search whose front is written; those of other requests stay."""
    began = _read(file)
    if began.pop(_request(evaluator, goal, settings), None) is not None:
        _write(file, began)


def _request(evaluator: SubnetEvaluator, goal: Goal, settings: SearchSettings) -> str:
    tables = [target.latency.table for target in goal.targets]
    return content_hash([goal.options, tables, evaluator.ledger_name("validation"), settings.strategy, settings.seed])


def _read(file: Path) -> dict[str, int]:
    if not file.exists():
        return {}
    try:
        return dict(read_document(file, PendingSearches).began)
    except InputError as error:
        raise InputError(f"{error}; remove it to search anew") from None


def _write(file: Path, began: dict[str, int]) -> None:
    if began:
        pending = PendingSearches(format_version=PendingSearches.CURRENT_VERSION, began=began)
        write_atomic(file, pretty_json(pending))
    else:
        file.unlink(missing_ok=True)
