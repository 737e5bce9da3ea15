"""One LMDB environment a process and path: who holds it open, and when it closes.

LMDB demands that a process opens an environment once. This is the one registry of the package: environments by their
data file, counted, and by process, since an environment must not be used across a fork. Which file it is tells its
inode, whatever path leads to it: a store that was put in another's place is not taken for it.

A forked child closes the environment that it inherited before it opens its own. LMDB's close clears the reader slots of
the process that opened the environment, which is the parent: its snapshots would lose their pages to the next writers
(py-lmdb 3.0.0). So right after the fork a child takes a copy of its own in place of every lock file that it has
inherited mapped; what it clears there nobody sees. That needs ``/proc``; without it (macOS), do not use a store in a
forked child while the parent has snapshots open, and spawn instead.

Closing waits for what another thread of the parent was doing in LMDB at the moment of the fork, which never ends in the
child: do not fork while other threads use the store.

A commit flushes a shard's pages before it writes the meta page that points to them, so that no crash damages it. The
meta page itself is flushed by :meth:`uihkv.shard.Shard.sync`, on behalf of those who promise that a commit survives a
power cut (``metasync=False``; LMDB would else flush it within each commit, at the same cost, for every handle alike).

Pages that a snapshot may still see are not reused. Slots of readers that were killed are looked for when an environment
is opened, when none is left, and every few seconds of writing; a snapshot that is held while the file grows by much is
warned of.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from uihkv.errors import FormatError, ReadOnlyError, StoreFullError, StoreWarning
from uihkv.place import check_own_files

MAP_BYTES = 64 << 30
"""Address space reserved for a shard; a file of more gets four times its size, also while it is open."""
STORE_MAP_BYTES = 16 << 40
"""Address space reserved for a store, which its shards share where they are many: a process has 128 TiB."""
_GROWTH = 4
_MAX_MAP_BYTES = 1 << 45
_PAGE = 1 << 20
MAX_READERS = 1024
_UNWRITTEN_BYTES = 1 << 16
LOOK_EVERY_S = 10.0
"""Seconds of writing between two looks at the readers."""
HELD_GROWTH_BYTES = 256 << 20
"""Growth of a shard's file, while one snapshot is held, that is worth a warning."""
_MAPPINGS = Path("/proc/self/maps")
_MAP_FIXED = 0x10  # of Linux; Python does not name it


_DAMAGED = (
    lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError, lmdb.BadTxnError,
    lmdb.CursorFullError, lmdb.PageFullError, lmdb.IncompatibleError,
)  # fmt: skip
"""What LMDB says of pages that it cannot have written."""


@contextmanager
def page_errors(path: Path) -> Iterator[None]:
    """Say in our words that pages are damaged.

    Raises:
        FormatError: then.

    """
    try:
        yield
    except _DAMAGED as error:
        raise FormatError(f"{path} has damaged pages ({error}); restore it from a backup") from error


@dataclass(frozen=True, slots=True)
class Readers:
    """Read transactions of an environment, of all processes.

    Attributes:
        count: that are open.
        lag: how many transactions were committed since the oldest began; 0 of none.
        oldest: the transaction that the oldest sees; None: there are none.
        pid: the process of the oldest.
        pids: all processes that have one.

    """

    count: int
    lag: int
    oldest: int | None = None
    pid: int | None = None
    pids: frozenset[int] = frozenset()


