"""An example reads the same with its inline tail, before and after the store has caught up, and slimmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.properties.test_projection_laws import COLUMNS, EVENTS, SCHEMA, USERS, Log, conditions
from uihkv import Histories, PointerError, Pointers, Projection, SchemaError, Snapshot, StochasticLength, Store
from uihkv.inline import InlineTail, split_inline
from uihkv.slim import slim_examples

ALL = ("ts", *COLUMNS, "tags", "surface")


class Growing:
    """One log in a store that has all of it, and in stores that have caught up to some row only."""

    def __init__(self, folder: Path) -> None:
        self.log = Log(folder)
        self.whole = self.log.stores[1]
        self.partial: list[tuple[Store, list[int]]] = []
        for rows in (0, EVENTS // 2, EVENTS - 300, EVENTS):
            store = Store.create(folder / f"partial-{rows}", SCHEMA, shards=3, chunk_events=29)
            data = {name: values[:rows] for name, values in self.log.data.items()}
            store.append(data, visible_at=self.log.data["ts"][:rows])
            self.partial.append(
                (store, [int(np.count_nonzero(self.log.data["user_id"][:rows] == u)) for u in range(USERS)])
            )

    def tails(self, users: np.ndarray, start: np.ndarray, end: np.ndarray, names: tuple[str, ...] = ALL) -> InlineTail:
        rows = [self.log.rows[u][a:b] for u, a, b in zip(users.tolist(), start.tolist(), end.tolist(), strict=True)]
        flat = np.concatenate(rows).astype(np.int64)
        with self.whole.snapshot() as snapshot:  # visible times as the store lifts them
            seen = [snapshot.read(Pointers([u], [b]), Projection(["visible_at"])).values("visible_at")[a:]
                    for u, a, b in zip(users.tolist(), start.tolist(), end.tolist(), strict=True)]  # fmt: skip
        data: dict[str, Any] = {
            name: [self.log.data[name][row] for row in flat] if name == "tags" else self.log.data[name][flat]
            for name in names if name != "visible_at"
        }  # fmt: skip
        if "visible_at" in names:
            data["visible_at"] = np.concatenate(seen)
        return InlineTail.of(SCHEMA, start, np.concatenate([[0], np.cumsum(end - start)]), data)

    def pointers(self, users: np.ndarray, version: np.ndarray) -> Pointers:
        pairs = zip(users.tolist(), version.tolist(), strict=True)
        last = [int(self.log.data["ts"][self.log.rows[u][v - 1]]) if v else 0 for u, v in pairs]
        return Pointers(users, version, np.array(last, np.int64))


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Growing]:
    made = Growing(tmp_path_factory.mktemp("inline"))
    yield made
    for store in [*made.log.stores, *(store for store, _ in made.partial)]:
        store.close()


def assert_same(found: Histories, expected: Histories) -> None:
    assert found.columns == expected.columns
    assert found.offsets.tolist() == expected.offsets.tolist()
    for name in expected:
        assert found.values(name).dtype == expected.values(name).dtype
        assert found.values(name).tobytes() == expected.values(name).tobytes(), name
        left, right = found.element_offsets(name), expected.element_offsets(name)
        assert (left is None) == (right is None)
        assert left is None or right is None or left.tolist() == right.tolist()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=conditions(),
    columns=st.lists(st.sampled_from(ALL), min_size=1, unique=True),
    max_len=st.none() | st.integers(1, 60) | st.integers(1, 1500),
    max_age=st.none() | st.integers(0, 30_000),
    alpha=st.none() | st.floats(1.01, 2.0),
    stage=st.integers(0, 3),
    given_moment=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_an_example_reads_the_same_with_and_without_its_inline_tail(
    growing: Growing, where: dict[str, Any], columns: list[str], max_len: int | None, max_age: int | None,
    alpha: float | None, stage: int, given_moment: bool, seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    store, heads = growing.partial[stage]
    users = rng.integers(0, USERS, 12)
    version = np.array([rng.integers(0, heads[u] + 1) for u in users])
    start = np.array([rng.integers(max(0, v - 5), v + 1) for v in version])
    end = np.array([min(len(growing.log.rows[u]), a + rng.integers(0, 40)) for u, a in zip(users, start, strict=True)])
    end = np.maximum(end, start)
    pointers, inline = growing.pointers(users, version), growing.tails(users, start, end)
    whole = growing.pointers(users, np.where(end > start, np.maximum(version, end), version))
    assert inline.extend(pointers) == whole
    sample = StochasticLength(alpha, seed % 99) if alpha is not None and max_len is not None else None
    asked = Projection(columns, max_len, where=where, max_age=max_age, sample=sample)
    moments = rng.integers(10_000, 40_000, 12) if given_moment else None
    with growing.whole.snapshot() as snapshot:
        expected = snapshot.read(whole, asked, as_of=moments, epoch=2)
        assert_same(snapshot.read(pointers, asked, as_of=moments, epoch=2, inline=inline), expected)
        slim, rest, pending = slim_examples(snapshot, pointers, inline)
        assert slim == whole
        assert not pending.any() and not len(rest.events)
    with store.snapshot() as snapshot:
        assert_same(snapshot.read(pointers, asked, as_of=moments, epoch=2, inline=inline), expected)
        slim, rest, pending = slim_examples(snapshot, pointers, inline)
        assert_same(snapshot.read(slim, asked, as_of=moments, epoch=2, inline=rest), expected)
        late = [b > a and b > heads[u] for u, a, b in zip(users, start, end, strict=True)]
        assert pending.tolist() == late


def snapshot_at(growing: Growing, stage: int) -> Snapshot:
    return growing.partial[stage][0].snapshot()


def test_a_tail_survives_arrow(growing: Growing, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    users, start = np.array([3, 4, 5]), np.array([2, 0, 7])
    inline = growing.tails(users, start, start + np.array([3, 0, 5]))
    table = inline.to_arrow(SCHEMA)
    pq.write_table(
        pa.table([*table.columns, pa.array([1, 2, 3])], names=[*table.column_names, "label"]), tmp_path / "t"
    )
    again = InlineTail.from_arrow(SCHEMA, pq.read_table(tmp_path / "t"))
    assert again.start.tolist() == inline.start.tolist()
    assert again.offsets.tolist() == inline.offsets.tolist()
    assert again.columns == inline.columns
    for name in ALL:
        assert not again.events.differs(inline.events, name).any()
    nothing = pa.table(
        {
            "inline_start": pa.array([None, 4], pa.int64()),
            "inline": pa.array([None, []], table.schema.field("inline").type),
        }
    )
    assert InlineTail.from_arrow(SCHEMA, nothing).lengths.tolist() == [0, 0]
    no_rows = pa.Table.from_batches([], schema=nothing.schema)
    assert len(InlineTail.from_arrow(SCHEMA, no_rows)) == 0


def test_a_gap_is_refused(growing: Growing) -> None:
    inline = growing.tails(np.array([6, 6]), np.array([5, 7]), np.array([6, 9]))
    with snapshot_at(growing, 1) as snapshot, pytest.raises(PointerError, match=r"row 1: .*version 6 .*starts at 7"):
        snapshot.read(growing.pointers(np.array([6, 6]), np.array([6, 6])), inline=inline)


@pytest.mark.parametrize("column", ALL)
def test_a_tail_that_the_store_has_otherwise_is_refused(growing: Growing, column: str) -> None:
    """Whatever of it differs: the store took the events in another order."""
    users, version = np.array([5, 6]), np.array([10, 20])
    right = growing.tails(users, version, version + 4)
    swapped = right.events.take(np.array([0, 1, 2, 3, 4, 6, 5, 7]))
    if not right.events.differs(swapped, column).any():
        pytest.skip("these two events are alike in it")
    events = right.events.choose([name for name in ALL if name != column])
    mixed = type(events)(
        8, {**events.values, column: swapped.values[column]},
        {**events.lists, **({column: swapped.lists[column]} if column in swapped.lists else {})},
    )  # fmt: skip
    wrong = InlineTail(right.start, right.offsets, mixed)
    pointers = growing.pointers(users, version)
    with growing.whole.snapshot() as snapshot:
        with pytest.raises(PointerError, match=f"row 1: event 2[12] of user 6 differs in '{column}'"):
            snapshot.read(pointers, Projection(["ts"]), inline=wrong)
        with pytest.raises(PointerError, match="another order"):
            slim_examples(snapshot, pointers, wrong)


def test_a_wrong_last_ts_is_refused_also_when_the_store_has_caught_up(growing: Growing) -> None:
    pointers = growing.pointers(np.array([6]), np.array([20]))
    wrong = Pointers(pointers.user_id, pointers.version, [123])
    inline = growing.tails(np.array([6]), np.array([20]), np.array([24]))
    for stage in (1, 3):
        with snapshot_at(growing, stage) as snapshot, pytest.raises(PointerError, match="last_ts is 123"):
            snapshot.read(wrong, inline=inline)


def test_a_tail_without_a_column_that_is_wanted_is_refused_until_the_store_has_caught_up(growing: Growing) -> None:
    users, version = np.array([6]), np.array([growing.partial[2][1][6]])
    inline = growing.tails(users, version, version + 2, ("ts", "item_id"))
    pointers = growing.pointers(users, version)
    with snapshot_at(growing, 2) as snapshot:
        assert snapshot.read(pointers, Projection(["item_id"]), inline=inline).lengths.tolist() == [version[0] + 2]
        for asked in (Projection(["dwell"]), Projection(["ts"], where={"action": {1}}), Projection(["visible_at"])):
            with pytest.raises(SchemaError, match="do not carry"):
                snapshot.read(pointers, asked, inline=inline)
        with pytest.raises(SchemaError, match="on_missing"):
            snapshot.read(pointers, on_missing="empty", inline=inline)
        with pytest.raises(PointerError, match="1 pointers and 2 inline tails"):
            snapshot.read(pointers, inline=InlineTail.empty(2))
    with snapshot_at(growing, 3) as snapshot:
        held, rest = split_inline(snapshot, pointers, inline)
        assert held.version.tolist() == [version[0] + 2] and not len(rest.events)
        assert snapshot.read(pointers, Projection(["dwell"]), inline=inline).lengths.tolist() == [version[0] + 2]
