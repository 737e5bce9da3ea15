"""Every key of a sub-database and where its value lies, without a call for each: straight from LMDB's pages.

py-lmdb touches each page of every value that a cursor passes, so that listing keys with it reads the whole store from
the disk, and takes a third of a microsecond a key where it is in memory. The walk here touches the pages of the tree
alone, asks for the children of a branch together, and takes some nanoseconds a key.

It knows the pages of LMDB 0.9 (``mdb.c``: ``MDB_page``, ``MDB_node``, ``MDB_db``), which have been the same since 2011,
and only reads them, inside of a read transaction. Where anything is other than it knows, it says so, and the caller
takes a cursor.

LMDB never writes to a page that a snapshot may see. So while one is open that is as old as the tree that was walked
last, a page of that tree which the tree of a later transaction has too is the same page, with all that is below it:
:func:`list_growth` reads the other leaves alone.

Before a write, :class:`PathCheck` looks at the pages that it will go through: LMDB would believe them.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from uihkv.errors import FormatError
from uihkv.kernels.growth import DONE, describe_leaves, find_growth
from uihkv.kernels.paths import check_paths
from uihkv.kernels.tree import FOUND_ALL, OTHER_KEY, is_environment, walk_tree
from uihkv.keys import parse_tail_words
from uihkv.slabs import address_of

Int64s = NDArray[np.int64]

_RECORD = np.dtype(
    [
        ("pad", "<u4"), ("flags", "<u2"), ("depth", "<u2"), ("branch", "<u8"), ("leaf", "<u8"), ("overflow", "<u8"),
        ("entries", "<u8"), ("root", "<i8"),
    ]
)  # fmt: skip
"""What the main database holds for a sub-database."""
_MANY = 1 << 62
_NONE = np.empty(0, np.int64)
_NO_FIVES = np.empty((0, 5), np.int64)
_KNOWN = lmdb.version()[:2] == (0, 9) and sys.byteorder == "little" and sys.maxsize > 2**32


@dataclass(frozen=True, slots=True)
class Leaves:
    """The leaves of a sub-database whose keys begin with a user, as a transaction saw them.

    Attributes:
        base: address of the map.
        root: the root's page; negative: the tree is empty.
        table: int64[leaves, 5], as :mod:`uihkv.kernels.growth` says.

    """

    base: int
    root: int
    table: Int64s


@dataclass(frozen=True, slots=True)
class Growth:
    """What a tree has that an earlier one had not.

    Attributes:
        leaves: all that it has now.
        known, table: int64[leaves, 5], the leaves of the earlier tree and of this one; none where nothing changed.
        origin: int64[leaves], which of the known leaves each is, -1 for those that were read.
        fresh: int64[n, 5], the values of these.

    """

    leaves: Leaves
    known: Int64s
    table: Int64s
    origin: Int64s
    fresh: Int64s

    @property
    def is_none(self) -> bool:
        """Whether nothing has changed."""
        return not len(self.known) and not len(self.table)


@dataclass(frozen=True, slots=True)
class Values:
    """The keys of a sub-database, in order, and where their values lie.

    Attributes:
        keys: uint64[n, words], the words of each key as numbers (they are stored big-endian).
        address, size: int64[n].
        leaves: where they are; None where the keys are not in order.

    """

    keys: NDArray[np.uint64]
    address: Int64s
    size: Int64s
    leaves: Leaves | None


def list_values(
    environment: Any, transaction: Any, name: bytes, database: Any, key_words: int, data: Path
) -> Values | None:
    """Walk a sub-database whose keys all have so many words; None where its pages are not of the kind that is known.

    Args:
        environment, database: LMDB's.
        transaction: a read transaction.
        name: of the sub-database.
        key_words: words of 8 bytes of each key.
        data: the environment's file.

    Raises:
        FormatError: for damaged pages, or a key of another length.

    """
    record = transaction.get(name) if _KNOWN else None
    stat = transaction.stat(database)
    if record is None or len(record) != _RECORD.itemsize or stat["psize"] != mmap.PAGESIZE:
        return None
    root = int(np.frombuffer(record, _RECORD)["root"][0])
    base = _find_map(address_of(np.frombuffer(record, np.uint8)))
    if base is None:
        return None
    pages = min(environment.info()["last_pgno"] + 1, data.stat().st_size // mmap.PAGESIZE)
    keys = np.empty((stat["entries"], key_words), np.int64)
    address, size = np.empty((2, stat["entries"]), np.int64)
    leaves = np.empty((pages, 2), np.int64)  # the system gives what is touched of it
    code, found, walked = walk_tree(base, pages, mmap.PAGESIZE, root, key_words, keys, address, size, leaves)
    if code == OTHER_KEY:
        raise FormatError(
            f"{data} holds a key of another length than {8 * key_words} bytes among its {name.decode()}; "
            "restore it from a backup"
        )
    if code != FOUND_ALL or found != len(size):
        raise FormatError(
            f"{data}: the tree of its {name.decode()} is damaged at entry {found} of {len(size)}; restore it from a "
            "backup"
        )
    numbers = keys.view(np.uint64).byteswap()
    table = np.empty((walked, 5), np.int64)
    ordered = describe_leaves(parse_tail_words(numbers[:, 0]), leaves[:walked], table)
    return Values(numbers, address, size, Leaves(base, root, table) if ordered else None)


def list_growth(transaction: Any, name: bytes, key_words: int, pages: int, known: Leaves) -> Growth | None:
    """What the tree of a sub-database has that a known one had not.

    None where that cannot be told, or pages are damaged: who then lists all of them says what is.

    Args:
        transaction: a read transaction; a snapshot as old as the known tree was open when it had begun.
        name: of the sub-database.
        key_words: words of 8 bytes of each key.
        pages: number of pages that may be touched.
        known: the leaves of the earlier tree.

    """
    found = np.frombuffer(transaction.get(name), np.uint8)
    record = found.view(_RECORD)[0]
    root = int(record["root"])
    if _base_of(address_of(found)) != known.base:
        return None
    if root == known.root:
        return Growth(known, _NO_FIVES, _NO_FIVES, _NONE, _NO_FIVES)
    numbers = (root, int(record["depth"]), min(int(record["entries"]), _MANY))
    code, table, origin, fresh = find_growth(known.base, pages, mmap.PAGESIZE, *numbers, key_words, known.table)
    return Growth(Leaves(known.base, root, table), known.table, table, origin, fresh) if code == DONE else None


class PathCheck:
    """Checks the pages that a write will go through, of one environment.

    Args:
        environment: LMDB's.
        data: its file.

    """

    __slots__ = ("_base", "_data", "_environment")

    def __init__(self, environment: Any, data: Path) -> None:
        self._environment = environment
        self._data = data
        self._base: tuple[int, int | None] = (0, None)
        """Size of the map, and where it is."""

    def check(self, transaction: Any, name: bytes, packed: bytes, key_words: int) -> None:
        """Refuse to write through damaged pages.

        Args:
            transaction: a write transaction that has not written to this sub-database yet.
            name: of it.
            packed: the keys, ascending, back to back.
            key_words: words of 8 bytes of each key.

        Raises:
            FormatError: when a page on the way to a key is damaged, or leads it elsewhere.

        """
        info = self._environment.info()
        if not packed:
            return
        if self._base[0] != info["map_size"] or self._base[1] is None:
            self._base = (info["map_size"], self._find_base(name))
        base = self._base[1]
        if base is None:
            return
        root = int(np.frombuffer(transaction.get(name), _RECORD)["root"][0])
        pages = min(info["last_pgno"] + 1, self._data.stat().st_size // mmap.PAGESIZE)
        keys = np.frombuffer(packed, ">u8").reshape(-1, key_words).astype(np.uint64)
        if check_paths(base, pages, mmap.PAGESIZE, root, key_words, keys) >= 0:
            raise FormatError(
                f"{self._data}: the tree of its {name.decode()} is damaged where this would be written; nothing was; "
                "restore it from a backup"
            )

    def _find_base(self, name: bytes) -> int | None:
        """Where the map is; it stays there, since the write transaction that is open keeps it from being moved.

        A transaction of its own reads it: whatever the write transaction has touched, it holds elsewhere in memory.
        """
        try:
            with self._environment.begin(buffers=True) as reading:
                return find_map(reading, name)
        except lmdb.ReadersFullError:
            return None


def find_map(transaction: Any, name: bytes) -> int | None:
    """Address of the map that a transaction reads in; None where it is none that is known.

    Args:
        transaction: a read transaction.
        name: of a sub-database.

    """
    record = transaction.get(name) if _KNOWN else None
    if record is None or len(record) != _RECORD.itemsize or transaction.stat()["psize"] != mmap.PAGESIZE:
        return None
    return _find_map(address_of(np.frombuffer(record, np.uint8)))


def _find_map(address: int) -> int | None:
    """Address of the map that a page of the main database is in; the page's number, at its begin, says how far in."""
    base = _base_of(address)
    if base <= 0 or not _is_mapped(base) or not is_environment(base):
        return None
    return base


def _base_of(address: int) -> int:
    """Where a map would begin by what the page of an address says that its number is."""
    page = address // mmap.PAGESIZE * mmap.PAGESIZE
    return page - int.from_bytes(ctypes.string_at(page, 8), "little") * mmap.PAGESIZE


def _is_mapped(address: int) -> bool:
    """Whether a page may be touched: a damaged page number must not end the process."""
    try:
        mincore = ctypes.CDLL(None).mincore
    except (AttributeError, OSError, TypeError):
        return False
    answer = ctypes.create_string_buffer(1)
    return bool(mincore(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), answer) == 0)
