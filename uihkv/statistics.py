"""What does a store hold, and where do its bytes go?

Cheap by default: keys, and the headers of tails. With details, the header of every chunk is read, and every byte of
the files is put to an account: blocks by column and by encoding, headers, keys, LMDB's nodes, branch pages, the gaps in
pages, free pages. The accounts add up to the size of the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uihkv import keys
from uihkv.chunk import CODEC_LZ4, SAME
from uihkv.kernels.headers import tally_blocks
from uihkv.maintenance import ShardStats, StorageDetails, StoreStats
from uihkv.rewrite import ShardAccess, ShardView, UserParts, schema_versions

Int64s = NDArray[np.int64]

ENCODINGS = ("constant", "frame", "delta", "raw", "same", "decimal")
"""Names by the codes of :mod:`uihkv.chunk`."""
DROPPED = "(dropped)"
"""The account of columns that the schema in force does not have."""
_NODE_BYTES = 8 + 2
"""What LMDB keeps beside key and value of a record: a node's header, and its place in the page."""
_OWN_PAGES = 3
"""LMDB's own in a file: two metas, and the page that names the sub-databases."""
_SHARES = (50, 90, 99)


def describe_store(access: ShardAccess, path: Path, manifest: Path, details: bool) -> StoreStats:
    """Count what is there; ``path``: of the store, ``manifest``: of its manifest."""
    lengths: list[Int64s] = []
    shards: list[ShardStats] = []
    bases = chunks = tail_events = used = readers = lag = 0
    kept: int | None = 0
    oldest_reader = None
    accounts = _Accounts() if details else None
    for number in range(access.shards):
        file_bytes = (path / "shards" / f"{number:04d}" / "data.mdb").stat().st_size
        with access.reading(number) as view:
            parts = UserParts(view)
            parts.open(parts.tails)
            reading = view.shard.readers()
            readers = max(readers, reading.count - 1)  # not this one
            if reading.lag > lag:
                lag, oldest_reader = reading.lag, reading.pid
            base = parts.bases()
            length = parts.heads() - base
            pages, page_bytes = view.shard.pages()
            pages += _OWN_PAGES
            if reading.lag and reading.oldest is not None and kept is not None:
                kept_pages = view.shard.kept_pages(reading.oldest)
                kept = None if kept_pages is None else kept + kept_pages * page_bytes
            if accounts is not None:
                accounts.add(view, parts, file_bytes, pages * page_bytes)
        lengths.append(length)
        bases += int((base > 0).sum())
        chunks += parts.entries.first_tail
        tail_events += int((parts.entries.end - parts.entries.start)[parts.tails].sum())
        used += pages * page_bytes
        shards.append(ShardStats(len(length), int(length.sum()), file_bytes))
    every = np.sort(np.concatenate(lengths))
    manifest_bytes = manifest.stat().st_size
    total = sum(shard.bytes for shard in shards) + manifest_bytes
    events = int(every.sum())
    busiest = max(shard.events for shard in shards)
    p50, p90, p99 = (int(every[-(-len(every) * share // 100) - 1]) if len(every) else 0 for share in _SHARES)
    return StoreStats(
        shards=access.shards, users=len(every), events=events, chunks=chunks, tail_events=tail_events,
        bytes=total, used_bytes=used, longest=int(every.max(initial=0)), length_p50=p50, length_p90=p90,
        length_p99=p99, trimmed_users=bases, tail_share=tail_events / events if events else 0.0,
        free_bytes=total - used - manifest_bytes, shard_skew=busiest * access.shards / events if events else 1.0,
        readers=readers, reader_lag=lag, kept_bytes=kept, oldest_reader=oldest_reader,
        details=None if accounts is None else accounts.close(shards, manifest_bytes),
    )  # fmt: skip


class _Accounts:
    """Where the bytes go, shard by shard."""

    def __init__(self) -> None:
        self.columns: dict[str, int] = {}
        self.encodings = np.zeros((len(ENCODINGS), 2), np.int64)
        self.codecs = np.zeros(CODEC_LZ4 + 1, np.int64)
        self.headers = self.keys = self.nodes = self.branches = self.gaps = self.free = self.other = 0

    def add(self, view: ShardView, parts: UserParts, file_bytes: int, used_bytes: int) -> None:
        entries, layouts = parts.entries, view.layouts
        every = np.arange(len(entries.user))
        parts.open(every)
        names = [*layouts.schema.readable, DROPPED]
        place = {column: at for at, column in enumerate(layouts.schema.identities.values())}
        column_of = np.full((len(layouts.schemas), layouts.width.shape[1]), len(names) - 1, np.int64)
        for version, schema in enumerate(layouts.schemas):
            identities = schema.identities
            for block, name in enumerate(layouts.layouts[version].names):
                column_of[version, block] = place.get(identities[name], len(names) - 1)
        by_column = np.zeros(len(names), np.int64)
        tally_blocks(
            entries.address, every, schema_versions(entries, every), layouts.width, layouts.elements,
            layouts.kind, layouts.blocks, column_of, SAME, by_column, self.encodings, self.codecs,
        )  # fmt: skip
        for name, size in zip(names, by_column.tolist(), strict=True):
            self.columns[name] = self.columns.get(name, 0) + size
        values = int(entries.size.sum())
        key_bytes = keys.CHUNK_KEY_BYTES * entries.first_tail + keys.TAIL_KEY_BYTES * len(parts.users)
        shape = view.shard.page_counts(view.transaction)
        branches = shape.branch * shape.page_bytes
        self.headers += values - int(by_column.sum())
        self.keys += key_bytes
        self.nodes += _NODE_BYTES * len(every)
        self.branches += branches
        self.gaps += (shape.leaf + shape.overflow) * shape.page_bytes - values - key_bytes - _NODE_BYTES * len(every)
        self.other += used_bytes - (shape.branch + shape.leaf + shape.overflow) * shape.page_bytes
        self.free += file_bytes - used_bytes

    def close(self, shards: list[ShardStats], manifest_bytes: int) -> StorageDetails:
        encodings = {
            name: {"blocks": int(blocks), "bytes": int(size)}
            for name, (blocks, size) in zip(ENCODINGS, self.encodings.tolist(), strict=True)
            if blocks
        }
        columns = {name: size for name, size in self.columns.items() if name != DROPPED or size}
        return StorageDetails(
            columns=columns, encodings=encodings, lz4_bytes=int(self.codecs[CODEC_LZ4]), header_bytes=self.headers,
            key_bytes=self.keys, node_bytes=self.nodes, branch_bytes=self.branches, gap_bytes=self.gaps,
            free_bytes=self.free, other_bytes=self.other + manifest_bytes, by_shard=tuple(shards),
        )  # fmt: skip
