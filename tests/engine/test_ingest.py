"""Event files into a store: every format, order and route gives what plain appends of the same rows give."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from uihkv import (
    Column,
    FormatError,
    IngestError,
    Projection,
    ReadOnlyError,
    Schema,
    SchemaError,
    Store,
    grouping,
    shares,
)
from uihkv.ingest import IngestProgress, ingest

FLAT = Schema(
    [
        Column("item_id", "int64"),
        Column("action", "uint8"),
        Column("dwell", "float32", default=0.5),
        Column("half", "float16", default=0.0),
        Column("flag", "bool", default=False),
        Column("place", "string"),
    ]
)
FULL = Schema([*FLAT.columns, Column("tags", "int32", ragged=True), Column("vec", "float16", shape=(2,))])
ROWS = 3000
USERS = 40


def make_rows(schema: Schema = FULL, rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Events of some users, one of whom has a third of them; ``arrived`` is a column of another order, with ties."""
    rng = np.random.default_rng(seed)
    users = np.where(rng.random(rows) < 0.3, 7, rng.integers(-USERS // 2, USERS // 2, rows))
    columns = {
        "user_id": users,
        "ts": rng.integers(0, 10**12, rows),
        "item_id": rng.integers(-(2**60), 2**60, rows),
        "action": rng.integers(0, 256, rows).astype(np.uint8),
        "dwell": rng.random(rows).astype(np.float32),
        "half": rng.random(rows).astype(np.float16),
        "flag": rng.random(rows) < 0.5,
        "place": rng.choice(["", "home", 'a "quoted", one', "zwei\nZeilen", "Zürich"], rows),
        "seen": rng.integers(0, 10**12, rows),
        "arrived": rng.integers(0, rows // 3, rows),
    }
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    if "tags" in schema:
        lengths = rng.integers(0, 4, rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        tags = pa.ListArray.from_arrays(offsets, pa.array(rng.integers(0, 99, offsets[-1]).astype(np.int32)))
        vec = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(2 * rows).astype(np.float16)), 2)
        table = table.append_column("tags", tags).append_column("vec", vec)
    return table


def write(table: pa.Table, path: Path) -> Path:
    """The rows as a file of the format that its name says."""
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=700)
    elif name.endswith(".arrows"):
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=450)
    elif name.endswith(".arrow"):
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(path, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=450)
    elif name.endswith(".csv.gz"):
        with gzip.open(path, "wb") as file:
            pacsv.write_csv(as_text(table), file)
    else:
        pacsv.write_csv(as_text(table), path)
    return path


def as_text(table: pa.Table) -> pa.Table:
    """pyarrow writes no float16; as float32 each is written exactly."""
    index = table.schema.get_field_index("half")
    return table.set_column(index, "half", table.column("half").cast(pa.float32()))


def contents(store: Store) -> dict[str, Any]:
    """Every event of every user, to the bit."""
    with store.snapshot(verify="always") as snapshot:
        users = np.sort(snapshot.users())
        found = snapshot.read(snapshot.head(users), Projection(("visible_at", "ts", *store.schema.names)))
    values = {name: found.values(name).tobytes() for name in found.columns}
    inner = {name: found.element_offsets(name) for name in found.columns}
    lists = {name: offsets.tolist() for name, offsets in inner.items() if offsets is not None}
    return {"users": users.tolist(), "offsets": found.offsets.tolist(), **values, "lists": lists}


def plain(path: Path, schema: Schema, table: pa.Table, *, seen: bool = True, by: str | None = None) -> dict[str, Any]:
    """What a store holds after one append of these rows, put in order first."""
    if by is not None:
        table = table.take(np.argsort(table.column(by).to_numpy(), kind="stable"))
    columns = ("user_id", "ts", *schema.names)
    with Store.create(path, schema, shards=4, chunk_events=32) as store:
        visible = table.column("seen").to_numpy() if seen else None
        store.append(table.select(list(columns)), visible, backfill=visible is None)
        return contents(store)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.create(tmp_path / "store", FULL, shards=4, chunk_events=32) as made:
        yield made


SETTINGS: dict[str, dict[str, Any]] = {
    "by rows": {},
    "by rows, small batches": {"batch_rows": 130},
    "by rows, processes": {"batch_rows": 400, "processes": 2},
    "ordered": {"order_by": "arrived"},
    "ordered, small batches": {"order_by": "arrived", "batch_rows": 100},
    "ordered, processes": {"order_by": "arrived", "batch_rows": 300, "processes": 2},
}


