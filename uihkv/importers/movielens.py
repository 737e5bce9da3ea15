"""MovieLens: ratings of films (GroupLens).

=============  ============================================  ==========================
file           a line                                        of
=============  ============================================  ==========================
``*.dat``      ``UserID::MovieID::Rating::Timestamp``        MovieLens 1M, 10M
``*.csv``      ``userId,movieId,rating,timestamp``, header   MovieLens 20M, 25M, 32M, latest
``*.data``     user, item, rating, timestamp, tabs between   MovieLens 100K (``u.data``)
=============  ============================================  ==========================

user → ``user_id``; film → ``item_id`` int64; rating → ``rating`` float32, 0.5 to 5 stars, whole ones in 100K and 1M;
timestamp, seconds since 1970 in UTC → ``ts`` in s. The files are sorted by user and film, so arrival order is by time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from uihkv.errors import FormatError
from uihkv.importers.delimited import Layout, read_delimited
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.schema import Column, Schema

_NAMES = ("userId", "movieId", "rating", "timestamp")
_TYPES = dict(zip(_NAMES, (pa.int64(), pa.int64(), pa.float32(), pa.int64()), strict=True))


def _build(table: pa.Table) -> Mapping[str, Any]:
    return dict(zip(("user_id", "item_id", "rating", "ts"), table.columns, strict=True))


_LAYOUTS = {
    ".dat": Layout("::", _TYPES, _build, _NAMES),
    ".csv": Layout(",", _TYPES, _build),
    ".data": Layout("\t", _TYPES, _build, _NAMES),
}


@dataclass(frozen=True, slots=True)
class MovieLens:
    """The importer; it has no options."""

    name: ClassVar[str] = "movielens"
    order: ClassVar[Order] = "time"

    def schema(self, files: Sequence[Path]) -> Schema:
        """Film and rating."""
        for file in files:
            _layout_of(file)
        return Schema([Column("item_id", "int64"), Column("rating", "float32")], time_unit="s")

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """A rating a line."""
        return read_delimited(files, _layout_of, bad)


def _layout_of(file: Path) -> Layout:
    kind = file.with_suffix("").suffix if file.suffix == ".gz" else file.suffix
    if kind not in _LAYOUTS:
        raise FormatError(f"{file}: its name ends in none of {', '.join(_LAYOUTS)}, which tell MovieLens's forms apart")
    return _LAYOUTS[kind]
