"""Amazon Reviews 2023: what shoppers reviewed (McAuley Lab, arXiv 2403.03952).

*Reviews*, ``Category.jsonl``, an object a line: ``rating, title, text, images, asin, parent_asin, user_id, timestamp,
helpful_vote, verified_purchase``. *Splits*, ``Category[.train|.valid|.test].csv`` of the benchmarks, with a header:
``user_id,parent_asin,rating,timestamp`` and, in those with histories, ``history``. Both may be packed (``.gz``).

``user_id`` → ``user_id``, a string; ``parent_asin`` (the product, whatever its variant) → ``item_id``, a string;
``rating`` → ``rating`` float32, 1 to 5 stars; ``timestamp``, milliseconds since 1970 → ``ts`` in ms. Reviews have more:
``asin`` (the variant) → ``asin``, a string; ``helpful_vote`` int32; ``verified_purchase`` bool. Titles, texts and
images are left out, and so are the splits' histories, which the rows before them hold. Files of one kind go into one
store.

Neither is sorted by time within a user, so arrival order is by time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from uihkv.errors import FormatError
from uihkv.importers.delimited import Layout, read_delimited
from uihkv.importers.lines import parse_block, read_blocks
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.importers.tables import make_events, parse_json
from uihkv.schema import Column, Schema

_OF_BOTH = {"user_id": pa.string(), "parent_asin": pa.string(), "rating": pa.float32(), "timestamp": pa.int64()}
_OF_REVIEWS = {"asin": pa.string(), "helpful_vote": pa.int32(), "verified_purchase": pa.bool_()}
_RENAMED = {"parent_asin": "item_id", "timestamp": "ts"}

_FIELDS = pa.schema(_OF_BOTH | _OF_REVIEWS)


def _build(table: pa.Table) -> Mapping[str, Any]:
    return {_RENAMED.get(name, name): table.column(name) for name in table.column_names}


_SPLITS = Layout(",", _OF_BOTH, _build, quotes=True)


@dataclass(frozen=True, slots=True)
class Amazon:
    """The importer; it has no options."""

    name: ClassVar[str] = "amazon"
    order: ClassVar[Order] = "time"

    def schema(self, files: Sequence[Path]) -> Schema:
        """Product and rating, and more of reviews."""
        columns = [Column("item_id", "string"), Column("rating", "float32")]
        if _are_reviews(files):
            columns += [
                Column("asin", "string"), Column("helpful_vote", "int32"), Column("verified_purchase", "bool"),
            ]  # fmt: skip
        return Schema(columns, time_unit="ms", user_id="string")

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """A review a line."""
        if not _are_reviews(files):
            yield from read_delimited(files, _SPLITS, bad)
            return
        for number, path in enumerate(files):
            for block in read_blocks(path):
                for events in parse_block(path, block, _parse_reviews, bad):
                    yield Part(events, number, block.share)


def _parse_reviews(data: bytes, _: int) -> pa.RecordBatch:
    return make_events(_build(parse_json(data, _FIELDS)))


def _are_reviews(files: Sequence[Path]) -> bool:
    """Whether the files are reviews, or splits."""
    kinds = set()
    for file in files:
        kind = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
        if kind not in (".jsonl", ".csv"):
            raise FormatError(f"{file}: its name ends in neither .jsonl (reviews) nor .csv (splits)")
        kinds.add(kind)
    if len(kinds) > 1:
        raise FormatError(f"{files[0]} and others are reviews and splits; they have other columns, so import one kind")
    return kinds == {".jsonl"}
