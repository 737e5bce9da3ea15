"""``git log`` as a log of interactions: an author touches a file at a time.

The installed git is asked for ``git log --reverse --no-merges --no-renames --numstat``, and what it prints is read as
it comes. Each file of a commit is an event, in the order of that log, which is the arrival order:

=============  =======  ==============================================================================================
``user_id``    int64    the author (address, as ``.mailmap`` has it), by first appearance from 0
``item_id``    int64    the path, by first appearance from 0
``ts``         ms       author time: when the change was written
``visible_at`` ms       committer time: when it became visible to everybody; lifted where it steps back within a user
``kind``       uint16   the file's extension, by first appearance from 0
``added``      int32    lines added; 0 for binary files
``deleted``    int32    lines deleted; 0 for binary files
``binary``     uint8    1 for binary files
=============  =======  ==============================================================================================

Ids are opaque: no names, addresses or paths are stored. They depend on the log alone, so an interrupted import of the
same revision goes on with the same ids. With ``names``, ``user_id`` is the author's address, ``item_id`` the path and
``kind`` the extension, all strings; then later commits (``OLD..NEW``, under another source) fit a store that is there.
Memory holds every author, path and extension once, and git's own.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

import numpy as np
import pyarrow as pa

from uihkv.errors import FormatError
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.importers.storing import BATCH_ROWS, ImportProgress, ImportResult, store_log
from uihkv.importers.tables import make_events
from uihkv.schema import Column, Schema

PART_EVENTS = 1 << 16
_READ_BYTES = 1 << 20
_COMMIT = b"\x01"
_MAX_INT32 = (1 << 31) - 1


def import_git(
    repository: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    revision: str = "HEAD",
    names: bool = False,
    source: str | None = None,
    shards: int = 16,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[ImportProgress], None] | None = None,
) -> ImportResult:
    """Put a repository's history into a store, which is made if it is not there.

    Args:
        repository: a git repository, or a folder in one.
        store: folder of a store with the module's columns, or where nothing is yet.
        revision: what ``git log`` begins from: a branch, tag or commit, or a range of them.
        names: store addresses, paths and extensions as strings.
        source: name under which the events are counted, so that an interrupted import of the same revision can be run
            again and stores nothing twice.
        shards: of a store that is made.
        batch_rows: events an append; 1 or more.
        progress: called after each piece that was read and each batch that was stored.

    Raises:
        FormatError: when git is not there, or says that the repository or the revision is none.
        SchemaError: for a store of other columns, or a source that began with another log.
        ReadOnlyError, StoreFullError, CorruptChunkError: as ``Store.append``.

    """
    return store_log(
        GitLog(revision, names), store, [Path(os.fspath(repository))], source=source, shards=shards, order=None,
        on_bad="raise", batch_rows=batch_rows, progress=progress,
    )  # fmt: skip


@dataclass(frozen=True)
class GitLog:
    """The importer; its files are repositories.

    Args:
        revision: what ``git log`` begins from.
        names: store addresses, paths and extensions as strings.

    """

    name: ClassVar[str] = "git"
    order: ClassVar[Order] = "rows"

    revision: str = "HEAD"
    names: bool = False

    def schema(self, files: Sequence[Path]) -> Schema:
        """Path, extension, lines."""
        for file in files:
            _count_commits(file, self.revision)  # git itself says when there is no repository
        item, kind = ("string", "string") if self.names else ("int64", "uint16")
        return Schema(
            [
                Column("item_id", item), Column("kind", kind), Column("added", "int32"), Column("deleted", "int32"),
                Column("binary", "uint8"),
            ],
            time_unit="ms", user_id="string" if self.names else "int64",
        )  # fmt: skip

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """A file of a commit an event."""
        ids = _Ids()
        for number, path in enumerate(files):
            commits = _count_commits(path, self.revision)
            for numbers, done in _read_log(path, self.revision, ids, bad):
                events = ids.name_events(numbers) if self.names else numbers
                yield Part(events, number, min(done / max(commits, 1), 1.0))


class _Ids:
    """Numbers of authors, paths and extensions, by first appearance."""

    def __init__(self) -> None:
        self.authors: dict[bytes, int] = {}
        self.paths: dict[bytes, int] = {}
        self.kinds: dict[str, int] = {}
        self.kind_of_path: list[int] = []

    def name_events(self, events: pa.RecordBatch) -> pa.RecordBatch:
        """Events with the strings in place of their numbers; bytes that are not UTF-8 are escaped."""
        kinds = [kind.encode("utf-8", "surrogateescape") for kind in self.kinds]
        columns = dict(zip(events.schema.names, events.columns, strict=True))
        for name, known in (("user_id", self.authors), ("item_id", self.paths), ("kind", kinds)):
            numbers, place = np.unique(columns[name].to_numpy(), return_inverse=True)
            listed = list(known)
            texts = pa.array([listed[number].decode("utf-8", "backslashreplace") for number in numbers.tolist()])
            columns[name] = texts.take(pa.array(place))
        return make_events(columns)

    def path(self, path: bytes) -> int:
        known = self.paths.get(path)
        if known is not None:
            return known
        suffix = PurePosixPath(os.fsdecode(path)).suffix
        self.kind_of_path.append(self.kinds.setdefault(suffix, len(self.kinds)))
        return self.paths.setdefault(path, len(self.paths))


def _read_log(repository: Path, revision: str, ids: _Ids, bad: BadLines) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches of events, and how many commits were read with each."""
    arguments = [
        "log", "--reverse", "--no-merges", "--no-renames", "--numstat", "-z", "--no-color", "--no-ext-diff",
        "--no-textconv", "--no-show-signature", "--format=tformat:%x01%H %at %ct %aE", "--end-of-options", revision,
        "--",
    ]  # fmt: skip
    rows: list[tuple[int, int, int, int, int, int, int, int]] = []
    commits, author, ts, visible, commit = 0, -1, 0, 0, b""
    with _asking_git(repository, arguments) as output:
        for token in _split_tokens(output):
            if token.startswith(_COMMIT):
                commit, written, committed, address = token[1:].split(b" ", 3)
                commits += 1
                ts, visible = 1000 * int(written), 1000 * int(committed)
                author = ids.authors.setdefault(address, len(ids.authors))
                if min(ts, visible) < 0:
                    bad.refuse(repository, f"commit {commit.decode()}", "it is of before 1970; times are 0 or more")
                    author = -1
                continue
            if author < 0:
                continue
            added, deleted, path = token.lstrip(b"\n").split(b"\t", 2)
            binary = added == b"-"
            lines = (0, 0) if binary else (int(added), int(deleted))
            if max(lines) > _MAX_INT32:
                bad.refuse(repository, f"commit {commit.decode()}", f"a file of {max(lines)} lines; int32 is expected")
                continue
            item = ids.path(path)
            rows.append((author, item, ts, visible, ids.kind_of_path[item], *lines, int(binary)))
            if len(rows) >= PART_EVENTS:
                yield _build(rows), commits
                rows = []
    if rows:
        yield _build(rows), commits