class SharedEnvironment:
    """An environment and what this process has begun in it.

    The map grows by itself: LMDB can move it only while no transaction of the process is active, so that it is known
    here which are. It grows before a write once half of it is used, and after a write that it was too small for.
    """

    __slots__ = (
        "_active", "_gate", "_held_since", "_locks", "_looked_at", "_page_bytes", "_starting", "holders", "key",
        "lock_inode", "raw",
    )  # fmt: skip

    def __init__(self, raw: Any, key: _Key, lock_inode: int) -> None:
        self.raw = raw
        self.key = key
        self.lock_inode = lock_inode
        self.holders = 0
        self._looked_at = time.monotonic()
        self._held_since: tuple[int | None, int] = (None, 0)
        self._gate = threading.Lock()
        self._page_bytes = int(raw.stat()["psize"])
        self._locks = bool(raw.flags()["lock"])
        self._starting = 0
        self._active: weakref.WeakSet[Any] = weakref.WeakSet()

    def begin(self, *, write: bool = False) -> Any:
        """Start a transaction; the caller ends it.

        Raises:
            StoreFullError: when another process has grown the map, and this one cannot follow; or when all reader
                slots are taken.
            ReadOnlyError: to write where the system forbids it.

        """
        if write:
            if self.raw.flags()["readonly"]:
                raise ReadOnlyError(f"{self.raw.path()} cannot be written to: its file system or its mode forbids it")
            if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
                self._look_after_readers()
            if self._used_bytes() * 2 > self.raw.info()["map_size"]:
                self.grow()  # where it cannot, there may be room enough
        for adopted in (False, True):
            try:
                return self._begin(write)
            except lmdb.ReadersFullError as error:
                if adopted or not self.raw.reader_check():
                    raise StoreFullError(
                        f"{self.raw.path()} has no free reader slot ({error}); close snapshots that are not used, of "
                        "this process or others"
                    ) from error
            except lmdb.MapResizedError as error:
                if adopted or not self._resize(0):
                    raise StoreFullError(
                        f"another process has made the map of {self.raw.path()} larger than this one's ({error}); "
                        "close the snapshots of this process, which then takes the new size"
                    ) from error
        raise AssertionError

    def readers(self) -> Readers:
        """Who reads now; slots of killed processes are freed before."""
        self.raw.reader_check()
        # pid, thread and transaction a line, below a line of titles; a slot that is kept but not used has no number
        lines = [line.split() for line in self.raw.readers().splitlines()[1:]]
        used = [(int(line[2]), int(line[0])) for line in lines if len(line) == 3 and line[2].isdigit()]
        if not used:
            return Readers(0, 0)
        oldest, pid = min(used)
        return Readers(
            len(used),
            max(0, int(self.raw.info()["last_txnid"]) - oldest),
            oldest,
            pid,
            frozenset(pid for _, pid in used),
        )

    def holds_back(self, transaction_id: int) -> bool:
        """Whether a read transaction of this process keeps pages from being reused that a committed one saw.

        While it does, LMDB writes to none of them.
        """
        if not self._locks:
            return False  # nobody who writes knows of it
        with self._gate:
            active = list(self._active)
        seen = [_id_of(transaction) for transaction in active]
        return any(one is not None and one <= transaction_id for one in seen)

    def _look_after_readers(self) -> None:
        """Free the slots of killed readers, and warn of a snapshot that is held while the file grows."""
        self._looked_at = time.monotonic()
        readers, size = self.readers(), self._used_bytes()
        oldest, since = self._held_since
        if readers.oldest is None or readers.oldest != oldest:
            self._held_since = (readers.oldest, size)
        elif size - since > HELD_GROWTH_BYTES:
            self._held_since = (oldest, size)  # the next warning is for as much again
            warnings.warn(
                f"a snapshot of process {readers.pid} has been open for {readers.lag} transactions of "
                f"{self.raw.path()}, whose file grew by {(size - since) >> 20} MiB meanwhile: pages that were freed "
                "since cannot be reused; close snapshots that are not used",
                StoreWarning,
                stacklevel=2,
            )

    def _begin(self, write: bool) -> Any:
        with self._gate:
            self._starting += 1
        transaction = None
        try:
            transaction = self.raw.begin(write=write, buffers=True)
            return transaction
        finally:
            with self._gate:
                self._starting -= 1
                if transaction is not None:
                    self._active.add(transaction)

    def grow(self) -> bool:
        """Make the map larger; False: a transaction of this process is active, or no address space is left."""
        return self._resize(_GROWTH * int(self.raw.info()["map_size"]))

    def _resize(self, size: int) -> bool:
        """Set the map's size; 0: what another process has set."""
        with self._gate:
            busy = self._starting or any(_id_of(transaction) is not None for transaction in self._active)
            if busy or size > _MAX_MAP_BYTES:
                return False
            self.raw.set_mapsize(size)
            return True

    def _used_bytes(self) -> int:
        return (int(self.raw.info()["last_pgno"]) + 1) * self._page_bytes


def _id_of(transaction: Any) -> int | None:
    """The newest committed transaction that an open one sees; None: it has ended."""
    try:
        return int(transaction.id())
    except lmdb.Error:
        return None


_Key = tuple[int, int, int]
"""A process, and the device and inode of a data file."""
_held: dict[_Key, SharedEnvironment] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    """A child may inherit the lock taken; its environments are its parent's and stay untouched."""
    global _lock
    _lock = threading.Lock()
    if _held:
        _own_lock_files({held.lock_inode for held in _held.values()})


def _own_lock_files(inodes: set[int]) -> None:
    """Replace this process's mappings of these lock files, shared with its parent, by private copies."""
    try:
        mappings = [os.fsdecode(line) for line in _MAPPINGS.read_bytes().split(b"\n") if line]
    except OSError:
        return
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    for line in mappings:  # 7f0c2a000000-7f0c2a010000 rw-s 00000000 fe:01 1234  /store/shards/0000/lock.mdb
        area, _, offset, _, inode, *name = line.split(maxsplit=5)
        if int(inode) not in inodes or not name or not name[0].endswith("/lock.mdb"):
            continue
        begin, end = (int(address, 16) for address in area.split("-"))
        descriptor = os.open(name[0], os.O_RDONLY)
        try:
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            flags = mmap.MAP_PRIVATE | _MAP_FIXED
            library.mmap(begin, end - begin, protection, flags, descriptor, int(offset, 16))
        finally:
            os.close(descriptor)


