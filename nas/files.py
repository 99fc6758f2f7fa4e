"""Files that are whole at every moment: the one atomic writer, the readers that pair with it, and the one run lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from search_spaces.documents import decode
from search_spaces.errors import InputError, MachineError


class VersionedDocument(Protocol):
    """What every file format is: a frozen dataclass that says in which version of its format it was written.

    A format declares ``CURRENT_VERSION: ClassVar[int] = 1`` and the field ``format_version: int``.
    """

    CURRENT_VERSION: ClassVar[int]

    @property
    def format_version(self) -> int:
        """The version of the format this document was written in."""


Versioned = TypeVar("Versioned", bound=VersionedDocument)


@dataclass(frozen=True)
class _VersionOnly:
    """The one field that may be trusted before the version is known."""

    format_version: int


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file as a whole: at any moment, even after ``kill -9``, a reader sees the old or the new content.

    What a killed writer leaves behind is one hidden file beside `path`, which the next write to `path` takes over.
    Writers of the same file take turns.

    Args:
        path: the file to create or replace; its folder exists.
        data: the whole content; text is written as UTF-8.

    Raises:
        MachineError: the content could not be stored (disk full, permission denied, no such folder); `path` is as
            it was before.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.tmp")
    with _disk_errors("write", path):
        descriptor = _open_alone(temporary)
        with os.fdopen(descriptor, "wb") as file:
            try:
                file.truncate()
                file.write(content)
                file.flush()
                os.fsync(descriptor)
                temporary.replace(path)
            except BaseException:
                if _is_open_at(descriptor, temporary):
                    temporary.unlink()
                raise
        _sync_folder(path.parent)


def write_folder(folder: Path, contents: Mapping[str, bytes | str], *, last: str, stale: Iterable[str] = ()) -> None:
    """Replace files of a folder together, so that the one named `last` is only there when all others are its own.

    All are written beside the folder first: a disk that is full leaves the folder as it was. A process that is killed
    while they are moved leaves the folder without `last`, or as it was.

    Args:
        folder: made if missing; other files in it stay.
        contents: by name; `last` is among them.
        last: the file that tells of the others.
        stale: names of files of before that are removed.

    Raises:
        MachineError: the files could not be stored.
    """
    staging = _staging(folder)
    try:
        for name, data in contents.items():
            write_atomic(staging / name, data)
        make_folder(folder)
        for name in {*contents, *stale}:
            if (folder / name).is_dir():
                raise MachineError(f"cannot write {folder / name}: a folder is in its place")
        with _disk_errors("write", folder):
            (folder / last).unlink(missing_ok=True)
            for name in stale:
                (folder / name).unlink(missing_ok=True)
            for name in sorted(contents, key=lambda each: each == last):
                (staging / name).replace(folder / name)
            _sync_folder(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def require_writable(folder: Path) -> None:
    """Raise `MachineError` if `write_folder` could not write a folder."""
    staging = _staging(folder)
    try:
        write_atomic(staging / "probe", b"")
        if folder.exists():
            with _disk_errors("write", folder):
                tempfile.TemporaryDirectory(dir=folder).cleanup()
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _staging(folder: Path) -> Path:
    """Make an empty folder beside another one, in which its files are written first."""
    staging = folder.with_name(f".{folder.name}.tmp")
    make_folder(folder.parent)
    with _disk_errors("write", folder):
        shutil.rmtree(staging, ignore_errors=True)  # of a writer that was killed
        staging.mkdir()
    return staging


def make_folder(path: Path) -> None:
    """Make a folder and its parents; one that exists already is fine.

    Raises:
        MachineError: it cannot be made (permission denied, a file of this name).
    """
    with _disk_errors("make the folder", path):
        path.mkdir(parents=True, exist_ok=True)


def read_text(path: Path, *, next_step: str = "") -> str:
    """Return the content of a UTF-8 text file.

    Args:
        path: the file to read.
        next_step: what the user can do if the file is missing, such as "run `nas train` first".

    Raises:
        InputError: there is no such file, or it is not UTF-8 text.
        MachineError: the disk refuses to give it.
    """
    with _disk_errors("read", path, next_step=next_step):
        content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error.reason} at byte {error.start})") from None


def read_document(path: Path, kind: type[Versioned], *, next_step: str = "") -> Versioned:
    """Read and validate a file of one of our formats.

    Args:
        path: the file to read, which is not trusted.
        kind: the dataclass of the format.
        next_step: what the user can do if the file is missing, such as "run `nas train` first".

    Raises:
        InputError: there is no such file, its format version is not the one that `kind` reads, or its content is
            not valid.
        MachineError: the disk refuses to give it.
    """
    text = read_text(path, next_step=next_step)
    written = decode(_VersionOnly, text, source=str(path)).format_version
    if written != kind.CURRENT_VERSION:
        age = "a newer" if written > kind.CURRENT_VERSION else "an older"
        raise InputError(
            f"{path} was written by {age} release, in format version {written}; "
            f"this release reads version {kind.CURRENT_VERSION}: use the release that wrote it, or make the file anew"
        )
    return decode(kind, text, source=str(path))


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of a content as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits.

    Raises:
        InputError: there is no such file.
        MachineError: the disk refuses to give it.
    """
    with _disk_errors("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a run directory for this process alone while the block runs.

    The operating system releases the lock when the holder ends, however it ends; the lock file itself stays, as
    removing it would let two processes lock two different files of the same name. Processes that the holder has
    forked share the lock until they end too.

    Args:
        path: the lock file, inside the run directory that it guards; made if missing.

    Raises:
        InputError: another process holds the lock; the message names it.
        MachineError: the lock file cannot be made or locked.
    """
    with _disk_errors("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with _disk_errors("lock", path):
            _lock_or_refuse(descriptor, path)
            _overwrite(descriptor, f"{os.getpid()} {_command()}")
        try:
            yield
        finally:
            with _disk_errors("unlock", path):
                _overwrite(descriptor, "")
    finally:
        os.close(descriptor)


def _lock_or_refuse(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        process, _, command = os.pread(descriptor, 1000, 0).decode(errors="replace").partition(" ")
        # The holder locks first and signs second, so that a signature can be missing for a moment.
        holder = f"process {process} ({command} …)" if command else "another process"
        raise InputError(
            f"{path.parent} is in use by {holder}; wait for it to end, or stop it, or choose another run directory"
        ) from None


def _command() -> str:
    """Return the program and its subcommand only: later arguments can hold a password, and a run can be shared."""
    words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    return "".join(character if character.isprintable() else "?" for character in words)


def _overwrite(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(errors="replace"), 0)


def _open_alone(path: Path) -> int:
    """Open a file for writing, making it if missing, and wait until no other writer has it."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # While we waited, the writer before us may have moved the file to its final name.
            if _is_open_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(action: str, path: Path, *, next_step: str = "") -> Iterator[None]:
    """Explain an error of the operating system in one line; a file that is missing on reading, or a
    folder in its place, is a wrong input.
    """
    try:
        yield
    except MachineError:
        raise
    except FileNotFoundError as error:
        if action == "read":
            raise InputError(f"{path} does not exist{next_step and f'; {next_step}'}") from None
        raise MachineError(f"cannot {action} {path}: {error.strerror}") from None
    except OSError as error:
        if action == "read" and isinstance(error, IsADirectoryError):
            raise InputError(f"{path} is a folder, not a file") from None
        raise MachineError(f"cannot {action} {path}: {error.strerror or error}") from None
