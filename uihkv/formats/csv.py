"""CSV: a header of names, comma-separated text, compressed or not by the file's suffix (``.csv.gz``).

Text has no types: columns are read as the types that are wanted, by pyarrow's streaming reader, block by block. A clock
is what the first block shows, integers or ISO 8601 timestamps. An empty field is a null. There are no lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from uihkv.errors import SchemaError
from uihkv.formats.source import Wanted, check_names, decoding, skip_rows

SUFFIXES = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CsvSource:
    """A CSV file (:class:`uihkv.formats.source.Source`); columns that nobody wants are strings."""

    path: Path
    rows: int
    schema: Any
    holds_lists: bool = False

    @classmethod
    def open(cls, path: Path, wanted: Wanted) -> CsvSource:
        """Read the header and the first block, and count the rows by reading through the file.

        Raises:
            FormatError: when it cannot be read as CSV.
            SchemaError: when two of its columns have one name.

        """
        with decoding(path, "CSV"):
            with _open(path, csv.ConvertOptions(null_values=[""])) as reader:
                found = reader.schema
            check_names(path, found.names)
            schema = pa.schema([(one.name, _type_of(one, wanted)) for one in found])
            first = found.names[0]
            counting = csv.ConvertOptions(include_columns=[first], column_types={first: pa.binary()})
            with _open(path, counting) as reader:
                rows = sum(batch.num_rows for batch in reader)
        return cls(path, rows, schema)

    @property
    def names(self) -> list[str]:
        """Names of its columns."""
        return list(self.schema.names)

    def scan(self, columns: Sequence[str], first_row: int) -> Iterator[Any]:
        """Record batches of a block of 1 MiB of text each; pyarrow reads some blocks ahead."""
        types = {name: self.schema.field(name).type for name in columns}
        read_as = {name: pa.float32() if pa.types.is_float16(kind) else kind for name, kind in types.items()}
        options = csv.ConvertOptions(include_columns=list(columns), column_types=read_as, null_values=[""])
        with decoding(self.path, "CSV"):
            try:
                with _open(self.path, options) as reader:
                    yield from skip_rows((_to_halves(batch, types) for batch in reader), first_row)
            except pa.ArrowInvalid as error:
                if "conversion error" in str(error):
                    raise SchemaError(f"{self.path}: {error}; correct the value, or leave the row out") from error
                raise


def _open(path: Path, options: Any) -> Any:
    return csv.open_csv(
        path, csv.ReadOptions(block_size=_BLOCK_BYTES), csv.ParseOptions(newlines_in_values=True), options
    )


def _type_of(found: Any, wanted: Wanted) -> Any:
    if found.name in wanted.clocks:
        if pa.types.is_timestamp(found.type) or pa.types.is_date(found.type):
            return pa.timestamp("ns", tz=getattr(found.type, "tz", None))
        return pa.int64()
    return wanted.types.get(found.name, pa.string())


def _to_halves(batch: Any, types: dict[str, Any]) -> Any:
    """Pyarrow reads no float16 from text: the nearest ones of what it reads as float32."""
    for index, (name, kind) in enumerate(types.items()):
        if pa.types.is_float16(kind):
            column = batch.column(index)
            valid = None if column.null_count == 0 else column.is_null().to_numpy(zero_copy_only=False)
            with np.errstate(over="ignore"):
                halves = column.to_numpy(zero_copy_only=False).astype(np.float16)
            batch = batch.set_column(index, name, pa.array(halves, kind, mask=valid))
    return batch