os.register_at_fork(after_in_child=_after_fork)


def open_environment(path: Path, *, create: bool = False, flush: bool = True, shards: int = 1) -> SharedEnvironment:
    """Hold the environment at a path; each call is matched by :func:`close_environment`. ``shards``: of its store.

    With ``flush=False`` commits flush nothing: for a store that nobody else sees yet, and which is worth nothing until
    it was synced.

    Handles of one process share it whether they may write or not: who may is the store's to say. Where the
    file system forbids writing, it is opened for reading only.

    Raises:
        FormatError: when the file is not an LMDB environment of a version that LMDB reads, or lies elsewhere.
        StoreFullError: when its map does not fit the address space.

    """
    data = path / "data.mdb"
    with _lock:
        check_own_files(path)
        key = _key_of(data) if data.exists() else None
        held = None if key is None else _held.get(key)
        if held is None:
            for inherited in [other for other in _held if key is not None and other[1:] == key[1:]]:
                _held.pop(inherited).raw.close()
            raw = _open(path, create, flush, min(MAP_BYTES, STORE_MAP_BYTES // shards // _PAGE * _PAGE))
            key, lock = _key_of(data), path / "lock.mdb"
            held = SharedEnvironment(raw, key, lock.stat().st_ino if lock.exists() else 0)
            _held[key] = held
        held.holders += 1
        return held


def _key_of(data: Path) -> _Key:
    found = data.stat()
    return os.getpid(), found.st_dev, found.st_ino


def _open(path: Path, create: bool, flush: bool, map_bytes: int) -> Any:
    data = path / "data.mdb"
    size = data.stat().st_size if data.exists() else 0
    if not create and size == 0:
        raise FormatError(f"{data} is missing or empty; restore this shard from a backup")
    writable = create or (os.access(data, os.W_OK) and os.access(path, os.W_OK))
    with opening_errors(path):
        environment = lmdb.open(
            str(path),
            map_size=max(map_bytes, -(-4 * size // _PAGE) * _PAGE),
            max_dbs=8,
            max_readers=MAX_READERS,
            readonly=not writable,
            lock=writable or os.access(path / "lock.mdb", os.W_OK),
            create=create,
            metasync=False,
            sync=flush,
            readahead=False,
            meminit=False,
            max_spare_txns=0,
        )
    try:
        _check_length(environment, data)
    except BaseException:
        environment.close()
        raise
    environment.reader_check()
    return environment


@contextmanager
def opening_errors(path: Path) -> Iterator[None]:
    """Turn LMDB's ways of not opening an environment into ours.

    Raises:
        FormatError, StoreFullError: as :func:`open_environment`.

    """
    try:
        yield
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise FormatError(f"{path / 'data.mdb'} is not a shard ({error}); restore it from a backup") from error
    except lmdb.MemoryError as error:
        raise StoreFullError(f"cannot map {path}: {error}; raise the limit on the process's address space") from error
    except lmdb.Error as error:
        if "Too many open files" in str(error):
            raise StoreFullError(
                f"cannot open {path}: {error}; raise the limit (ulimit -n), or use fewer shards"
            ) from error
        if "is not supported" in str(error):
            raise FormatError(f"{path / 'data.mdb'} is not a shard ({error}); restore it from a backup") from error
        if "No space left" in str(error) or "File too large" in str(error):
            raise StoreFullError(f"no space left for {path} ({error})") from error
        raise


def _check_length(environment: Any, data: Path) -> None:
    """Refuse a file that was cut off: the process would be killed for touching the map past its end.

    Pages that a transaction took and gave back are counted but may never have been written, so that few missing
    pages at the end are no damage; they become zeros, which are read as damage should a used page be among them.

    Raises:
        FormatError: when more is missing.

    """
    wanted = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = data.stat().st_size
    if found >= wanted:
        return
    if wanted - found > _UNWRITTEN_BYTES:
        raise FormatError(f"{data} has {found} bytes, its pages need {wanted}; restore this shard from a backup")
    if os.access(data, os.W_OK):
        with data.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, wanted)  # never shortens what another process has written


def close_environment(held: SharedEnvironment) -> None:
    """Let go of an environment; the last holder closes it. That of a parent process is left alone."""
    with _lock:
        if _held.get((os.getpid(), *held.key[1:])) is not held:
            return
        held.holders -= 1
        if held.holders == 0:
            del _held[held.key]
            held.raw.close()
