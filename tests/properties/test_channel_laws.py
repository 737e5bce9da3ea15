"""Both channels end in the same pointer: what was served is trained on, streamed or in batches, now or later."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from loader import ArrayExamples, Loader, StreamExamples
from tests.model import Event, Model, check_histories
from uihkv import Column, Histories, Pointers, Projection, Schema, Store
from uihkv.audit import audit_file
from uihkv.inline import InlineTail
from uihkv.serving import HistoryReader
from uihkv.slim import slim_examples

SCHEMA = Schema([Column("item_id", "int64"), Column("kind", "uint8"), Column("tags", "int16", ragged=True)])
USERS = (-3, 0, 5, 10**12)
STRANGER = 77
EVERYBODY = (*USERS, STRANGER)
COLUMNS = ("ts", "visible_at", "item_id", "kind", "tags")


@dataclass(frozen=True)
class Served:
    """An example as it was logged, and what its request saw."""

    user: int
    version: int
    last_ts: int
    as_of: int
    tail: tuple[Event, ...]
    seen: tuple[Event, ...]


class ChannelLaws(RuleBasedStateMachine):
    """A writer, a serving side that is ahead of it at times, trainers of both kinds, and the clock of all of them."""

    @initialize(shards=st.integers(1, 3), chunk_events=st.sampled_from([1, 3, 64]))
    def begin(self, shards: int, chunk_events: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="uihkv-channels-")
        self.path = Path(self.folder.name) / "store"
        self.store = Store.create(self.path, SCHEMA, shards=shards, chunk_events=chunk_events)
        self.reader = HistoryReader(self.store, refresh_s=3600)
        self.model = Model(SCHEMA)
        self.clock = 100
        self.offset = 0
        self.pending: list[tuple[dict[str, Any], list[int]]] = []
        self.served: list[Served] = []
        self.files = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.reader.close()
            self.store.close()
            self.folder.cleanup()

    # -- events -------------------------------------------------------------------------------------

    def draw_events(self, data: st.DataObject) -> tuple[dict[str, Any], list[int]]:
        n = data.draw(st.integers(1, 8))
        self.clock += data.draw(st.integers(0, 20))
        ints = st.lists(st.integers(0, 60), min_size=n, max_size=n)
        late, items = data.draw(ints), data.draw(ints)
        rows = {
            "user_id": np.array(data.draw(st.lists(st.sampled_from(USERS), min_size=n, max_size=n)), np.int64),
            "ts": np.array([max(0, self.clock - one) for one in late], np.int64),  # late events are the rule
            "item_id": np.array(items, np.int64), "kind": np.array(items, np.uint8) % np.uint8(3),
            "tags": [np.arange(one % 4, dtype=np.int16) for one in items],
        }  # fmt: skip
        return rows, [self.clock] * n

    def commit(self, rows: dict[str, Any], visible: list[int]) -> None:
        self.offset += 1
        self.store.append(rows, visible, source="log", offset=self.offset)
        self.model.append(rows, visible)

    @rule(data=st.data(), durable=st.booleans())
    def events_arrive(self, data: st.DataObject, durable: bool) -> None:
        """The serving side has them now; the store has them now, or when the writer gets to it."""
        events = self.draw_events(data)
        if durable and not self.pending:
            self.commit(*events)
        else:
            self.pending.append(events)

    @precondition(lambda self: self.pending)
    @rule()
    def the_writer_catches_up(self) -> None:
        self.commit(*self.pending.pop(0))

    @precondition(lambda self: self.offset)
    @rule(data=st.data())
    def the_writer_crashes_and_replays(self, data: st.DataObject) -> None:
        """A batch comes again with an offset that is done; nothing is stored."""
        rows, visible = self.draw_events(data)
        again = self.store.append(rows, visible, source="log", offset=data.draw(st.integers(1, self.offset)))
        assert again.appended == 0

    @rule(seal=st.booleans())
    def the_store_is_compacted(self, seal: bool) -> None:
        if seal:
            self.store.seal()
        self.store.compact()

    @rule()
    def everything_is_opened_again(self) -> None:
        self.reader.close()
        self.store.close()
        self.store = Store.open(self.path)
        self.reader = HistoryReader(self.store, refresh_s=3600)

    # -- serving ------------------------------------------------------------------------------------

    def known_events(self, user: int) -> list[Event]:
        """What the serving side knows of a user: what the store has, and what is pending, as the store will have it."""
        after = Model(SCHEMA, {user: list(self.model.history(user))})
        for rows, visible in self.pending:
            mine = np.flatnonzero(rows["user_id"] == user)
            part = {name: [values[row] for row in mine] for name, values in rows.items()}
            after.append(part, [visible[row] for row in mine])
        return after.history(user)

    @rule(
        fresh=st.booleans(),
        inline=st.booleans(),
        max_len=st.none() | st.integers(1, 6),
        overlap=st.integers(0, 3),
        users=st.lists(st.sampled_from(EVERYBODY), min_size=1, max_size=4),
    )
    def serve(self, fresh: bool, inline: bool, max_len: int | None, overlap: int, users: list[int]) -> None:
        if fresh:
            self.reader.refresh()
        self.clock += 1
        asked = Projection(COLUMNS, max_len)
        heads = self.reader.read(users)[1]  # the next read is of the same snapshot
        tails, starts = [], []
        for user, head in zip(users, heads.version.tolist(), strict=True):
            start = max(0, head - overlap)
            tails.append(self.known_events(user)[start:] if inline else [])
            starts.append(start)
        found, pointers = self.reader.read(users, asked, inline=make_tail(starts, tails) if inline else None)
        assert pointers == heads
        assert pointers.last_ts is not None
        seen = [
            [*self.model.read(user, version), *(self.known_events(user)[version:] if inline else [])]
            for user, version in zip(users, pointers.version.tolist(), strict=True)
        ]
        check_histories(found, SCHEMA, asked, [part if max_len is None else part[-max_len:] for part in seen])
        assert Pointers.from_packed(pointers.pack()) == pointers
        for row, user in enumerate(users):
            version = int(pointers.version[row])
            tail = tails[row][version - starts[row] :]
            example = Served(user, version, int(pointers.last_ts[row]), self.clock, tuple(tail), tuple(seen[row]))
            self.served.append(example)

    # -- training -----------------------------------------------------------------------------------

    def choose(self, data: st.DataObject, inline: bool) -> list[Served]:
        some = [one for one in self.served if inline or not one.tail]
        if not some:
            return []
        return data.draw(st.lists(st.sampled_from(some), min_size=1, max_size=12))

    @precondition(lambda self: self.served)
    @rule(data=st.data(), max_len=st.none() | st.integers(1, 6))
    def train_in_batches(self, data: st.DataObject, max_len: int | None) -> None:
        chosen = self.choose(data, inline=True)
        asked = Projection(COLUMNS, max_len)
        with self.store.snapshot() as snapshot:
            found = snapshot.read(
                pointers_of(chosen), asked, inline=make_tail([e.version for e in chosen], [e.tail for e in chosen])
            )
        check(found, chosen, asked)

    @precondition(lambda self: self.served)
    @rule(data=st.data(), max_len=st.none() | st.integers(1, 6), batch_size=st.integers(1, 5), inline=st.booleans())
    def train_on_the_stream(self, data: st.DataObject, max_len: int | None, batch_size: int, inline: bool) -> None:
        chosen = self.choose(data, inline)
        if not chosen:
            return
        table = pointers_of(chosen).to_arrow().append_column("as_of", pa.array([one.as_of for one in chosen]))
        if inline:
            tail = make_tail([one.version for one in chosen], [one.tail for one in chosen]).to_arrow(SCHEMA)
            for name in tail.column_names:
                table = table.append_column(name, tail.column(name))
        half = len(chosen) // 2

        async def feed() -> AsyncIterator[Any]:
            yield table.slice(0, half)
            yield table.slice(half)

        names = [name for name in COLUMNS if name != "tags"]
        with Loader(self.store, StreamExamples(feed()), Projection(names, max_len), batch_size=batch_size) as loader:
            self.compare(loader, chosen, names, max_len)
        if not inline:
            offline = Loader(
                self.store, ArrayExamples(table), Projection(names, max_len), batch_size=batch_size, shuffle=False
            )
            self.compare(offline, chosen, names, max_len)

    def compare(self, loader: Loader, chosen: list[Served], names: list[str], max_len: int | None) -> None:
        windows = [one.seen if max_len is None else one.seen[-max_len:] for one in chosen]
        at = 0
        for batch in loader:
            part = windows[at : at + len(batch)]
            at += len(batch)
            assert batch.history.lengths.tolist() == [len(window) for window in part]
            for name in names:
                expected = [event.get(name) for window in part for event in window]
                assert batch.history[name].values.tolist() == expected
        assert at == len(chosen)

    # -- afterwards ---------------------------------------------------------------------------------

    @precondition(lambda self: any(one.tail for one in self.served))
    @rule()
    def slim(self) -> None:
        inline = make_tail([one.version for one in self.served], [one.tail for one in self.served])
        with self.store.snapshot() as snapshot:
            slim, _, pending = slim_examples(snapshot, pointers_of(self.served), inline)
        for row, one in enumerate(self.served):
            complete = self.model.head(one.user) >= len(one.seen)
            assert bool(pending[row]) == (bool(one.tail) and not complete)
            if complete:
                assert slim.version[row] == len(one.seen)
                self.served[row] = Served(
                    one.user, len(one.seen), self.model.last_ts(one.user, len(one.seen)), one.as_of, (), one.seen
                )

    @precondition(lambda self: any(not one.tail for one in self.served))
    @rule(delay=st.sampled_from([0, 3, 40]))
    def audit(self, delay: int) -> None:
        logged = [one for one in self.served if not one.tail]
        table = pointers_of(logged).to_arrow().append_column("as_of", pa.array([one.as_of for one in logged]))
        self.files += 1
        path = Path(self.folder.name) / f"{self.files}.parquet"
        pq.write_table(table, path)
        report = audit_file(self.store, path, as_of="as_of", delay=delay)
        differences = [self.model.resolve(one.user, one.as_of, delay) - one.version for one in logged]
        assert report.equal == differences.count(0)
        assert report.ahead == sum(d > 0 for d in differences)
        least = report.delays[0].delay
        assert all(self.model.resolve(one.user, one.as_of, least) <= one.version for one in logged)

    @rule(data=st.data(), delay=st.sampled_from([0, 0, 5]))
    def resolve(self, data: st.DataObject, delay: int) -> None:
        users = data.draw(st.lists(st.sampled_from(EVERYBODY), min_size=1, max_size=40))
        moments = [data.draw(st.integers(90, self.clock + 5)) for _ in users]
        with self.store.snapshot() as snapshot:
            found = snapshot.resolve(users, moments, delay)
            histories = snapshot.read(found, Projection(COLUMNS))
        versions = [self.model.resolve(user, moment, delay) for user, moment in zip(users, moments, strict=True)]
        assert found == self.model.pointers(users, versions)
        limit = np.repeat(np.array(moments) - delay, histories.lengths)
        assert (histories.values("visible_at") < limit).all()


def make_tail(starts: list[int], tails: Any) -> InlineTail:
    events = [event for tail in tails for event in tail]
    data: dict[str, Any] = {
        "ts": np.array([event.ts for event in events], np.int64),
        "visible_at": np.array([event.visible_at for event in events], np.int64),
        "item_id": np.array([event.get("item_id") for event in events], np.int64),
        "kind": np.array([event.get("kind") for event in events], np.uint8),
        "tags": [event.get("tags") for event in events],
    }
    offsets = np.concatenate([[0], np.cumsum([len(tail) for tail in tails])])
    return InlineTail.of(SCHEMA, starts, offsets, data)


def pointers_of(examples: list[Served]) -> Pointers:
    return Pointers(
        *(np.array([getattr(one, name) for one in examples], np.int64) for name in ("user", "version", "last_ts"))
    )


def check(found: Histories, examples: list[Served], asked: Projection) -> None:
    windows = [list(one.seen if asked.max_len is None else one.seen[-asked.max_len :]) for one in examples]
    check_histories(found, SCHEMA, asked, windows)


TestChannelLaws = ChannelLaws.TestCase
TestChannelLaws.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
