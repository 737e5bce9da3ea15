"""Whatever maintenance is done, and in whatever order, pointers read what they named, or say that it was trimmed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.model import Event, Model, check_histories
from tests.properties.strategies import MOMENTS, USERS, batches, columns, schemas
from uihkv import CompactionPolicy, PointerError, Pointers, Projection, Schema, Store, TrimmedError


class MaintenanceLaws(RuleBasedStateMachine):
    """Appends and replays, trims, and reads under every projection that has to know what is gone."""

    @initialize(schema=schemas(), shards=st.integers(1, 3), chunk_events=st.sampled_from([1, 2, 3, 8]))
    def create(self, schema: Schema, shards: int, chunk_events: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="uihkv-maintenance-")
        self.store = Store.create(Path(self.folder.name) / "0", schema, shards, chunk_events=chunk_events)
        self.model = Model(schema)
        self.taken: list[tuple[int, int]] = []
        self.offset = 0
        self.columns = self.copies = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.verify()
            self.store.close()
            self.folder.cleanup()

    # -- what is stored -----------------------------------------------------------------------------

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        batch = data.draw(batches(self.model.schema))
        self.offset += 1
        given = batch.given(self.model.schema)
        options: dict[str, Any] = {"backfill": batch.backfill, "source": "log", "offset": self.offset}
        result = self.store.append(given, batch.visible_at, **options)
        expected = self.model.append(batch.rows, batch.visible_at, backfill=batch.backfill)
        assert (result.appended, result.users, result.lifted) == (expected.appended, expected.users, expected.lifted)
        again = self.store.append(given, batch.visible_at, **options)
        assert (again.appended, again.replayed) == (0, len(batch.rows["ts"]))
        self.taken += [(user, self.model.head(user)) for user in set(batch.rows["user_id"].tolist())]

    @precondition(lambda self: self.columns < 3)
    @rule(data=st.data())
    def add_column(self, data: st.DataObject) -> None:
        self.columns += 1
        column = data.draw(columns(f"more{self.columns}").filter(lambda one: one.ragged or one.default is not None))
        self.store.add_column(column)
        self.model.add_column(column)

    @precondition(lambda self: len(self.model.schema.names) > 1)
    @rule(data=st.data())
    def drop_column(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.model.schema.names))
        self.store.drop_column(name)
        self.model.drop_column(name)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store.open(self.store.path)

    # -- what goes ----------------------------------------------------------------------------------

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        """Some users, each up to a version; a version past the head is refused for all of them."""
        users = data.draw(st.lists(st.sampled_from(USERS), unique=True, max_size=3))
        before = [data.draw(st.integers(0, self.model.head(user))) for user in users]
        result = self.store.trim(users, before)
        removed = [self.model.trim(user, version) for user, version in zip(users, before, strict=True)]
        assert (result.events, result.users) == (sum(removed), sum(number > 0 for number in removed))
        assert self.store.trim(users, before).describe() == {"users": 0, "events": 0, "chunks": 0}
        known = [user for user in users if self.model.head(user)]
        if known:
            past = [self.model.head(user) + (user == known[-1]) for user in known]
            with pytest.raises(PointerError, match="nothing was trimmed"):
                self.store.trim(known, past)

    @rule(user=st.sampled_from(USERS))
    def erase(self, user: int) -> None:
        assert self.store.trim(user).events == self.model.trim(user)

    @rule(moment=MOMENTS)
    def trim_by_age(self, moment: int) -> None:
        assert self.store.trim_by_age(moment).events == self.model.trim_by_age(moment)
        assert self.store.trim_by_age(moment).events == 0

    # -- what is rewritten --------------------------------------------------------------------------

    @rule()
    def seal(self) -> None:
        self.store.seal()
        assert self.store.stats().tail_events == 0
        assert self.store.seal().describe() == {"users": 0, "events": 0, "chunks": 0}

    @rule(min_fill=st.sampled_from([0.0, 0.5, 1.0]), old=st.booleans(), events=st.sampled_from([1, 5, 10**6]))
    def compact(self, min_fill: float, old: bool, events: int) -> None:
        policy = CompactionPolicy(min_fill, old, events)
        before = self.store.stats().chunks
        result = self.store.compact(policy)
        assert self.store.stats().chunks == before + result.chunks_after - result.chunks_before <= before
        assert self.store.compact(policy).runs == 0

    @rule(compacted=st.booleans())
    def go_on_with_a_copy(self, compacted: bool) -> None:
        """Or with a backup: from now on, the store is another directory."""
        self.copies += 1
        path = Path(self.folder.name) / str(self.copies)
        if compacted:
            self.store.compact(copy_to=path)
        else:
            self.store.backup(path)
        sources, fingerprint = self.store.sources(), self.store.fingerprint
        self.store.close()
        self.store = Store.open(path)
        assert (self.store.sources(), self.store.fingerprint) == (sources, fingerprint)

    # -- what is read -------------------------------------------------------------------------------

    @rule()
    def log_heads(self) -> None:
        with self.store.snapshot() as snapshot:
            heads = snapshot.head(USERS)
            assert snapshot.users().tolist() == sorted(user for user in USERS if self.model.head(user))
        assert heads.version.tolist() == [self.model.head(user) for user in USERS]
        assert heads.last_ts is not None
        assert heads.last_ts.tolist() == [self.last_ts(user, self.model.head(user)) for user in USERS]
        assert self.store.stats().events == self.model.kept()

    def last_ts(self, user: int, version: int) -> int:
        return self.model.last_ts(user, version) if version > self.model.base(user) else 0

    @rule()
    def verify(self) -> None:
        report = self.store.verify(isolated=False)
        assert report.ok, report.problems
        assert (report.events, report.users) == (self.model.kept(), len(self.model.histories))

    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        user, moment = data.draw(st.sampled_from(USERS)), data.draw(MOMENTS)
        true, base = self.model.resolve(user, moment), self.model.base(user)
        with self.store.snapshot() as snapshot:
            found = snapshot.resolve([user], moment, on_trimmed="truncate")
            assert found.version.tolist() == [max(true, base)]
            assert found.last_ts is not None and found.last_ts.tolist() == [self.last_ts(user, max(true, base))]
            if base > 0 and true <= base:
                assert self.raises(lambda: snapshot.resolve([user], moment))
                assert self.raises(lambda: snapshot.read(found))
            else:
                assert snapshot.resolve([user], moment) == found

    @staticmethod
    def raises(action: Any) -> bool:
        try:
            action()
        except TrimmedError:
            return True
        return False

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def read_what_was_taken(self, data: st.DataObject) -> None:
        taken = data.draw(st.lists(st.sampled_from(self.taken), max_size=6))
        users, versions = [user for user, _ in taken], [version for _, version in taken]
        proofs = [self.last_ts(user, version) for user, version in taken]
        pointers = Pointers(np.array(users, np.int64), np.array(versions, np.int64), np.array(proofs, np.int64))
        where, asked = self.draw_projection(data)
        moments = data.draw(st.lists(MOMENTS, min_size=len(taken), max_size=len(taken)))
        with self.store.snapshot() as snapshot:
            left = [self.expect(at, asked, where, moments, taken, truncate=True) for at in range(len(taken))]
            found = snapshot.read(pointers, asked, as_of=np.array(moments, np.int64), on_trimmed="truncate")
            check_histories(found, self.model.schema, asked, [events or [] for events in left])
            strict = [self.expect(at, asked, where, moments, taken, truncate=False) for at in range(len(taken))]
            for at, events in enumerate(strict):
                if events is None:
                    assert self.raises(lambda at=at: snapshot.read(pointers[at], asked, as_of=[moments[at]]))
            rows = [at for at, events in enumerate(strict) if events is not None]
            whole = snapshot.read(pointers[rows], asked, as_of=np.array(moments, np.int64)[rows])
            check_histories(whole, self.model.schema, asked, [strict[at] or [] for at in rows])

    def draw_projection(self, data: st.DataObject) -> tuple[dict[str, Any], Projection]:
        low, high = sorted((data.draw(MOMENTS), data.draw(MOMENTS)))
        where = data.draw(st.sampled_from([{}, {}, {"ts": (low, high)}]))
        max_len = data.draw(st.none() | st.integers(1, 6))
        max_age = data.draw(st.none() | MOMENTS)
        return where, Projection(None, max_len, where=where, max_age=max_age)

    def expect(
        self, at: int, asked: Projection, where: Any, moments: list[int], taken: list[tuple[int, int]], truncate: bool
    ) -> list[Event] | None:
        user, version = taken[at]
        return self.model.read_kept(user, version, asked, where, moments[at], truncate)


MaintenanceLaws.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestMaintenanceLaws = MaintenanceLaws.TestCase