@pytest.mark.parametrize(
    ("way", "built"),
    [(way, built) for way in SETTINGS for built in (False, True) if "proc" not in way or built is ("ord" in way)],
)
def test_every_route_gives_what_one_append_gives(tmp_path: Path, way: str, built: bool) -> None:
    table = make_rows()
    bounds = [0, 1000, 1000, 2300, ROWS]
    names = ["a.parquet", "b.arrow", "c.arrows", "d.parquet"]
    (tmp_path / "in").mkdir()
    for name, low, high in zip(names, bounds, bounds[1:], strict=False):
        write(table.slice(low, high - low), tmp_path / "in" / name)
    given = SETTINGS[way]
    stages: list[IngestProgress] = []
    settings = {**given, "visible_at": "seen", "source": "files", "progress": stages.append}
    if built:
        with Store.build(tmp_path / "store", FULL, shards=4, chunk_events=32) as store:
            result = ingest(store, tmp_path / "in", **settings)
    else:
        with Store.create(tmp_path / "store", FULL, shards=4, chunk_events=32) as store:
            result = ingest(store, tmp_path / "in", **settings)
    assert (result.files, result.rows, result.appended, result.replayed) == (4, ROWS, ROWS, 0)
    assert set(result.ignored) == {"arrived", "seen"} - {given.get("order_by"), "seen"}
    assert stages[-1].rows == ROWS
    with Store.open(tmp_path / "store") as store:
        assert contents(store) == plain(tmp_path / "plain", FULL, table, by=given.get("order_by"))
        assert store.sources() == {"files": ROWS}
        again = ingest(store, tmp_path / "in", **settings)
        assert (again.appended, again.replayed) == (0, ROWS)
        later = write(table.slice(0, 10), tmp_path / "in" / "e.parquet")
        more = ingest(store, [*sorted((tmp_path / "in").iterdir())], **settings)
        assert (more.appended, more.replayed, later.name) == (10, ROWS, "e.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "plain", "store"]


@pytest.mark.parametrize("name", ["e.parquet", "e.arrow", "e.arrows", "e.csv", "e.csv.gz"])
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    table = make_rows(FLAT)
    path = write(table, tmp_path / name)
    with Store.create(tmp_path / "store", FLAT, shards=4, chunk_events=32) as store:
        ingest(store, path, visible_at="seen", batch_rows=999)
        assert contents(store) == plain(tmp_path / "plain", FLAT, table)


def test_a_format_is_told_by_the_first_bytes_or_by_the_caller(tmp_path: Path, store: Store) -> None:
    table = make_rows(rows=5)
    write(table, tmp_path / "e.parquet").rename(tmp_path / "part-1")
    write(table, tmp_path / "e.arrow").rename(tmp_path / "part-2")
    assert ingest(store, [tmp_path / "part-1", tmp_path / "part-2"]).appended == 10
    write(table, tmp_path / "e.arrows").rename(tmp_path / "part-3")
    with pytest.raises(FormatError, match="give format"):
        ingest(store, tmp_path / "part-3")
    assert ingest(store, tmp_path / "part-3", format="arrow").appended == 5
    with pytest.raises(SchemaError, match="parquet, arrow, csv"):
        ingest(store, tmp_path / "part-3", format="orc")
    with pytest.raises(FormatError, match="cannot be read as Parquet"):
        ingest(store, tmp_path / "part-3", format="parquet")


def test_a_folder_is_its_event_files_by_name(tmp_path: Path, store: Store) -> None:
    (tmp_path / "in" / "day=2").mkdir(parents=True)
    (tmp_path / "in" / "_temporary").mkdir()
    write(make_rows(rows=3), tmp_path / "in" / "b.parquet")
    write(make_rows(rows=4), tmp_path / "in" / "day=2" / "a.arrow")
    write(make_rows(rows=9), tmp_path / "in" / "_temporary" / "c.parquet")
    (tmp_path / "in" / "README").write_text("not events")
    assert ingest(store, tmp_path / "in").rows == 7
    assert ingest(store, tmp_path / "in", format="arrow").rows == 4
    with pytest.raises(FormatError, match="holds no files"):
        ingest(store, tmp_path / "in", format="csv")


def test_columns_may_be_renamed_and_clocks_may_be_timestamps(tmp_path: Path) -> None:
    table = pa.table(
        {
            "who": [3, 1, 3],
            "at": pa.array([5, 6, 7], pa.timestamp("ms", tz="UTC")),
            "what": [10, 11, 12],
            "seen": pa.array([5_000_000, 6_000_000, 8_000_000], pa.timestamp("ns")),
            "come": pa.array([2, 1, 0], pa.timestamp("s")),
        }
    )
    names = {"who": "user_id", "at": "ts", "what": "item_id"}
    schema = Schema([Column("item_id", "int64")])
    write(table, tmp_path / "e.parquet")
    (tmp_path / "e.csv").write_text(
        "what,seen,at,who,come,note\n10,1970-01-01 00:00:00.005,1970-01-01T00:00:00.005Z,3,1970-01-03,x\n"
        '11,1970-01-01 00:00:00.006,1970-01-01T00:00:00.006Z,1,1970-01-02,"a,\nb"\n'
        "12,1970-01-01 00:00:00.008,1970-01-01T00:00:00.007Z,3,1970-01-01,\n"
    )
    for name in ("e.parquet", "e.csv"):
        for order, items in ((None, [10, 12]), ("come", [12, 10])):
            path = tmp_path / f"{name}-{order}"
            with Store.create(path, schema, shards=2) as store:
                ingest(store, tmp_path / name, rename=names, visible_at="seen", order_by=order)
                with store.snapshot() as snapshot:
                    found = snapshot.read(snapshot.head([3]), Projection(("ts", "visible_at", "item_id")))
                assert found.values("item_id").tolist() == items
                assert found.values("visible_at").tolist() == ([5, 8] if order is None else [8, 8])
    with Store.create(tmp_path / "seconds", replace_unit(schema, "s")) as store:
        with pytest.raises(SchemaError, match="whole s are expected"):
            ingest(store, tmp_path / "e.parquet", rename=names)
        assert store.stats().events == 0


def replace_unit(schema: Schema, unit: str) -> Schema:
    return Schema(schema.columns, time_unit=unit)


@pytest.mark.parametrize(
    ("built", "processes", "order_by"),
    [(False, 1, None), (False, 1, "arrived"), (True, 1, None), (False, 2, "arrived")],
)
def test_a_bad_late_row_is_refused_before_anything_is_written(
    tmp_path: Path, built: bool, processes: int, order_by: str | None
) -> None:
    table = make_rows()
    write(table.slice(0, 2000), tmp_path / "a.parquet")
    ts = table.column("ts").to_numpy().copy()
    ts[2900] = -5
    write(table.set_column(1, "ts", pa.array(ts)).slice(2000), tmp_path / "b.parquet")
    settings: dict[str, Any] = {"batch_rows": 500, "processes": processes, "order_by": order_by}
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    with pytest.raises(SchemaError, match=r"b\.parquet, rows 500 to 999: .*-5") as raised:
        if built:
            with Store.build(tmp_path / "store", FULL, shards=4) as store:
                ingest(store, files, **settings)
        else:
            with Store.create(tmp_path / "store", FULL, shards=4) as store:
                ingest(store, files, **settings)
    assert type(raised.value) is SchemaError
    if not built:
        with Store.open(tmp_path / "store") as store:
            assert store.stats().events == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet", *["store"] * (not built)]


def test_what_cannot_be_is_refused_by_name(tmp_path: Path, store: Store) -> None:
    table = make_rows(rows=20)
    path = write(table, tmp_path / "e.parquet")
    flat = write(make_rows(FLAT, rows=20), tmp_path / "e.csv")
    (tmp_path / "bad.csv").write_text("user_id,ts,item_id,action,place\n1,2,3,4,a\n1,2,3,300,b\n")
    (tmp_path / "empty.csv").write_text("")
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: ingest(store, path, order_by="nope"), SchemaError, "nope"),
        (lambda: ingest(store, path, order_by="dwell"), SchemaError, "dwell"),
        (lambda: ingest(store, path, batch_rows=0), SchemaError, "batch_rows"),
        (lambda: ingest(store, path, processes=5), SchemaError, "1 to 4"),
        (lambda: ingest(store, path, scratch=tmp_path / "none"), SchemaError, "scratch"),
        (lambda: ingest(store, path, source="a\0b", order_by="seen"), SchemaError, "NUL"),
        (lambda: ingest(store, flat), SchemaError, "tags"),
        (lambda: ingest(store, tmp_path / "empty.csv"), FormatError, "CSV"),
        (lambda: ingest(store, tmp_path / "none.parquet"), FormatError, "does not exist"),
    ]
    for attempt, error, words in cases:
        with pytest.raises(error, match=words):
            attempt()
    with Store.create(tmp_path / "flat", FLAT) as other, pytest.raises(SchemaError, match=r"bad\.csv.*300"):
        ingest(other, tmp_path / "bad.csv")
    nulls = table.set_column(table.schema.get_field_index("arrived"), "arrived", pa.nulls(20, pa.int64()))
    write(nulls, tmp_path / "nulls.parquet")
    with pytest.raises(SchemaError, match="arrival order"):
        ingest(store, tmp_path / "nulls.parquet", order_by="arrived")
    with Store.open(store.path, readonly=True) as reader, pytest.raises(ReadOnlyError):
        ingest(reader, path, order_by="arrived")
    assert store.stats().events == 0


