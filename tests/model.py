"""Histories in plain Python: what every test of the store may hold it against.

One list of events a user, in arrival order, and loops over it. It knows nothing of chunks, shards, files or arrays of
offsets, and it shares no line with what it checks. Values are kept as they were given (numpy scalars and arrays), so
that a comparison is of bits: NaN and -0.0 included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uihkv import Column, Histories, Pointers, Projection, Schema


@dataclass(frozen=True)
class Event:
    """One interaction, as it was stored: visible time lifted, defaults filled in."""

    ts: int
    visible_at: int
    values: dict[str, Any]

    def get(self, name: str) -> Any:
        return {"ts": self.ts, "visible_at": self.visible_at}[name] if name not in self.values else self.values[name]


@dataclass(frozen=True)
class Appended:
    """What an append is to report."""

    appended: int
    users: int
    lifted: int


@dataclass
class Model:
    """Every user's events, oldest arrival first."""

    schema: Schema
    histories: dict[Any, list[Event]] = field(default_factory=dict)
    bases: dict[Any, int] = field(default_factory=dict)
    """First version that a user still has, where events were trimmed; they stay in ``histories`` as what was."""

    def append(
        self, data: Mapping[str, Any], visible_at: Sequence[int] | None = None, *, backfill: bool = False
    ) -> Appended:
        """Rows in order; columns are arrays, or lists of lists. The clock is never asked."""
        assert backfill or visible_at is not None
        clock = data["ts"] if visible_at is None else visible_at
        lifted, grown = 0, set()
        for row, user in enumerate(np.asarray(data["user_id"]).tolist()):
            history = self.histories.setdefault(user, [])
            latest = history[-1].visible_at if history else -1
            lifted += int(clock[row]) < latest
            grown.add(user)
            values = {
                column.name: data[column.name][row] if column.name in data else self._default(column.name)
                for column in self.schema.columns
            }
            history.append(Event(int(data["ts"][row]), max(int(clock[row]), latest), values))
        return Appended(len(data["user_id"]), len(grown), lifted)

    def _default(self, name: str) -> Any:
        column = self.schema[name]
        if column.coded:
            return column.default
        return [] if column.ragged else np.full(column.shape, column.default_element)

    def history(self, user: Any) -> list[Event]:
        return self.histories.get(user, [])

    def head(self, user: Any) -> int:
        return len(self.history(user))

    def last_ts(self, user: Any, version: int) -> int:
        return self.history(user)[version - 1].ts if version else 0

    def resolve(self, user: Any, as_of: int, delay: int = 0) -> int:
        """How many events were visible strictly before ``as_of - delay``."""
        return sum(event.visible_at < as_of - delay for event in self.history(user))

    def read(self, user: Any, version: int, max_len: int | None = None) -> list[Event]:
        """The newest ``max_len`` events of the first ``version``, oldest first."""
        prefix = self.history(user)[:version]
        return prefix if max_len is None else prefix[max(len(prefix) - max_len, 0) :]

    def base(self, user: Any) -> int:
        return self.bases.get(user, 0)

    def kept(self) -> int:
        """Events of all users that were not trimmed."""
        return sum(len(history) - self.base(user) for user, history in self.histories.items())

    def trim(self, user: Any, before: int | None = None) -> int:
        """Events removed."""
        was = self.base(user)
        self.bases[user] = max(was, self.head(user) if before is None else before)
        return self.bases[user] - was

    def trim_by_age(self, visible_before: int) -> int:
        return sum(self.trim(user, self.resolve(user, visible_before)) for user in list(self.histories))

    def read_kept(
        self, user: Any, version: int, asked: Projection, where: Mapping[str, Any], moment: int | None, truncate: bool
    ) -> list[Event] | None:
        """What a read of a trimmed history gives; None: it says that events are gone. ``where``: closed ranges."""
        base, prefix = self.base(user), self.history(user)[:version]
        if not prefix:
            return []
        if version <= base:
            return [] if truncate else None
        wanted = version if asked.max_len is None else min(asked.max_len, version)
        if not asked.selects:
            low = version - wanted
            return None if low < base and not truncate else prefix[max(low, base) :]
        oldest = None if asked.max_age is None or moment is None else moment - asked.max_age
        found = [
            event
            for event in prefix[base:]
            if all(low <= event.get(name) <= high for name, (low, high) in where.items())
            and (oldest is None or event.ts >= oldest)
        ]
        complete = base == 0 or (asked.max_len is not None and len(found) >= asked.max_len)
        if oldest is not None and prefix[base].visible_at < oldest:
            complete = True  # whatever is gone became visible before that, and had happened
        if not complete and not truncate:
            return None
        return found if asked.max_len is None else found[-asked.max_len :]

    def add_column(self, column: Column) -> None:
        self.schema = Schema([*self.schema.columns, column], self.schema.time_unit, self.schema.user_id)
        for event in (event for history in self.histories.values() for event in history):
            event.values[column.name] = self._default(column.name)

    def drop_column(self, name: str) -> None:
        kept = [column for column in self.schema.columns if column.name != name]
        self.schema = Schema(kept, self.schema.time_unit)
        for event in (event for history in self.histories.values() for event in history):
            del event.values[name]

    def pointers(self, user_id: Sequence[Any], version: Sequence[int]) -> Pointers:
        pairs = zip(user_id, version, strict=True)
        return Pointers(
            list(user_id), np.array(version, np.int64),
            np.array([self.last_ts(user, at) for user, at in pairs], np.int64),
        )  # fmt: skip

    def check(self, found: Histories, pointers: Pointers, projection: Projection | None = None) -> None:
        """Fail unless these histories are what the pointers name, cut to the projection."""
        asked = Projection() if projection is None else projection
        rows = zip(pointers.user_id.tolist(), pointers.version.tolist(), strict=True)
        check_histories(found, self.schema, asked, [self.read(user, version, asked.max_len) for user, version in rows])


