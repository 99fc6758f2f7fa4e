"""What waits in a ledger is evaluated once, whatever happens to those who evaluate, in SQLite and in PostgreSQL."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from nas.ledger import Genes, Ledger
from nas.ledger_place import move_ledger, run_ledger
from nas.ledger_queue import LedgerQueue
from search_spaces.errors import CheckError, InputError, MachineError
from tests.nas.hazards import running, wait_until

ACCURACY = "accuracy:5eed:validation:fp32"
SPACE = "0123456789abcdef"
GENOMES: list[Genes] = [(number, number + 1) for number in range(24)]


def queue_of(place: Path | str) -> LedgerQueue:
    return LedgerQueue(Ledger(place), ACCURACY, SPACE)


def judge(genes: Genes) -> float:
    return genes[0] / 100


def work_forever(place: Path | str, told: Connection, pause_s: float) -> None:
    """Evaluate what waits; tell of each network before it is evaluated."""

    def slow_judge(genes: Genes) -> float:
        told.send(genes)
        time.sleep(pause_s)
        return judge(genes)

    queue = queue_of(place)
    while True:
        if not queue.work(slow_judge):
            time.sleep(0.02)


def table(place: Path | str) -> list[tuple[Genes, float]]:
    return [(row.genes, row.value) for row in Ledger(place).rows(ACCURACY, SPACE)]


def take_all(queue: LedgerQueue, genomes: list[Genes]) -> dict[Genes, float]:
    values: dict[Genes, float] = {}

    def all_taken() -> bool:
        values.update({genes: verdict.value for genes, verdict in queue.take(genomes).items()})
        return len(values) == len(genomes)

    wait_until(all_taken)
    return values


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_networks_are_evaluated_in_the_order_in_which_they_were_added(path: Path) -> None:
    queue = queue_of(path)
    assert not queue.work(judge)
    queue.add(GENOMES[:3])
    queue.add([GENOMES[1], GENOMES[5], GENOMES[5]])
    assert queue.take(GENOMES[:3]) == {}
    asked: list[Genes] = []

    def noting(genes: Genes) -> float:
        asked.append(genes)
        return judge(genes)

    worker = queue_of(path)
    while worker.work(noting):
        pass
    assert asked == [*GENOMES[:3], GENOMES[5]]
    finished = queue.take([GENOMES[0], GENOMES[5]])
    assert {genes: verdict.value for genes, verdict in finished.items()} == {GENOMES[0]: 0.0, GENOMES[5]: 0.05}
    assert queue.take([GENOMES[0]]) == {}  # told once
    assert table(path) == [(genes, judge(genes)) for genes in asked]


def test_what_goes_wrong_is_told_kept_and_can_be_tried_again(path: Path) -> None:
    queue = queue_of(path)

    def broken(genes: Genes) -> float:
        if genes == GENOMES[0]:
            raise CheckError("the logits are not finite")
        return float("nan")

    queue.add(GENOMES[:2])
    assert queue.work(broken)
    assert queue.work(broken)
    told = {genes: verdict.reason for genes, verdict in queue.take(GENOMES[:2]).items()}
    assert told == {GENOMES[0]: "the logits are not finite", GENOMES[1]: "the evaluation gave nan"}
    failures = Ledger(path).failures(ACCURACY, SPACE)
    assert [(failure.genes, failure.reason) for failure in failures] == list(told.items())
    assert table(path) == []
    queue.add(GENOMES[:1])
    assert queue.work(judge)
    assert queue.take(GENOMES[:1])[GENOMES[0]].value == 0.0


def test_what_a_killed_search_left_waiting_waits_once(path: Path) -> None:
    queue_of(path).add(GENOMES[:3])
    again = queue_of(path)
    again.add(GENOMES[1:4])
    while again.work(judge):
        pass
    assert [genes for genes, _ in table(path)] == GENOMES[:4]
    assert set(again.take(GENOMES)) == set(GENOMES[1:4])


def test_what_was_recorded_meanwhile_is_not_evaluated_again(path: Path) -> None:
    queue = queue_of(path)
    queue.add(GENOMES[:2])
    Ledger(path).record(ACCURACY, SPACE, GENOMES[0], 0.75)
    while queue.work(judge):
        pass
    assert {genes: verdict.value for genes, verdict in queue.take(GENOMES).items()} == {
        GENOMES[0]: 0.75,
        GENOMES[1]: judge(GENOMES[1]),
    }
    assert Ledger(path).count(ACCURACY) == 2


def test_what_is_withdrawn_is_not_evaluated_unless_somebody_else_asked_for_it(path: Path) -> None:
    first, second = queue_of(path), queue_of(path)
    first.add(GENOMES[:3])
    second.add(GENOMES[1:2])
    first.withdraw(GENOMES[2:3])
    first.withdraw()
    assert not first.work(judge)
    assert second.take(GENOMES) == {}
    assert second.work(judge)
    assert second.take(GENOMES)[GENOMES[1]].value == judge(GENOMES[1])
    assert Ledger(path).count(ACCURACY) == 1


def test_a_worker_that_is_interrupted_puts_its_network_back(path: Path) -> None:
    queue = queue_of(path)
    queue.add(GENOMES[:1])

    def interrupted(genes: Genes) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        queue.work(interrupted)
    assert queue.take(GENOMES) == {}
    assert Ledger(path).failures(ACCURACY, SPACE) == []
    assert queue.work(judge)
    assert queue.take(GENOMES)[GENOMES[0]].value == judge(GENOMES[0])


@pytest.mark.parametrize("error", [MachineError("no space left"), OSError("no space left"), MemoryError()])
def test_what_a_machine_lacks_is_no_failure_of_a_network(path: Path, error: BaseException) -> None:
    queue = queue_of(path)
    queue.add(GENOMES[:1])

    def lacking(genes: Genes) -> float:
        raise error

    with pytest.raises(MachineError):
        queue.work(lacking)
    assert queue.take(GENOMES) == {}
    assert Ledger(path).failures(ACCURACY, SPACE) == []
    assert queue.work(judge)
    assert queue.take(GENOMES)[GENOMES[0]].value == judge(GENOMES[0])


def test_a_worker_that_was_taken_for_dead_goes_on_and_its_result_is_not_kept_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.ledger_queue._SILENCE_CHECK_S", 0.0)
    queue = queue_of(path)
    queue.add(GENOMES[:1])
    other = queue_of(path)

    def slow(genes: Genes) -> float:
        make_silent(path)
        assert other.work(judge), "it was not given out again"
        return judge(genes)

    assert queue.work(slow)
    assert queue.take(GENOMES)[GENOMES[0]].value == judge(GENOMES[0])
    assert Ledger(path).count(ACCURACY) == 1
    assert not queue.work(judge)


def test_what_a_killed_search_left_is_taken_back_and_what_is_claimed_goes_on(path: Path) -> None:
    queue_of(path).add(GENOMES[:3])
    assert not queue_of(path).clear()
    assert not queue_of(path).work(judge)
    queue = queue_of(path)
    queue.add(GENOMES[:2])

    def cleared_meanwhile(genes: Genes) -> float:
        assert queue_of(path).clear()
        return judge(genes)

    assert queue.work(cleared_meanwhile)
    # Whoever still asks for what was taken back lets it wait again.
    assert set(queue.take(GENOMES)) == {GENOMES[0]}
    assert queue.work(judge)
    assert queue.take(GENOMES)[GENOMES[1]].value == judge(GENOMES[1])


def test_withdrawing_what_has_just_been_finished_harms_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = queue_of(path)
    queue.add(GENOMES[:2])
    real = Ledger.trials

    def and_then_they_are_finished(self: Ledger, *arguments: Any) -> Any:
        found = real(self, *arguments)
        monkeypatch.setattr(Ledger, "trials", real)
        while queue_of(path).work(judge):
            pass
        return found

    monkeypatch.setattr(Ledger, "trials", and_then_they_are_finished)
    queue.withdraw()
    assert Ledger(path).count(ACCURACY) == 2


def evaluate_under_kills(place: Path | str) -> None:
    """Kill workers in the middle of a network; check that what they were at is there in the end, once."""
    queue = queue_of(place)
    queue.add(GENOMES)
    seen: list[Genes] = []
    for _ in range(3):
        here, there = Pipe()
        with running(work_forever, place, there, 0.2):
            for _ in range(3):
                assert here.poll(60)
                seen.append(here.recv())
    pipes = [Pipe(), Pipe()]
    with running(work_forever, place, pipes[0][1], 0.0), running(work_forever, place, pipes[1][1], 0.0):
        assert take_all(queue, GENOMES) == {genes: judge(genes) for genes in GENOMES}
    rows = table(place)
    assert len(rows) == len(GENOMES)
    assert dict(rows) == {genes: judge(genes) for genes in GENOMES}
    assert Ledger(place).failures(ACCURACY, SPACE) == []
    assert len(seen) == 9


def work_until_none_waits(place: Path | str, told: Connection) -> None:
    judged: list[Genes] = []

    def noting(genes: Genes) -> float:
        judged.append(genes)
        return judge(genes)

    queue = queue_of(place)
    told.recv()
    while queue.work(noting):
        pass
    told.send(judged)


def test_two_workers_never_claim_the_same_network(path: Path) -> None:
    asked: list[Genes] = [(number,) for number in range(60)]
    queue_of(path).add(asked)
    pipes = [Pipe() for _ in range(4)]
    with ExitStack() as stack:
        for _, there in pipes:
            stack.enter_context(running(work_until_none_waits, path, there))
        for here, _ in pipes:
            here.send("begin")
        judged = [genes for here, _ in pipes for genes in here.recv()]
    assert sorted(judged) == asked


@pytest.mark.slow
def test_what_killed_workers_were_at_is_evaluated_once_in_sqlite(path: Path) -> None:
    evaluate_under_kills(path)


def test_a_network_that_kills_its_workers_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock of the database, and not this one, tells how long a worker has been silent: pretend that it is always.
    queue = queue_of(path)
    queue.add(GENOMES[:1])
    monkeypatch.setattr("nas.ledger_queue._SILENCE_CHECK_S", 0.0)
    told = []
    for _ in range(4):
        here, there = Pipe()
        with running(work_forever, path, there, 60.0):
            assert here.poll(60)
        make_silent(path)
        told += [verdict.reason for verdict in queue.take(GENOMES).values()]
    assert told == ["the process that evaluated it has ended 4 times"]


def make_silent(path: Path) -> None:
    """Let an hour pass since the last sign of life of all workers."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')")


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of one's own, from the system's packages; its URL without a database."""
    found = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        pytest.skip("needs PostgreSQL's server, such as Debian's package postgresql")
    pytest.importorskip("psycopg")
    binaries, folder = Path(found).parent, tmp_path_factory.mktemp("postgresql")
    # The server refuses to run as root.
    as_other = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
    if as_other:
        for each in (folder, *folder.parents):
            if not each.stat().st_mode & stat.S_IXOTH:
                each.chmod(0o755)
        shutil.chown(folder, "nobody", "nogroup")
    data = folder / "data"

    def server(*words: str | Path) -> None:
        subprocess.run([*as_other, *map(str, words)], check=True, capture_output=True, cwd=folder, timeout=60)

    server(binaries / "initdb", "--auth=trust", "--username=nas", "-D", data)
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    server(binaries / "pg_ctl", "start", "-w", "-D", data, "-o", options, "-l", folder / "log")
    try:
        yield f"postgresql://nas@/postgres?host={folder}"
    finally:
        server(binaries / "pg_ctl", "stop", "-D", data, "-m", "immediate")


@pytest.mark.slow
def test_what_killed_workers_were_at_is_evaluated_once_in_postgresql(postgresql: str) -> None:
    evaluate_under_kills(postgresql)


@pytest.mark.slow
def test_a_run_moves_its_ledger_into_postgresql(postgresql: str, tmp_path: Path) -> None:
    old = run_ledger(tmp_path)
    latency = "latency:moved"
    old.record(latency, SPACE, (1, 2), 2.5, {"rounds": [1.0, 2.0]})
    old.record_failure(latency, SPACE, (1, 3), "out of memory")
    for expected in (1, 2, 2):
        moved = move_ledger(tmp_path, postgresql)
        assert moved.count(latency) == expected
        assert [failure.reason for failure in moved.failures(latency, SPACE)] == ["out of memory"]
        assert run_ledger(tmp_path).place == postgresql
        moved.record(latency, SPACE, (1, 4), 3.5) if expected == 1 else None
        # As if the move had been interrupted before its last step.
        (tmp_path / "ledger.url").unlink()
    assert old.count(latency) == 1


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("ledger.db", "such as postgresql://user@host/name, not 'ledger.db'"),
        ("postgresql://me:secret@host/nas", "leave the password out"),
        ("postgresql://me:sec/ret@host/nas", "leave the password out"),
        ("postgresql://me@host/nas?password=secret", "leave the password out"),
        ("postgresql://me:secret@host:port/nas", "since it may hold a password"),
        ("sqlite:///ledger.db", "name a server's URL"),
        ("nosuch://host/nas", "cannot be reached"),
    ],
)
def test_what_is_no_place_for_a_ledger_is_refused(tmp_path: Path, url: str, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        move_ledger(tmp_path, url)
    assert "sec" not in str(caught.value).replace("since", "")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "ledger.url").write_text(url)
    if "nosuch" not in url:
        with pytest.raises(InputError, match=match):
            run_ledger(tmp_path)