def _build(rows: list[tuple[int, int, int, int, int, int, int, int]]) -> pa.RecordBatch:
    names = ("user_id", "item_id", "ts", "visible_at", "kind", "added", "deleted", "binary")
    types = (np.int64, np.int64, np.int64, np.int64, np.uint16, np.int32, np.int32, np.uint8)
    table = np.array(rows, np.int64)
    return make_events({name: pa.array(table[:, n].astype(types[n])) for n, name in enumerate(names)})


def _split_tokens(output: IO[bytes]) -> Iterator[bytes]:
    """What stands between NULs, without what is empty."""
    rest = b""
    while piece := output.read(_READ_BYTES):
        *tokens, rest = (rest + piece).split(b"\0")
        yield from filter(None, tokens)
    if rest.strip(b"\n"):
        yield rest


def _count_commits(repository: Path, revision: str) -> int:
    if not repository.is_dir():
        raise FormatError(f"{repository} is no folder; name a git repository")
    arguments = ["rev-list", "--count", "--no-merges", "--end-of-options", revision, "--"]
    with _asking_git(repository, arguments) as output:
        return int(output.read() or b"0")  # where it says nothing, its exit status does


@contextmanager
def _asking_git(repository: Path, arguments: Sequence[str]) -> Iterator[IO[bytes]]:
    """Git's output; it is stopped when the reader stops."""
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                ["git", "-C", os.fspath(repository), *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise FormatError("git is not installed, or not on the path; install it to read repositories") from error
        assert process.stdout is not None
        try:
            yield process.stdout
        except BaseException:
            process.kill()
            raise
        finally:
            process.stdout.close()
            status = process.wait()
        if status:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise FormatError(f"git says of {repository}: {said[-1] if said else f'exit status {status}'}")
