"""A store does what a plain-Python list a user does, whatever is appended, read, reopened and held in between."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.model import Event, Model, check_histories
from tests.properties.strategies import MOMENTS, USERS, Batch, batches, projections, schemas, stranger_of, users_of
from uihkv import Pointers, Projection, Schema, Snapshot, Store, names

WHOLE_NUMBERS = st.integers(0, 2**63 - 1)


class StoreLaws(RuleBasedStateMachine):
    """Appends, pointers taken at any moment, and reads of them under any projection at any later moment."""

    @initialize(
        schema=schemas(("int64", "string")),
        hash_mask=st.sampled_from([-1, -1, 1]),
        shards=st.integers(1, 4),
        chunk_events=st.sampled_from([1, 2, 5, 64]),
        compression=st.sampled_from(["lz4", "none"]),
    )
    def create(self, schema: Schema, hash_mask: int, shards: int, chunk_events: int, compression: str) -> None:
        self.kept_mask, names.HASH_MASK = names.HASH_MASK, hash_mask  # of 1, string ids have two hashes: all collide
        self.folder = tempfile.TemporaryDirectory(prefix="uihkv-laws-")
        path = Path(self.folder.name) / "store"
        self.store = Store.create(path, schema, shards, chunk_events=chunk_events, compression=compression)
        self.model = Model(schema)
        self.everybody = [*users_of(schema), stranger_of(schema)]
        self.taken: list[tuple[Any, int, int, list[Event]]] = []  # user, version, last_ts, and the events at that time
        self.held: list[tuple[Snapshot, dict[Any, list[Event]]]] = []
        self.offset = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            names.HASH_MASK = self.kept_mask
            self.store.close()
            self.folder.cleanup()

    def draw_batch(self, data: st.DataObject) -> Batch:
        return data.draw(batches(self.model.schema))

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        batch = self.draw_batch(data)
        self.append_both(batch)

    def append_both(self, batch: Batch, **source: Any) -> None:
        given = batch.given(self.model.schema)
        result = self.store.append(given, batch.visible_at, backfill=batch.backfill, **source)
        expected = self.model.append(batch.rows, batch.visible_at, backfill=batch.backfill)
        assert (result.appended, result.users, result.lifted) == (expected.appended, expected.users, expected.lifted)
        assert result.replayed == 0

    @rule(data=st.data())
    def append_again_from_a_source(self, data: st.DataObject) -> None:
        batch = self.draw_batch(data)
        self.offset += data.draw(st.integers(1, 3))
        self.append_both(batch, source="log", offset=self.offset)
        given = batch.given(self.model.schema)
        older = self.offset - data.draw(st.integers(0, 1))
        again = self.store.append(given, batch.visible_at, backfill=batch.backfill, source="log", offset=older)
        assert (again.appended, again.replayed, again.users, again.lifted) == (0, len(batch.rows["ts"]), 0, 0)
        assert self.store.sources() == {"log": self.offset}

    @rule()
    def log_heads(self) -> None:
        with self.store.snapshot() as snapshot:
            heads = snapshot.head(self.everybody)
            assert snapshot.users().tolist() == sorted(self.model.histories)
        assert heads == self.model.pointers(self.everybody, [self.model.head(user) for user in self.everybody])
        self.take(heads)

    @rule(
        moments=st.lists(MOMENTS, min_size=len(USERS) + 1, max_size=len(USERS) + 1),
        delay=st.sampled_from([0, 0, 1, 7, 2**62, 2**63 - 1]),
    )
    def resolve_pointers(self, moments: list[int], delay: int) -> None:
        with self.store.snapshot() as snapshot:
            found = snapshot.resolve(self.everybody, moments, delay=delay)
        pairs = zip(self.everybody, moments, strict=True)
        assert found == self.model.pointers(self.everybody, [self.model.resolve(user, at, delay) for user, at in pairs])
        self.take(found)

    def take(self, pointers: Pointers) -> None:
        assert pointers.last_ts is not None
        for user, version, last_ts in zip(
            pointers.user_id.tolist(), pointers.version.tolist(), pointers.last_ts.tolist(), strict=True
        ):
            self.taken.append((user, version, last_ts, self.model.read(user, version)))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def read_what_was_taken(self, data: st.DataObject) -> None:
        """However old the pointers are, in any order, some of them more than once."""
        some = data.draw(st.lists(st.sampled_from(range(len(self.taken))), max_size=20))
        with self.store.snapshot(verify=data.draw(st.sampled_from(["once", "always", "never"]))) as snapshot:
            for _ in range(2):
                self.read_and_check(snapshot, some, data.draw(projections(self.model.schema)))

    def read_and_check(self, snapshot: Snapshot, rows: list[int], asked: Projection) -> None:
        taken = [self.taken[row] for row in rows]
        columns = [[entry[place] for entry in taken] for place in range(3)]
        found = snapshot.read(Pointers(*columns), asked)
        kept = slice(None) if asked.max_len is None else slice(-asked.max_len, None)
        check_histories(found, self.model.schema, asked, [events[kept] for *_, events in taken])

    @rule()
    def hold_a_snapshot(self) -> None:
        now = {user: list(self.model.history(user)) for user in self.everybody}
        self.held.append((self.store.snapshot(), now))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def read_a_held_snapshot(self, data: st.DataObject) -> None:
        """It says what the store was when it was taken."""
        snapshot, then = data.draw(st.sampled_from(self.held))
        heads = snapshot.head(self.everybody)
        assert heads.version.tolist() == [len(then[user]) for user in self.everybody]
        asked = data.draw(projections(self.model.schema))
        kept = slice(None) if asked.max_len is None else slice(-asked.max_len, None)
        expected = [then[user][kept] for user in self.everybody]
        check_histories(snapshot.read(heads, asked), self.model.schema, asked, expected)

    @rule(pickled=st.booleans(), readonly=st.booleans())
    def reopen(self, pickled: bool, readonly: bool) -> None:
        """Another handle, or the same store after its last handle was closed, tells the same."""
        if pickled:
            other = pickle.loads(pickle.dumps(self.store))
        else:
            self.store.close()
            self.held = []
            other = Store.open(self.store.path, readonly=readonly)
        with other.snapshot() as snapshot:
            self.read_and_check(snapshot, list(range(len(self.taken))), Projection())
        assert other.stats().events == sum(map(len, self.model.histories.values()))
        other.close()
        if not pickled:
            self.store = Store.open(self.store.path)


StoreLaws.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestStoreLaws = StoreLaws.TestCase
