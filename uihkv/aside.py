"""A directory or file that is filled aside and appears under its path whole, durable and at once, or not at all.

It is filled in a hidden neighbour of its path, ``.NAME.build-XXXXXXXX``, which only its owner knows. When all went
well, every file and directory in it is flushed, and one rename puts it in its place: after a power cut at any moment
the path holds nothing, or everything. When not, it is removed.

A killed owner leaves the neighbour behind; the next one for the same path removes it. Whether an owner lives is told by
a lock (``flock``) that it holds on the directory itself, which the system lets go when the process ends, however that
happens: no process number that may be given to another, no clock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from uihkv.errors import StoreExistsError
from uihkv.manifest import sync_directory
from uihkv.place import file_errors

_HIDDEN_DIGITS = 8


@contextmanager
def built_aside(target: Path) -> Iterator[Path]:
    """The directory to fill; it takes the target's place when all went well inside, and is removed when not.

    Raises:
        StoreExistsError: when something was put there meanwhile.
        StoreFullError, ReadOnlyError: when the system refuses.

    """
    with file_errors(target):
        _remove_abandoned(target, "build")
        aside, lock = _make_owned(target, "build")
    try:
        try:
            yield aside
            with file_errors(target):
                aside.chmod(0o755)
                _sync_tree(aside)
            try:
                aside.rename(target)
            except OSError as error:
                raise StoreExistsError(f"{target}: something was put there meanwhile ({error})") from error
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_directory(target.parent)
    finally:
        os.close(lock)


@contextmanager
def owned_folder(target: Path, kind: str) -> Iterator[Path]:
    """A hidden directory beside a path for what is needed while inside; what killed owners have left is removed too."""
    _remove_abandoned(target, kind)
    folder, lock = _make_owned(target, kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def owned_file(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new hidden file beside a path, open to be written; who is inside puts it in its place, else it is removed.

    What killed owners have left for the same path is removed first.
    """
    for left in target.parent.glob(f"{_escape(f'.{target.name}.')}{'[0-9a-f]' * _HIDDEN_DIGITS}"):
        with suppress(OSError), left.open("rb") as file:  # gone, or none of ours
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where its owner lives
            left.unlink()
    while True:
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:_HIDDEN_DIGITS]}")
        with aside.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not aside.exists():
                continue  # somebody took it for abandoned in the moment before it was locked
            try:
                yield aside, file
            finally:
                aside.unlink(missing_ok=True)
            return


def _make_owned(target: Path, kind: str) -> tuple[Path, int]:
    """A new directory and the lock on it."""
    while True:
        aside = Path(tempfile.mkdtemp(prefix=_prefix(target, kind), dir=target.parent))
        lock = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if aside.exists():
            return aside, lock
        os.close(lock)  # somebody took it for abandoned in the moment before it was locked


def _remove_abandoned(target: Path, kind: str) -> None:
    """Remove what killed owners have left."""
    for left in target.parent.glob(f"{_escape(_prefix(target, kind))}*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # gone, or none of ours
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass  # its owner lives
        finally:
            os.close(lock)


def _prefix(target: Path, kind: str) -> str:
    return f".{target.name}.{kind}-"


def _escape(name: str) -> str:
    """A name as a pattern that only it matches."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _sync_tree(folder: Path) -> None:
    """Flush every file and directory, those inside first."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            handle = os.open(Path(place) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_directory(Path(place))