INGEST = """
import os, signal, sys
from pathlib import Path
from uihkv import Store
from uihkv.ingest import ingest
import json
def main():
    store, folder, settings, stage, rows = sys.argv[1:]
    def die(at):
        print(at.stage, at.rows, flush=True)
        if at.stage == stage and at.rows >= int(rows):
            os.kill(os.getpid(), signal.SIGKILL)
    with Store.open(store) as opened:
        ingest(opened, folder, source="files", progress=die, **json.loads(settings))
if __name__ == "__main__":
    main()
"""


def run_until(store: Path, folder: Path, settings: dict[str, Any], stage: str, rows: int, script: Path) -> int:
    script.write_text(INGEST)
    command = [sys.executable, str(script), str(store), str(folder), json.dumps(settings), stage, str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # its processes have the pipe too: this returns when the last of them has found out
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False).returncode


@pytest.mark.parametrize("way", ["by rows, small batches", "by rows, processes", "ordered, small batches",
                                 "ordered, processes"])  # fmt: skip
def test_a_killed_ingest_goes_on_where_it_stopped(tmp_path: Path, way: str) -> None:
    table = make_rows()
    (tmp_path / "in").mkdir()
    write(table.slice(0, 1500), tmp_path / "in" / "a.parquet")
    write(table.slice(1500), tmp_path / "in" / "b.arrow")
    Store.create(tmp_path / "store", FULL, shards=4, chunk_events=32).close()
    settings = {**SETTINGS[way], "visible_at": "seen"}
    kills = [("write", 1300)] if "processes" in settings else [("group", 900), ("write", 700), ("write", 2100)]
    for stage, rows in kills[0 if "order_by" in settings else -1 :]:
        killed = run_until(tmp_path / "store", tmp_path / "in", settings, stage, rows, tmp_path / "run.py")
        assert killed == -signal.SIGKILL
    with Store.open(tmp_path / "store") as store:
        done = store.stats().events
        assert store.sources().get("files", 0) <= done < ROWS
        assert done >= 700
        other = {**settings, "batch_rows": 77}
        with pytest.raises(SchemaError, match="files"):
            ingest(store, tmp_path / "in", source="files", **other)
        switched = {**settings, "order_by": None if settings.get("order_by") else "arrived"}
        with pytest.raises(SchemaError, match="files"):
            ingest(store, tmp_path / "in", source="files", **switched)
        assert store.stats().events == done
        settings["processes"] = 1 if "order_by" in settings else 3 - settings.get("processes", 1)  # it is free
        result = ingest(store, tmp_path / "in", source="files", **settings)
        assert (result.appended, result.replayed) == (ROWS - done, done)
        assert store.sources() == {"files": ROWS}
        assert contents(store) == plain(tmp_path / "plain", FULL, table, by=settings.get("order_by"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "plain", "run.py", "store"]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("at", [0, 1100, 2000])
def test_two_ingests_of_one_source_at_a_time_store_nothing_twice(
    tmp_path: Path, store: Store, settings: dict[str, Any], at: int
) -> None:
    """As of one that goes on beside the processes of another that was killed: the first to store a row stores it."""
    table = make_rows()
    (tmp_path / "in").mkdir()
    write(table.slice(0, 1500), tmp_path / "in" / "a.parquet")
    write(table.slice(1500), tmp_path / "in" / "b.arrow")
    common = {**settings, "visible_at": "seen", "source": "files"}
    others = []

    def meanwhile(now: IngestProgress) -> None:
        if now.stage == "write" and now.rows >= at and not others:
            others.append(ingest(store, tmp_path / "in", **common))

    first = ingest(store, tmp_path / "in", **common, progress=meanwhile)
    assert first.appended + sum(other.appended for other in others) == ROWS
    assert len(others) == 1
    assert store.sources() == {"files": ROWS}
    assert contents(store) == plain(tmp_path / "plain", FULL, table, by=settings.get("order_by"))
    again = ingest(store, tmp_path / "in", **common)
    assert (again.appended, again.replayed) == (0, ROWS)


def test_a_killed_process_ends_the_ingest_with_an_error_and_the_next_run_completes_it(
    tmp_path: Path, store: Store
) -> None:
    table = make_rows(rows=30_000)
    path = write(table, tmp_path / "e.parquet")

    def kill(at: IngestProgress) -> None:
        if at.stage == "write":
            [first, *_] = shares.multiprocessing.active_children()
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)

    with pytest.raises(IngestError, match=r"died.*-9.*same source"):
        ingest(store, path, source="s", visible_at="seen", batch_rows=500, processes=2, progress=kill)
    assert not shares.multiprocessing.active_children()
    some = store.stats().events
    assert store.sources().get("s", 0) <= some < 30_000
    ingest(store, path, source="s", visible_at="seen", batch_rows=500, processes=2)
    assert store.sources() == {"s": 30_000}
    assert contents(store) == plain(tmp_path / "plain", FULL, table)


