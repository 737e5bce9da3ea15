"""What would the same examples weigh as fat rows? Written for real, and weighed.

A fat row is an example with its history copied in: as long and with the columns that the tenants need together, since
one dataset serves them all. The file is written as well as pyarrow's defaults do it: list columns in the store's narrow
types, dictionaries where they help, pages of 1 MB, but with zstd (the store has only LZ4), and without the columns that
no tenant reads, while the store keeps all of them. Measured beside it, on the full demo: pages of 8 MB make 0.70 of the
bytes in order of arrival and 0.97 sorted by user; zstd level 9 makes 0.95 and 0.89; delta encoding of ``ts`` makes 2.0
and 2.7.

Two orders are weighed. In the order of arrival, as a logging pipeline writes rows; here many neighbours are requests
of one commit, with the same history, which zstd finds again. And sorted by user and version, where all neighbours share
most of their history: the best case for fat rows, at the price of a sort of all of them.

Rows are streamed: one batch of histories is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loader.demo.examples import COMPRESSION, COMPRESSION_LEVEL
from uihkv import Histories, Pointers, Projection, Snapshot

ROWS_A_GROUP = 4096


def join_projections(projections: Iterable[Projection]) -> Projection:
    """The one that holds what all of these read: the longest length, all columns."""
    projections = list(projections)
    columns = list(dict.fromkeys(name for one in projections for name in one.columns or ()))
    lengths = [one.max_len for one in projections if one.max_len is not None]
    if len(lengths) < len(projections) or any(one.columns is None for one in projections):
        raise ValueError("projections without columns or max_len cannot be joined here; name them")
    return Projection(columns, max(lengths))


def sort_by_user(pointers: Pointers) -> NDArray[np.int64]:
    """Order of examples by user, then version: int64[n]."""
    return np.lexsort((pointers.version, pointers.user_id)).astype(np.int64, copy=False)


def write_fat_rows(
    snapshot: Snapshot,
    pointers: Pointers,
    features: dict[str, NDArray[np.int64]],
    projection: Projection,
    path: Path,
    report: Callable[[int], None],
) -> int:
    """Write examples with their histories; gives the file's size in bytes.

    Args:
        snapshot: where the histories are.
        pointers: of n examples, in the order in which they are to be written.
        features: their labels and features, int64[n] each, in that order.
        projection: what is copied of each history.
        path: of the Parquet file.
        report: called with the number of rows done.

    """
    writer: pq.ParquetWriter | None = None
    try:
        for start in range(0, len(pointers), ROWS_A_GROUP):
            rows = slice(start, start + ROWS_A_GROUP)
            some = pointers[rows]
            columns = {"user_id": pa.array(some.user_id)}
            columns |= {name: pa.array(values[rows]) for name, values in features.items()}
            columns |= _list_columns(snapshot.read(some, projection))
            table = pa.table(columns)
            if writer is None:
                writer = pq.ParquetWriter(
                    path, table.schema, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL
                )
            writer.write_table(table, row_group_size=ROWS_A_GROUP)
            report(min(start + ROWS_A_GROUP, len(pointers)))
    finally:
        if writer is not None:
            writer.close()
    return path.stat().st_size


def _list_columns(histories: Histories) -> dict[str, pa.Array]:
    """One list a row and column; the lists of all columns share their offsets."""
    offsets = pa.array(histories.offsets.astype(np.int32))
    return {
        f"history_{name}": pa.ListArray.from_arrays(offsets, pa.array(histories.values(name))) for name in histories
    }
