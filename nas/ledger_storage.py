"""Opening the ledger's database: refuses foreign and damaged files, and explains errors of drivers in one line."""

from __future__ import annotations

import gc
import logging
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError, MachineError, first_line

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

HEARTBEAT_S, GRACE_S = 2, 15
"""How often a worker says that it is at a network, and after how long a silence another one takes it."""
RETRIES = 3
"""How often a network is given out again whose worker fell silent."""

_LOCK_TIMEOUT_S = 60.0
_OPEN_ATTEMPTS, _OPEN_PAUSE_S = 10, 0.1


def open_storage(place: Path | str) -> RDBStorage:
    """Open a SQLite file or the database of a URL, making Optuna's tables if it has none.

    Raises:
        sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError: it cannot be opened; see `explained`.
    """
    if isinstance(place, Path) and place.exists():
        _check_is_ledger(place)
    with _no_garbage():
        return _open(place)


def _open(place: Path | str) -> RDBStorage:
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
    from sqlalchemy.pool import NullPool

    # Optuna takes a URL for a template.
    url = "sqlite://" if isinstance(place, Path) else place.replace("{", "{{").replace("}", "}}")
    # A connection per transaction: no handle stays open between calls, or crosses a fork.
    options: dict[str, Any] = {"poolclass": NullPool}
    if isinstance(place, Path):
        options["creator"] = lambda: _connect(place, immediately=_claims.under_way)
    for _ in range(_OPEN_ATTEMPTS - 1):
        try:
            return _storage(url, options)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            # Optuna does not expect another process to make the same tables at the same moment.
            if not re.search("already exists|unique", str(error.orig), re.IGNORECASE):
                raise
            time.sleep(_OPEN_PAUSE_S)
    return _storage(url, options)


def _storage(url: str, options: dict[str, Any]) -> RDBStorage:
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState

    class Storage(RDBStorage):
        """Optuna's, with two gaps closed.

        No trial runs without a sign of life, such as one whose worker was killed before its first. And no two workers
        claim one trial: Optuna looks at its state and sets it in one transaction, which keeps others out by a lock on
        the row. SQLite has none; there, the transaction takes the whole database before it looks.
        """

        def set_trial_state_values(
            self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
        ) -> bool:
            if state == TrialState.RUNNING:
                self.record_heartbeat(trial_id)
            _claims.under_way = True
            try:
                return super().set_trial_state_values(trial_id, state, values)
            finally:
                _claims.under_way = False

    with stable_optuna():
        return Storage(
            url,
            engine_kwargs=dict(options),
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
        )


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep Python from looking for garbage: loading Optuna and its libraries leaves little, and is sooner done."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn errors of the database and of its driver into one line.

    Args:
        name: the ledger's file or URL as messages may show it, without a password.

    Raises:
        InputError: this is no ledger, or a damaged one, or its driver is not installed.
        MachineError: the disk or the database server refuses.
    """
    with _no_garbage():
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

    try:
        yield
    except (ImportError, ArgumentError) as error:
        raise InputError(
            f"the ledger {name} cannot be reached: {first_line(error.__cause__ or error)}; "
            "a URL begins with its database, such as postgresql://, and needs a driver installed"
        ) from None
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        chain = list(_causes(error))
        # SQLite reports missing tables as an operational error too; its other ones are of the disk or of locks.
        foreign = getattr(chain[-1], "sqlite_errorname", "") == "SQLITE_ERROR"
        if any(isinstance(cause, OperationalError | sqlite3.OperationalError) for cause in chain) and not foreign:
            raise MachineError(f"cannot use the ledger {name}: {first_line(chain[-1])}") from None
        raise damaged(name, chain[-1]) from None


def damaged(name: str, reason: BaseException) -> InputError:
    """Build the error for a database that is not a ledger, or not a whole one."""
    return InputError(
        f"{name} is not a ledger of this tool, or is damaged ({first_line(reason)}); move it away to begin a new one"
    )


@contextmanager
def stable_optuna() -> Iterator[None]:
    """Keep Optuna from warning that heartbeats may change in a later version: which version is used is tested."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing a new study on standard error, and leave its logging as the user set it."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_is_ledger(file: Path) -> None:
    """Raise `sqlite3.Error` unless a file is an undamaged SQLite database of Optuna, or an empty one."""
    with closing(_connect(file)) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            # Optuna would add its tables to any database, so look for the one it makes first.
            connection.execute("SELECT study_id, study_name FROM studies LIMIT 0")


class _Claims(threading.local):
    """Whether this thread is about to look at the state of a trial and to set it."""

    under_way = False


_claims = _Claims()


def _connect(file: Path, *, immediately: bool = False) -> sqlite3.Connection:
    """Connect; there is a connection per transaction, which can be begun at once, before it writes."""
    connection = sqlite3.connect(file, timeout=_LOCK_TIMEOUT_S)
    if immediately:
        connection.execute("BEGIN IMMEDIATE")
    return connection


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
