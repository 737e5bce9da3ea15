"""How is a store copied so that nothing is in the copy but what the store holds?

Every record of every sub-database is read in the order of keys and appended to a new LMDB environment. Appending fills
pages to the end; nothing is ever freed, so there are no free pages, and no bytes in the gaps of pages but zeros (pages
begin as zeros, ``meminit``). What was trimmed, dropped or replaced is not among the records, so it is nowhere in
the copy. LMDB's own copies keep pages as they are, gaps included.

It leaves to others: the moment that the transactions see, where the copy goes, and to publish it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from uihkv.environment import MAP_BYTES, opening_errors
from uihkv.maintenance import Progress
from uihkv.place import file_errors
from uihkv.shard import Shard

_PORTION = 1 << 14
"""Records of one transaction, about: what it holds in memory until it commits."""
_STEP = 1 << 10
"""Records between two reports of progress."""
_PAGE = 1 << 20


def copy_shards(
    shards: Sequence[Shard],
    transactions: Sequence[Any],
    folders: Sequence[Path],
    progress: Progress | None = None,
) -> int:
    """Copy shards, as read transactions see them, into new folders; how many records that is.

    Args:
        shards: open.
        transactions: a read transaction each.
        folders: made here, each with an LMDB environment that is flushed by whoever publishes it.
        progress: called with records copied and all records.

    """
    databases = [shard.databases(transaction) for shard, transaction in zip(shards, transactions, strict=True)]
    sizes = [
        sum(transaction.stat(database)["entries"] for database in named.values())
        for named, transaction in zip(databases, transactions, strict=True)
    ]
    total, done = sum(sizes), 0
    for shard, transaction, named, folder in zip(shards, transactions, databases, folders, strict=True):
        with file_errors(folder):
            folder.mkdir(parents=True)
        for copied in _copy_shard(shard, transaction, named, folder):
            done += copied
            if progress is not None:
                progress(done, total)
    return done


def _copy_shard(shard: Shard, transaction: Any, databases: dict[bytes, Any], folder: Path) -> Iterator[int]:
    """Copy one shard; yields how many records each portion had."""
    size = (shard.path / "data.mdb").stat().st_size
    with opening_errors(folder):
        environment = lmdb.open(
            str(folder), map_size=max(MAP_BYTES, -(-4 * size // _PAGE) * _PAGE), max_dbs=8, sync=False, metasync=False,
            meminit=True, lock=False, readahead=False, max_spare_txns=0,
        )  # fmt: skip
    try:
        # As few transactions as memory allows: each frees the pages on its way to the end.
        writing = environment.begin(write=True)
        held = 0
        for name, database in databases.items():
            target = environment.open_db(name, txn=writing)
            with transaction.cursor(db=database) as source:
                records = source.iternext(keys=True, values=True)
                while True:
                    with writing.cursor(db=target) as cursor:
                        copied, _ = cursor.putmulti(islice(records, _STEP), append=True)
                    if not copied:
                        break
                    held += copied
                    if held >= _PORTION:
                        writing.commit()
                        writing, held = environment.begin(write=True), 0
                    yield copied
        writing.commit()
    finally:
        environment.close()
