from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.ledger import Ledger, LedgerRow
from search_spaces.errors import CheckError, InputError, MachineError
from tests.nas.hazards import protectable, read_only, running, small_disk
from tests.source_tree import ROOT
from tests.test_imports import newly_imported

ACCURACY = "accuracy:5eed:validation:fp32"
LATENCY = "latency:cafe"
SPACE = "0123456789abcdef"


def nth_row(worker: int, n: int) -> tuple[tuple[int, ...], float, dict[str, int]]:
    return (worker, n, n + 1, n + 2), n / 1000, {"worker": worker, "n": n}


def record_forever(path: Path, worker: int, answer: Connection) -> None:
    answer.send("opening")
    ledger = Ledger(path)
    n = 0
    while True:
        genes, value, details = nth_row(worker, n)
        ledger.record(ACCURACY, SPACE, genes, value, details)
        if n == 0:
            answer.send("writing")
        n += 1


def record_some(path: Path, worker: int) -> None:
    ledger = Ledger(path)
    for n in range(15):
        genes, value, details = nth_row(worker, n)
        ledger.record(ACCURACY, SPACE, genes, value, details)


def assert_whole(rows: list[LedgerRow]) -> None:
    """Check that each worker's rows are its first ones, in order, each complete."""
    seen: dict[int, int] = {}
    for row in rows:
        worker = row.genes[0]
        n = seen.get(worker, 0)
        assert (row.genes, row.value, row.details) == nth_row(worker, n)
        seen[worker] = n + 1
    assert [row.number for row in rows] == list(range(len(rows)))


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_rows_come_back_in_order_of_recording(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record(ACCURACY, SPACE, (1, 0, 2), 0.5)
    ledger.record(ACCURACY, SPACE, (0, 0, 0), 0.25, {"images": 360, "rounds_ms": (1.5, 2.0), "note": None})
    expected = [
        LedgerRow(genes=(1, 0, 2), value=0.5, details={}, number=0),
        LedgerRow(
            genes=(0, 0, 0), value=0.25, details={"images": 360, "rounds_ms": [1.5, 2.0], "note": None}, number=1
        ),
    ]
    assert ledger.rows(ACCURACY, SPACE) == expected
    assert Ledger(path).rows(ACCURACY, SPACE) == expected
    assert Ledger(str(path)).rows(ACCURACY, SPACE) == expected
    assert Ledger(f"sqlite:///{path}").rows(ACCURACY, SPACE) == expected


def test_evaluators_do_not_mix(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record(ACCURACY, SPACE, (1,), 0.5)
    ledger.record(LATENCY, SPACE, (1,), 12.5)
    assert ledger.values(ACCURACY, SPACE) == {(1,): 0.5}
    assert ledger.values(LATENCY, SPACE) == {(1,): 12.5}
    assert ledger.values("accuracy:5eed:test:fp32", SPACE) == {}
    assert (ledger.count(ACCURACY), ledger.count("accuracy:5eed:test:fp32")) == (1, 0)


@settings(max_examples=25, deadline=None)
@given(
    records=st.lists(st.tuples(st.tuples(st.integers(0, 1), st.integers(0, 1)), st.floats(-1e300, 1e300)), max_size=8)
)
def test_a_genome_has_the_value_that_was_recorded_first(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[tuple[int, int], float]]
) -> None:
    ledger = Ledger(tmp_path_factory.getbasetemp() / "first.db")
    evaluator = f"latency:{uuid.uuid4().hex}"
    first: dict[tuple[int, ...], float] = {}
    for genes, value in records:
        ledger.record(evaluator, SPACE, genes, value)
        first.setdefault(genes, value)
    assert ledger.values(evaluator, SPACE) == first
    assert ledger.count(evaluator) == len(records)


def test_numbers_of_numpy_are_recorded_as_plain_ones(path: Path) -> None:
    genome = np.array([3, 1], dtype=np.int16)
    Ledger(path).record(ACCURACY, SPACE, tuple(genome), np.float64(0.5))
    assert Ledger(path).values(ACCURACY, SPACE) == {(3, 1): 0.5}


def test_failures_are_kept_apart_from_rows_with_their_reason(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record(ACCURACY, SPACE, (0, 1), 0.5)
    ledger.record_failure(ACCURACY, SPACE, (1, 1), "out of memory", {"round": 3})
    ledger.record(ACCURACY, SPACE, (2, 1), 0.6)
    for reader in (ledger, Ledger(path)):
        assert [row.number for row in reader.rows(ACCURACY, SPACE)] == [0, 2]
        assert reader.count(ACCURACY) == 2
        (failure,) = reader.failures(ACCURACY, SPACE)
        assert (failure.genes, failure.reason, failure.number) == ((1, 1), "out of memory", 1)
        assert failure.details["round"] == 3
        assert reader.failures(LATENCY, SPACE) == []
        with pytest.raises(InputError, match="holds evaluations of the space"):
            reader.failures(ACCURACY, "another")


def test_reading_creates_nothing(path: Path) -> None:
    ledger = Ledger(path)
    assert ledger.rows(ACCURACY, SPACE) == []
    assert ledger.count(ACCURACY) == 0
    assert not path.exists()


def test_rows_of_another_process_are_seen_without_reopening(path: Path) -> None:
    reader, writer = Ledger(path), Ledger(path)
    for n in range(3):
        writer.record(ACCURACY, SPACE, (n,), 0.5)
        assert reader.count(ACCURACY) == n + 1


def test_the_name_decides_what_is_better(path: Path) -> None:
    from optuna import load_study

    ledger = Ledger(path)
    for value in (1.0, 3.0, 2.0):
        ledger.record(ACCURACY, SPACE, (0,), value)
        ledger.record(LATENCY, SPACE, (0,), value)
    assert load_study(study_name=ACCURACY, storage=f"sqlite:///{path}").best_value == 3.0
    assert load_study(study_name=LATENCY, storage=f"sqlite:///{path}").best_value == 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_no_result(path: Path, value: float) -> None:
    ledger = Ledger(path)
    with pytest.raises(CheckError, match=r"accuracy:5eed.* no result"):
        ledger.record(ACCURACY, SPACE, (1,), value)
    with pytest.raises(CheckError, match="not finite"):
        ledger.record(ACCURACY, SPACE, (1,), 0.5, {"losses": [0.5, value]})
    assert ledger.rows(ACCURACY, SPACE) == []


def test_rows_of_another_space_are_refused(path: Path) -> None:
    Ledger(path).record(ACCURACY, SPACE, (1,), 0.5)
    ledger = Ledger(path)
    with pytest.raises(InputError, match=f"evaluations of the space {SPACE}, not of other"):
        ledger.rows(ACCURACY, "other")
    with pytest.raises(InputError, match=f"evaluations of the space {SPACE}, not of other"):
        ledger.record(ACCURACY, "other", (1,), 0.5)
    assert ledger.values(ACCURACY, SPACE) == {(1,): 0.5}


def test_unknown_evaluators_are_refused(path: Path) -> None:
    with pytest.raises(InputError, match="'acuracy'; did you mean 'accuracy'"):
        Ledger(path).record("acuracy:x", SPACE, (1,), 0.5)
    with pytest.raises(InputError, match="at most 512 characters"):
        Ledger(path).rows("accuracy:" + "x" * 600, SPACE)
    assert not path.exists()


def test_trials_that_are_not_complete_are_no_rows(path: Path) -> None:
    from optuna import load_study
    from optuna.trial import TrialState, create_trial

    ledger = Ledger(path)
    ledger.record(ACCURACY, SPACE, (1,), 0.5)
    study = load_study(study_name=ACCURACY, storage=f"sqlite:///{path}")
    for state in (TrialState.WAITING, TrialState.RUNNING, TrialState.FAIL):
        study.add_trial(create_trial(state=state, user_attrs={"genes": [2]}))
    ledger.record(ACCURACY, SPACE, (3,), 0.75)
    assert ledger.values(ACCURACY, SPACE) == {(1,): 0.5, (3,): 0.75}
    assert ledger.count(ACCURACY) == 2


def kill_while(stage: str, path: Path, worker: int, *, seconds: float) -> None:
    """Start a recording process, and kill it some time after it said that it has reached a stage."""
    here, there = Pipe()
    with running(record_forever, path, worker, there):
        message = ""
        while message != stage:
            assert here.poll(60), f"the process never came to {stage}"
            message = here.recv()
        time.sleep(seconds)


def test_kills_while_writing_leave_whole_rows(path: Path) -> None:
    rng = np.random.default_rng(0)
    journal = path.with_name("ledger.db-journal")  # SQLite has one from the first to the last write of a transaction
    interrupted = kept = worker = 0
    while worker < 10 or (interrupted < 3 and worker < 100):
        kill_while("writing", path, worker, seconds=rng.uniform(0.0, 0.03))
        interrupted += journal.exists()
        rows = Ledger(path).rows(ACCURACY, SPACE)
        assert_whole(rows)
        assert len(rows) > kept, "a row whose recording had returned is lost"
        kept, worker = len(rows), worker + 1
    assert interrupted >= 3, "hardly a kill hit a transaction: the test has shown nothing"
    assert query(path, "SELECT DISTINCT state FROM trials") == [("COMPLETE",)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_kills_while_opening_leave_a_ledger_that_can_be_used(tmp_path: Path) -> None:
    for case in range(12):
        path = tmp_path / f"{case}.db"
        kill_while("opening", path, worker=0, seconds=case * 0.015)
        before = Ledger(path).rows(ACCURACY, SPACE)
        assert_whole(before)
        Ledger(path).record(ACCURACY, SPACE, *nth_row(1, 0))
        assert len(Ledger(path).rows(ACCURACY, SPACE)) == len(before) + 1


def test_processes_can_make_and_fill_one_ledger_at_once(path: Path) -> None:
    with (
        running(record_some, path, 0) as first,
        running(record_some, path, 1) as second,
        running(record_some, path, 2) as third,
    ):
        for process in (first, second, third):
            process.join(60)
            assert process.exitcode == 0
    rows = Ledger(path).rows(ACCURACY, SPACE)
    assert_whole(rows)
    assert len(rows) == 45


def test_a_creator_killed_before_naming_the_space_hinders_nobody(path: Path) -> None:
    Ledger(path).record(LATENCY, SPACE, (1,), 0.5)
    query(path, "DELETE FROM study_user_attributes")
    query(path, f"UPDATE studies SET study_name = '{ACCURACY}'")
    query(path, "DELETE FROM trials")
    assert Ledger(path).rows(ACCURACY, SPACE) == []
    Ledger(path).record(ACCURACY, SPACE, (1,), 0.5)
    assert Ledger(path).values(ACCURACY, SPACE) == {(1,): 0.5}


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    path.touch()
    assert Ledger(path).rows(ACCURACY, SPACE) == []
    Ledger(path).record(ACCURACY, SPACE, (1,), 0.5)
    assert Ledger(path).count(ACCURACY) == 1


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"front,accuracy\n" * 1000)
    with pytest.raises(InputError, match=f"^{path} is not a ledger of this tool, or is damaged") as caught:
        Ledger(path).rows(ACCURACY, SPACE)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"front,accuracy\n" * 1000


@pytest.mark.parametrize("table", ["bookmarks (url TEXT)", "studies (school TEXT)"])
def test_a_database_of_another_program_is_refused_and_left_alone(path: Path, table: str) -> None:
    query(path, f"CREATE TABLE {table}")
    with pytest.raises(InputError, match="is not a ledger of this tool"):
        Ledger(path).record(ACCURACY, SPACE, (1,), 0.5)
    assert query(path, "SELECT count(*) FROM sqlite_master") == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE trial_user_attributes SET value_json = '\"12\"' WHERE key = 'genes'",
        "UPDATE trial_user_attributes SET value_json = '[1, \"2\"]' WHERE key = 'genes'",
        "UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'genes'",
        "DELETE FROM trial_user_attributes WHERE key = 'genes'",
        "UPDATE trial_user_attributes SET value_json = '[]' WHERE key = 'details'",
        "UPDATE trial_values SET value = NULL, value_type = 'INF_POS'",
        "UPDATE trial_values SET value_type = 'HUGE'",
        "DELETE FROM trial_values",
        "UPDATE trials SET state = 'DONE'",
        "DELETE FROM study_user_attributes",
        "UPDATE alembic_version SET version_num = 'v99'",
        "DROP TABLE trial_values",
    ],
)
def test_rows_that_this_tool_has_not_written_are_refused(path: Path, sql: str) -> None:
    Ledger(path).record(ACCURACY, SPACE, (1, 2), 0.5, {"images": 360})
    query(path, sql)
    with pytest.raises(InputError) as caught:
        Ledger(path).rows(ACCURACY, SPACE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_damaged_page_is_noticed(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.db", tmp_path / "damaged.db"
    record_some(whole, 0)
    content, page = whole.read_bytes(), 4096
    for start in range(0, len(content), page):
        for spoiled in (content[:start], content[:start] + bytes(page) + content[start + page :]):
            if spoiled:  # an empty file is a new ledger
                damaged.write_bytes(spoiled)
                with pytest.raises(InputError, match="is not a ledger of this tool, or is damaged") as caught:
                    Ledger(damaged).rows(ACCURACY, SPACE)
                assert "\n" not in str(caught.value)


def test_a_ledger_can_be_read_on_a_read_only_disk(tmp_path: Path) -> None:
    with protectable(tmp_path) as folder:
        path = folder / "ledger.db"
        Ledger(path).record(ACCURACY, SPACE, (1,), 0.5)
        with read_only(folder):
            assert Ledger(path).values(ACCURACY, SPACE) == {(1,): 0.5}


@pytest.mark.slow  # Optuna tries five times, with seconds between
def test_a_full_disk_is_explained_and_leaves_the_rows(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=300) as disk:
        ledger = Ledger(disk / "ledger.db")
        ledger.record(ACCURACY, SPACE, (0,), 0.5)
        with pytest.raises(MachineError, match=r"cannot use the ledger .*: database or disk is full"):
            ledger.record(ACCURACY, SPACE, (1,), 0.5, {"note": "x" * 300_000})
        assert Ledger(disk / "ledger.db").values(ACCURACY, SPACE) == {(0,): 0.5}


def test_a_place_that_cannot_hold_a_ledger_is_explained(tmp_path: Path) -> None:
    for place in (tmp_path / "missing" / "ledger.db", tmp_path):
        with pytest.raises(MachineError, match=f"cannot use the ledger {place}: unable to open"):
            Ledger(place).record(ACCURACY, SPACE, (1,), 0.5)


def test_names_that_mean_something_in_a_url_are_plain_names_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20{d} ü;e=f@g.db"
    Ledger(path).record(ACCURACY, SPACE, (1,), 0.5)
    assert path.exists()
    assert Ledger(path).count(ACCURACY) == 1


@pytest.mark.parametrize("url", ["oracles://me:hunter2@host/runs", "postgresql+nodriver://me:hunter2@host/{runs}"])
def test_a_url_that_cannot_be_used_is_explained_without_its_password(url: str) -> None:
    with pytest.raises(InputError, match="cannot be reached") as caught:
        Ledger(url).rows(ACCURACY, SPACE)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_optuna_is_silent_and_its_logging_stays_as_it_was(path: Path) -> None:
    # In a new process: Optuna writes to whatever standard error was when it was imported.
    code = (
        "import sys; from nas.ledger import Ledger; from optuna import logging\n"
        "before = logging.get_verbosity()\n"
        "Ledger(sys.argv[1]).record('accuracy:x', 'space', (1,), 0.5)\n"
        "assert Ledger(sys.argv[1]).count('accuracy:x') == 1\n"
        "assert logging.get_verbosity() == before == logging.INFO\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_the_ledger_loads_no_optuna() -> None:
    loaded = newly_imported("nas.ledger")
    assert "nas" in loaded
    assert loaded & {"optuna", "sqlalchemy", "torch"} == set()
