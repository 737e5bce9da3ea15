"""Parquet files: typed columns, read row group by row group through a small buffer a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from uihkv.formats.source import READ_ROWS, Wanted, check_names, decoding, skip_rows

SUFFIXES = (".parquet",)
MAGIC = b"PAR1"
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file, as its footer describes it (:class:`uihkv.formats.source.Source`)."""

    path: Path
    rows: int
    schema: Any
    holds_lists: bool = True

    @classmethod
    def open(cls, path: Path, wanted: Wanted) -> ParquetSource:
        """Read a file's footer.

        Raises:
            FormatError: when it cannot be read as Parquet.
            SchemaError: when two of its columns have one name.

        """
        with decoding(path, "Parquet"), _open(path) as file:
            schema, rows = file.schema_arrow, int(file.metadata.num_rows)
        check_names(path, schema.names)
        return cls(path, rows, schema)

    @property
    def names(self) -> list[str]:
        """Names of its columns."""
        return list(self.schema.names)

    def scan(self, columns: Sequence[str], first_row: int) -> Iterator[Any]:
        """Record batches of at most 65,536 rows. Memory holds one, and a buffer and a page a column."""
        with decoding(self.path, "Parquet"), _open(self.path) as file:
            group = 0
            while group < file.num_row_groups and first_row >= file.metadata.row_group(group).num_rows:
                first_row -= file.metadata.row_group(group).num_rows
                group += 1
            groups = list(range(group, file.num_row_groups))
            batches = file.iter_batches(batch_size=READ_ROWS, row_groups=groups, columns=list(columns))
            yield from skip_rows(batches, first_row)


def _open(path: Path) -> Any:
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
