"""MIND: news shown to readers, and what they clicked (Microsoft, Wu et al., ACL 2020).

A line of ``behaviors.tsv``, of MIND-small and MIND-large, is an impression; tabs stand between its five columns:
impression id, user (``U13740``), time (``11/15/2019 10:22:32 AM``), history (ids of news clicked before, oldest
first, spaces between; may be empty), impressions (``N129416-0 N26703-1``: news shown, 1 clicked, 0 not; without the
mark in test files).

The ids' letters are dropped: user → ``user_id``, news → ``item_id`` int64. An event is a piece of news:

- each one shown, in the line's order: ``action`` uint8, 0 shown and not clicked, 1 clicked, 3 where the file does not
  tell; ``impression_id`` int64; its ``ts``, in s, is the impression's time, read as UTC, since the file names no zone;
- each one of the history: ``action`` 2, ``impression_id`` -1, and ``ts`` 0, since no file tells when it was clicked:
  it was visible before every impression. Lines repeat a user's history. It is stored once; a line whose history
  begins with those before it adds the rest; any other is a bad line.

``where={"action": {1, 2}}`` reads clicks alone. Lines are in no order, so arrival order is by time. Memory holds a
number a user beside the block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from uihkv.errors import SchemaError
from uihkv.importers.delimited import parse_delimited
from uihkv.importers.lines import parse_block, read_blocks
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.importers.tables import make_events, strip_letter
from uihkv.schema import Column, Schema

SHOWN, CLICKED, HISTORY, UNTOLD = 0, 1, 2, 3
NO_IMPRESSION = -1

_NAMES = ("impression", "user", "time", "history", "shown")
_TYPES = dict.fromkeys(_NAMES, pa.string()) | {"impression": pa.int64()}


@dataclass(frozen=True, slots=True)
class Mind:
    """The importer; it has no options."""

    name: ClassVar[str] = "mind"
    order: ClassVar[Order] = "time"

    def schema(self, files: Sequence[Path]) -> Schema:
        """News, what was done with it, and where it was shown."""
        impression = Column("impression_id", "int64", default=NO_IMPRESSION)
        return Schema([Column("item_id", "int64"), Column("action", "uint8"), impression], time_unit="s")

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """The impressions of each line, after what its history adds."""
        known = _Histories()
        for number, path in enumerate(files):
            for block in read_blocks(path):
                for lines in parse_block(path, block, _parse, bad):
                    keep, tails = known.take(path, lines, bad)
                    yield Part(_expand(lines.table.filter(pa.array(keep)), tails), number, block.share)


@dataclass(frozen=True, slots=True)
class _Lines:
    """Parsed lines: impression, user, ts, history as text, and lists of news shown with their marks."""

    first_line: int
    table: pa.Table


def _parse(data: bytes, first_line: int) -> _Lines:
    given = parse_delimited(data, _NAMES, _TYPES, "\t").combine_chunks()
    history = pc.fill_null(given.column("history"), "")
    if not pc.all(pc.match_substring_regex(history, "^(N[0-9]+( N[0-9]+)*)?$")).as_py():
        raise SchemaError("the history is not a list of ids such as N106403, single spaces between")
    shown = pc.split_pattern(pc.fill_null(given.column("shown"), "?"), " ").combine_chunks()
    marks = pc.extract_regex(shown.flatten(), "^N(?P<item>[0-9]+)(?:-(?P<mark>[01]))?$")
    if marks.null_count:
        raise SchemaError("the impressions are not a list of ids and marks such as N129416-0, single spaces between")
    item, mark = marks.flatten()
    action = pc.fill_null(pc.index_in(mark, value_set=pa.array(["0", "1"])), UNTOLD).cast(pa.uint8())
    moment = pc.strptime(given.column("time"), "%m/%d/%Y %I:%M:%S %p", "s")
    table = pa.table({
        "impression": given.column("impression"),
        "user": strip_letter("user", given.column("user"), "U"),
        "ts": moment.cast(pa.int64()),
        "history": history,
        "item": pa.ListArray.from_arrays(shown.offsets, item.cast(pa.int64())),
        "action": pa.ListArray.from_arrays(shown.offsets, action),
    })  # fmt: skip
    if any(column.null_count for column in table.columns):
        raise SchemaError("a value is missing; impression id, user, time, history and impressions are expected")
    if table.num_rows and pc.min(table.column("ts")).as_py() < 0:
        raise SchemaError("the time is before 1970")
    return _Lines(first_line, table)


@dataclass(slots=True)
class _Histories:
    """What of each user's history was taken: its length as text, and a hash of it."""

    _known: dict[int, tuple[int, int]] = field(default_factory=dict)

    def take(self, path: Path, lines: _Lines, bad: BadLines) -> tuple[list[bool], list[str]]:
        """Which lines are good, and what each of these adds to its user's history, as text."""
        keep: list[bool] = []
        tails: list[str] = []
        users, histories = lines.table.column("user").to_pylist(), lines.table.column("history").to_pylist()
        for row, (user, history) in enumerate(zip(users, histories, strict=True)):
            length, digest = self._known.get(user, (0, _EMPTY))
            fits = _hash(history[:length]) == digest
            fits = fits and (length in (0, len(history)) or history[length : length + 1] == " ")
            keep.append(fits)
            if not fits:
                what = f"the history of user U{user} does not begin with the one of his lines before"
                bad.refuse(path, f"line {lines.first_line + row}", what)
                continue
            tails.append(history[length:].strip())
            if len(history) > length:
                self._known[user] = len(history), _hash(history)
        return keep, tails


def _hash(history: str) -> int:
    return xxhash.xxh3_64_intdigest(history.encode())


_EMPTY = _hash("")


def _expand(table: pa.Table, tails: list[str]) -> pa.RecordBatch:
    """An event a piece of news: of each line, what is new of the history, then what was shown."""
    older = pa.array([tail.split() for tail in tails], pa.list_(pa.string()))
    item, action = (
        _one(table.column(name), pa.list_(kind)) for name, kind in (("item", pa.int64()), ("action", pa.uint8()))
    )
    before, shown = np.diff(older.offsets.to_numpy()), np.diff(item.offsets.to_numpy())
    counts = before + shown
    row = np.repeat(np.arange(len(tails)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    old = within < before[row]
    events = {
        "user_id": table.column("user").to_numpy()[row],
        "item_id": np.empty(len(row), np.int64),
        "action": np.full(len(row), HISTORY, np.uint8),
        "impression_id": np.where(old, NO_IMPRESSION, table.column("impression").to_numpy()[row]),
        "ts": np.where(old, 0, table.column("ts").to_numpy()[row]),
    }
    events["item_id"][old] = strip_letter("news", older.flatten(), "N").to_numpy()
    events["item_id"][~old] = item.flatten().to_numpy()
    events["action"][~old] = action.flatten().to_numpy()
    return make_events({name: pa.array(values) for name, values in events.items()})


def _one(column: Any, kind: Any) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
