"""Where a run keeps its true evaluations: in a file of its own, or in a database that other machines reach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.files import write_atomic
from nas.ledger import GENES, Ledger
from nas.ledger_storage import explained
from search_spaces.errors import InputError, MachineError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_FILE, _URL_FILE = "ledger.db", "ledger.url"


def run_ledger(folder: Path) -> Ledger:
    """Return the ledger of the run in a folder.

    Raises:
        InputError: the file that names a database does not.
        MachineError: it cannot be read.
    """
    try:
        url = (folder / _URL_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return Ledger(folder / _FILE)
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"cannot read {folder / _URL_FILE}: {error}") from None
    _check_url(url, source=f"{folder / _URL_FILE}: ")
    return Ledger(url)


def move_ledger(folder: Path, url: str) -> Ledger:
    """Keep a run's evaluations in the database of a URL from now on; what is known so far is copied there.

    Nothing is written twice, so that a move that was interrupted can be made again. The old ledger stays as it is.

    Args:
        folder: of the run, whose lock is held.
        url: such as ``postgresql://user@host/database``, without a password, since the run keeps it.

    Raises:
        InputError: this is no URL, holds a password, or what it names is no ledger.
        MachineError: the database or the run cannot be written.
    """
    _check_url(url)
    old, new = run_ledger(folder), Ledger(url)
    if new.place == old.place:
        return old
    with explained(new.name):
        new.storage()
    _copy(old, new)
    write_atomic(folder / _URL_FILE, f"{url}\n")
    return new


def _check_url(text: str, source: str = "") -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InputError(
            f"{source}a ledger is the URL of a database, such as postgresql://user@host/name; it is not told what this "
            "is, since it may hold a password"
            if "@" in text
            else f"{source}a ledger is the URL of a database, such as postgresql://user@host/name, not {text!r}"
        ) from None
    if url.password is not None or any("pass" in key for key in url.query):
        raise InputError(
            f"{source}leave the password out of a ledger's URL, which the run keeps for everybody to read; PostgreSQL "
            "takes it from PGPASSWORD or ~/.pgpass"
        )
    if url.get_backend_name() == "sqlite":
        raise InputError(f"{source}without --ledger, a run keeps its evaluations in a SQLite file; name a server's URL")


def _copy(old: Ledger, new: Ledger) -> None:
    """Copy the finished trials that are missing."""
    for evaluator, space_hash in old.evaluators().items():
        with explained(old.name):
            source = old.study(evaluator, space_hash)
            trials = [] if source is None else old.trials(source)
        with explained(new.name):
            target = new.begun_study(evaluator, space_hash)
            there = {_identity(trial) for trial in new.trials(target)}
            for trial in trials:
                if trial.state.is_finished() and _identity(trial) not in there:
                    target.add_trial(trial)


def _identity(trial: FrozenTrial) -> tuple[object, ...]:
    return tuple(trial.user_attrs.get(GENES, ())), trial.state, trial.datetime_complete
