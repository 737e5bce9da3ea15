"""How many pages did each transaction free: what does a snapshot that is held keep from being used again?

LMDB notes the pages that a transaction frees under its number, in a tree of its own, and uses them again once no open
snapshot is as old as that. py-lmdb does not show this tree; it is walked in the map (:mod:`uihkv.kernels.tree`), from
the meta page of the transaction that is read. Where pages are other than is known, or the meta page was overwritten
meanwhile, nothing is told.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.kernels.tree import FOUND_ALL, PAGE_HEADER, walk_tree
from uihkv.tree import find_map

Int64s = NDArray[np.int64]

_DATABASE = [
    ("pad", "<u4"), ("flags", "<u2"), ("depth", "<u2"), ("branch", "<u8"), ("leaf", "<u8"), ("overflow", "<u8"),
    ("entries", "<u8"), ("root", "<i8"),
]  # fmt: skip
_META = np.dtype(
    [
        ("magic", "<u4"), ("version", "<u4"), ("address", "<u8"), ("map_bytes", "<u8"), ("free", _DATABASE),
        ("main", _DATABASE), ("last_page", "<u8"), ("transaction", "<u8"),
    ]
)  # fmt: skip
_METAS = 2
_WORD = 8


@dataclass(frozen=True, slots=True)
class FreePages:
    """Pages that wait for the next writes.

    Attributes:
        transaction: int64[n], ascending: who freed them.
        pages: int64[n], how many.

    """

    transaction: Int64s
    pages: Int64s

    def kept_by(self, oldest: int) -> int:
        """Pages that an open snapshot of a transaction keeps from being used again."""
        return int(self.pages[self.transaction >= oldest].sum())


def list_free_pages(environment: Any, transaction: Any, name: bytes, data: Path) -> FreePages | None:
    """What the transactions until this one have freed; None where that cannot be told.

    Args:
        environment: LMDB's.
        transaction: a read transaction.
        name: of any sub-database.
        data: the environment's file.

    """
    base = find_map(transaction, name)
    if base is None:
        return None
    page_bytes = mmap.PAGESIZE
    for number in range(_METAS):
        raw = ctypes.string_at(base + number * page_bytes + PAGE_HEADER, _META.itemsize)
        meta = np.frombuffer(raw, _META)[0]
        if int(meta["transaction"]) == transaction.id():
            break
    else:
        return None
    pages = min(environment.info()["last_pgno"] + 1, data.stat().st_size // page_bytes)
    entries = int(meta["free"]["entries"])
    if not 0 <= entries <= pages:
        return None
    keys = np.empty((entries, 1), np.int64)
    address, size = np.empty((2, entries), np.int64)
    leaves = np.empty((pages, 2), np.int64)
    root = int(meta["free"]["root"])
    code, found, _ = walk_tree(base, pages, page_bytes, root, np.int64(1), keys, address, size, leaves)
    if code != FOUND_ALL or found != entries or (size < _WORD).any():
        return None
    counts = [int.from_bytes(ctypes.string_at(at, _WORD), "little") for at in address.tolist()]
    freed = np.array(counts, np.int64).clip(0, size // _WORD - 1)
    return FreePages(keys[:, 0], freed)
