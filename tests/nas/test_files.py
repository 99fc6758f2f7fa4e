from __future__ import annotations

import hashlib
import os
import resource
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.files import exclusive_lock, make_folder, read_document, read_text, sha256_file, write_atomic, write_folder
from search_spaces.documents import document, pretty_json
from search_spaces.errors import InputError, MachineError
from tests.nas.hazards import protectable, read_only, running, small_disk, wait_until

SIZE = 2_000_000  # bytes; long enough to write that a kill at random hits the middle


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    CURRENT_VERSION: ClassVar[int] = 2

    format_version: int
    text: str


def write_versions(path: Path) -> None:
    version = 0
    while True:
        write_atomic(path, bytes([version % 256]) * SIZE)
        version += 1


def write_beyond_the_limit(path: Path, answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        write_atomic(path, b"new" * 10_000)
    except MachineError as error:
        answer.send(str(error))


def hold_lock(path: Path, answer: Connection) -> None:
    sys.argv = ["/some/where/nas", "train", "--password", "hunter2"]
    with exclusive_lock(path):
        answer.send("held")
        threading.Event().wait()


def is_whole(content: bytes) -> bool:
    return len(content) == SIZE and content == content[:1] * SIZE


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_atomic(path, "grüße\n")
    assert path.read_bytes() == "grüße\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [entry.name for entry in tmp_path.iterdir()] == ["note.json"]


@given(text=st.text(st.characters(codec="utf-8")))
@settings(max_examples=30, deadline=None)
def test_text_is_read_back_unchanged(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "text"
    write_atomic(path, text)
    assert read_text(path) == text


def test_a_reader_never_sees_half_a_file_and_kills_leave_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    rng = np.random.default_rng(0)
    kills = interrupted = 0
    while kills < 12 or (interrupted < 3 and kills < 100):
        with running(write_versions, path):
            wait_until(path.exists)
            for _ in range(rng.integers(1, 20)):
                assert is_whole(path.read_bytes())
        assert is_whole(path.read_bytes())
        names = {entry.name for entry in tmp_path.iterdir()} - {"weights"}
        assert names <= {".weights.tmp"}
        kills, interrupted = kills + 1, interrupted + len(names)
    assert interrupted >= 3, "hardly a kill hit a writer at work: the test has shown nothing"


def test_what_a_killed_writer_left_is_taken_over_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".note.tmp").write_bytes(b"left behind, and longer than the new content")
    write_atomic(tmp_path / "note", b"new")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"note": b"new"}


def test_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    barrier = threading.Barrier(8)
    failures: list[Exception] = []

    def write(letter: int) -> None:
        barrier.wait()
        try:
            for _ in range(5):
                write_atomic(path, bytes([letter]) * SIZE)
                assert is_whole(path.read_bytes())
        except Exception as error:  # noqa: BLE001 - handed to the main thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["shared"]


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".note.tmp").symlink_to(victim)
    with pytest.raises(MachineError, match="cannot write"):
        write_atomic(tmp_path / "note", b"new")
    assert victim.read_bytes() == b"precious"


def test_a_write_above_the_size_limit_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "note"
    write_atomic(path, b"old")
    here, there = Pipe()
    with running(write_beyond_the_limit, path, there):
        assert here.poll(60)
        assert here.recv() == f"cannot write {path}: File too large"
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"note": b"old"}


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=64) as disk:
        write_atomic(disk / "note", b"old")
        with pytest.raises(MachineError, match=r"cannot write .*note: No space left on device"):
            write_atomic(disk / "note", b"new" * 100_000)
        assert {entry.name: entry.read_bytes() for entry in disk.iterdir()} == {"note": b"old"}


def write_folder_versions(folder: Path) -> None:
    version = 0
    while True:
        content = bytes([version % 256]) * 100_000
        write_folder(folder, {"list": content, "first": content, "second": content}, last="list")
        version += 1