def check_histories(found: Histories, schema: Schema, asked: Projection, expected: Sequence[Sequence[Event]]) -> None:
    """Fail unless ``found`` holds these sequences in the projection's columns: names, order, dtypes, shapes, bits."""
    names = ("ts", *schema.names) if asked.columns is None else asked.columns
    assert found.columns == tuple(names)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in expected])]).astype(np.int64)
    assert found.offsets.dtype == np.int64
    assert found.offsets.tolist() == offsets.tolist()
    events = [event for row in expected for event in row]
    for name in names:
        values = [event.get(name) for event in events]
        if name in schema and schema[name].coded:
            stored = [value.encode() if isinstance(value, str) else value for value in values]
            inner = found.element_offsets(name)
            assert inner is not None
            assert inner.tolist() == np.concatenate([[0], np.cumsum([len(value) for value in stored])]).tolist()
            assert found.values(name).tobytes() == b"".join(stored)
            assert found.strings(name).to_pylist() == values
        elif name in schema and schema[name].ragged:
            inner = found.element_offsets(name)
            assert inner is not None
            assert inner.tolist() == np.concatenate([[0], np.cumsum([len(part) for part in values])]).tolist()
            values = [element for part in values for element in part]
            assert_same_bits(found.values(name), values, schema[name].numpy_dtype, ())
        elif name in schema:
            assert_same_bits(found.values(name), values, schema[name].numpy_dtype, schema[name].shape)
        else:
            assert_same_bits(found.values(name), values, np.dtype(np.int64), ())


def assert_same_bits(found: Any, values: Sequence[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    expected = np.array(values, dtype).reshape(len(values), *shape)
    assert (found.dtype, found.shape) == (dtype, expected.shape)
    assert found.tobytes() == expected.tobytes(), f"{found} is not {expected}"