def test_the_sources_of_several_processes_list_no_offset_that_a_shard_lacks(tmp_path: Path, store: Store) -> None:
    """Looked at from outside, at every batch: all rows up to the offset are there."""
    table = make_rows(rows=12_000)
    path = write(table, tmp_path / "e.parquet")
    user = table.column("user_id").to_numpy()
    seen = []

    def look(at: IngestProgress) -> None:
        if at.stage == "write":
            done = store.sources().get("s", 0)
            with store.snapshot() as snapshot:
                users, counts = np.unique(user[:done], return_counts=True)
                assert (snapshot.head(users).version >= counts).all()
            seen.append(done)

    ingest(store, path, source="s", visible_at="seen", batch_rows=500, processes=2, progress=look)
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


def test_one_user_larger_than_a_load_is_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "HELD_BYTES", 1 << 12)
    rows = 4000
    table = make_rows(rows=rows)
    same = table.set_column(0, "user_id", pa.array(np.full(rows, 5)))
    few = table.set_column(table.schema.get_field_index("arrived"), "arrived", pa.array(np.arange(rows) % 2))
    for number, (given, by) in enumerate([(same, "arrived"), (same, None), (few, "arrived"), (same, "seen")]):
        path = write(given, tmp_path / f"{number}.parquet")
        with Store.build(tmp_path / f"s{number}", FULL, shards=4, chunk_events=32) as store:
            ingest(store, path, visible_at="seen", order_by=by, batch_rows=150)
            built = contents(store)
        assert built == plain(tmp_path / f"plain{number}", FULL, given, by=by)


def test_events_of_a_bucket_come_back_to_the_bit(tmp_path: Path) -> None:
    from uihkv.events import parse_events

    table = make_rows(rows=50).slice(7)
    events = parse_events(FULL, table.select(["user_id", "ts", *FULL.names]), table.column("seen"))
    back, order = grouping.from_table(grouping.to_table(events, np.arange(43)).slice(5))
    expected = events.take(np.arange(5, 43))
    assert order.tolist() == list(range(5, 43))
    for name in FULL.names:
        assert back.columns[name].dtype == expected.columns[name].dtype
        assert np.array_equal(back.columns[name], expected.columns[name])
    assert back.lists["tags"].tolist() == expected.lists["tags"].tolist()
    assert replace(back, columns={}, lists={}).visible_at.tolist() == expected.visible_at.tolist()