def test_files_that_belong_together_are_replaced_together_and_kills_leave_no_mixture(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    rng = np.random.default_rng(0)
    unfinished = 0
    for _ in range(25):
        with running(write_folder_versions, folder):
            wait_until((folder / "second").exists)
            for _ in range(rng.integers(1, 200)):
                folder.exists()
        # Where the list is, all is of one version; where it is not, nothing says that the rest counts.
        if (folder / "list").exists():
            assert len({(folder / name).read_bytes() for name in ("list", "first", "second")}) == 1
        unfinished += (tmp_path / ".export.tmp").exists()
        write_folder(folder, {"list": b"a", "first": b"b"}, last="list", stale=["second"])
        assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == {"list": b"a", "first": b"b"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["export"]
    assert unfinished >= 3, "hardly a kill hit a writer at work: the test has shown nothing"


def test_a_full_disk_leaves_a_folder_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=64) as disk:
        write_folder(disk / "export", {"list": b"old", "model": b"old"}, last="list")
        with pytest.raises(MachineError, match="No space left on device"):
            write_folder(disk / "export", {"list": b"new", "model": b"new" * 100_000}, last="list")
        assert {each.name: each.read_bytes() for each in (disk / "export").iterdir()} == {
            "list": b"old",
            "model": b"old",
        }
        assert [each.name for each in disk.iterdir()] == ["export"]


def test_a_link_in_place_of_the_folder_in_the_making_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".export.tmp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="cannot write"):
        write_folder(tmp_path / "export", {"list": b"new"}, last="list")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_read_only_folder_is_explained(tmp_path: Path) -> None:
    with protectable(tmp_path) as folder:
        path = folder / "note"
        write_atomic(path, b"old")
        with read_only(folder):
            with pytest.raises(MachineError, match=r"cannot write .*note: (Read-only|Permission)"):
                write_atomic(path, b"new")
            with pytest.raises(MachineError, match="cannot lock"), exclusive_lock(folder / "lock"):
                pass
            with pytest.raises(MachineError, match="cannot make the folder"):
                make_folder(folder / "sub" / "folder")
            assert read_text(path) == "old"


@pytest.mark.parametrize("name", ["folder", "missing/note"])
def test_a_path_that_cannot_be_a_file_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    with pytest.raises(MachineError) as caught:
        write_atomic(path, b"new")
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_folders_are_made_with_their_parents_and_may_exist(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_missing_file_is_a_wrong_input_and_names_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    with pytest.raises(InputError) as caught:
        read_document(path, Note, next_step="run `nas search` first")
    assert str(caught.value) == f"{path} does not exist; run `nas search` first"
    with pytest.raises(InputError, match=r"does not exist$"):
        sha256_file(path)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"abc\xff")
    with pytest.raises(InputError, match=r"binary: not a text file .* at byte 3"):
        read_text(tmp_path / "binary")
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_text(tmp_path)


def test_a_document_is_read_back(tmp_path: Path) -> None:
    note = Note(format_version=Note.CURRENT_VERSION, text="x")
    write_atomic(tmp_path / "note.json", pretty_json(note))
    assert read_document(tmp_path / "note.json", Note) == note


@pytest.mark.parametrize(("version", "age"), [(1, "an older"), (3, "a newer")])
def test_another_format_version_is_refused_before_its_fields_are_read(tmp_path: Path, version: int, age: str) -> None:
    path = tmp_path / "note.json"
    write_atomic(path, pretty_json({"format_version": version, "field_of_that_version": 1}))
    with pytest.raises(InputError, match=f"written by {age} release, in format version {version}; .* reads version 2"):
        read_document(path, Note)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "document: "),
        ("[]", "document: "),
        ("{", "document: "),
        ('{"text": "x"}', "format_version: Field required"),
        ('{"format_version": null, "text": "x"}', "format_version: "),
        ('{"format_version": 2}', "text: Field required"),
        ('{"format_version": 2, "text": "x", "extra": 1}', "extra: "),
        ("[" * 100_000, "document: "),
    ],
)
def test_an_invalid_document_is_refused_in_one_line(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "note.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_document(path, Note)
    assert str(caught.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(caught.value)


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    write_atomic(tmp_path / "weights", content)
    assert sha256_file(tmp_path / "weights") == hashlib.sha256(content).hexdigest()


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    here, there = Pipe()
    with running(hold_lock, lock, there) as holder:
        assert here.poll(60)
        with pytest.raises(InputError) as caught, exclusive_lock(lock):
            pass
        message = str(caught.value)
        assert message.startswith(f"{tmp_path} is in use by process {holder.pid} (nas train …); wait for it")
        assert "hunter2" not in message + lock.read_text()


def test_the_lock_is_free_once_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    here, there = Pipe()
    with running(hold_lock, lock, there):
        assert here.poll(60)
    assert lock.read_text() != "", "a killed holder cannot take its name away"
    with exclusive_lock(lock):
        assert lock.read_text().split()[0] == str(os.getpid())


def test_the_lock_is_free_after_the_block_even_if_it_fails(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with pytest.raises(ZeroDivisionError), exclusive_lock(lock):
        _ = 1 / 0
    with exclusive_lock(lock):
        pass
    assert lock.read_text() == ""


def test_the_lock_holds_against_the_same_process_too(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with exclusive_lock(lock):
        with pytest.raises(InputError, match=f"process {os.getpid()} "), exclusive_lock(lock):
            pass
        with pytest.raises(InputError, match=f"process {os.getpid()} "), exclusive_lock(lock):
            pass


def test_a_lock_in_a_missing_folder_is_explained(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match=r"cannot lock .*missing/\.lock: No such file"),
        exclusive_lock(tmp_path / "missing" / ".lock"),
    ):
        pass
