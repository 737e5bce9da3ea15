"""Arrow IPC: files (with a footer, also called Feather) and streams, plain or compressed, told apart by their bytes.

A record batch is the least that can be read at once: memory holds one as the file has it, of the columns asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from uihkv.formats.source import READ_ROWS, Wanted, check_names, decoding, skip_rows

SUFFIXES = (".arrow", ".arrows", ".ipc", ".feather")
MAGIC = b"ARROW1"


@dataclass(frozen=True, slots=True)
class ArrowSource:
    """An Arrow IPC file or stream (:class:`uihkv.formats.source.Source`)."""

    path: Path
    rows: int
    schema: Any
    holds_lists: bool = True

    @classmethod
    def open(cls, path: Path, wanted: Wanted) -> ArrowSource:
        """Read its schema and count its rows: of a file by its footer, of a stream by reading through it.

        Raises:
            FormatError: when it cannot be read as Arrow IPC.
            SchemaError: when two of its columns have one name.

        """
        with decoding(path, "Arrow IPC"):
            with _batches(path, None) as (schema, _):
                pass
            check_names(path, schema.names)
            with _batches(path, schema.names[:1]) as (_, batches):
                rows = sum(batch.num_rows for batch in batches)
        return cls(path, rows, schema)

    @property
    def names(self) -> list[str]:
        """Names of its columns."""
        return list(self.schema.names)

    def scan(self, columns: Sequence[str], first_row: int) -> Iterator[Any]:
        """Slices of the file's record batches, of at most 65,536 rows."""
        with decoding(self.path, "Arrow IPC"), _batches(self.path, columns) as (_, batches):
            for batch in skip_rows(batches, first_row):
                chosen = batch.select(list(columns))
                for begin in range(0, chosen.num_rows, READ_ROWS):
                    yield chosen.slice(begin, READ_ROWS)


@contextmanager
def _batches(path: Path, columns: Sequence[str] | None) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema, and the record batches with these columns alone; None: all."""
    with pa.OSFile(str(path)) as file:
        is_file = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        opened = pa.ipc.open_file if is_file else pa.ipc.open_stream
        if columns is not None:
            with opened(file) as reader:
                fields = [reader.schema.get_field_index(name) for name in columns]
            file.seek(0)
            options = pa.ipc.IpcReadOptions(included_fields=fields)
            reader = opened(file, options=options)
        else:
            reader = opened(file)
        with reader:
            if is_file:
                yield reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                yield reader.schema, iter(reader)
