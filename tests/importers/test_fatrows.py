"""Fat rows into a store and slim examples: the same come back, contradictions are found, nothing is half done."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.front.test_cli import run
from tests.importers.conftest import Log
from uihkv import Pointers, Projection, SchemaError, Store, StoreExistsError, UihkvError
from uihkv.importers import migration
from uihkv.importers.fatrows import FatRowsResult, import_fat_rows
from uihkv.importers.migration import ConflictError, FatRowsProgress, VerificationError

Row = dict[str, Any]


def draw_rows(seed: int, users: int, events: int, max_len: int, every: int = 1) -> list[Row]:
    """Requests of users in the order in which they came, each with the newest of what had happened before it.

    Every row says its true version. Times tie, events come late, items repeat; no two events are equal.
    """
    draw = random.Random(seed)
    histories: dict[int, list[tuple[int, int, float]]] = {user: [] for user in range(-1, users - 1)}
    rows = []
    for moment in range(1, events + 1):
        user = draw.choice(list(histories))
        history = histories[user]
        if draw.random() < 1 / every:
            window = history[-max_len:]
            rows.append({
                "user_id": user, "asked": 10 * moment, "label": moment % 2, "note": f"row {moment}",
                "history_ts": [event[0] for event in window], "history_item_id": [event[1] for event in window],
                "history_dwell": [event[2] for event in window], "true_version": len(history),
            })  # fmt: skip
        ts = 10 * moment + draw.choice([0, 0, 5, -10, -37])
        history.append((ts if ts >= 0 else moment, moment % 9, draw.choice([0.5, -0.0, 0.0])))
    return rows


SCHEMA = pa.schema({
    "user_id": pa.int64(), "asked": pa.int64(), "label": pa.int8(), "note": pa.string(),
    "history_ts": pa.list_(pa.int64()),
    "history_item_id": pa.list_(pa.uint16()), "history_dwell": pa.list_(pa.float32()), "true_version": pa.int64(),
})  # fmt: skip


def write(path: Path, rows: Sequence[Row], without: Sequence[str] = (), group: int = 7) -> Path:
    table = pa.Table.from_pylist(list(rows), SCHEMA).drop_columns(list(without))
    pq.write_table(table, path, row_group_size=group)
    return path


def read_examples(store: Path, slim: Path, names: Sequence[str], max_len: int) -> list[Row]:
    """Slim examples, each with the history that the store gives it, as plain values."""
    table = pq.read_table(slim)
    with Store.open(store, readonly=True) as opened, opened.snapshot() as snapshot:
        histories = snapshot.read(Pointers.from_arrow(table), Projection(list(names), max_len=max_len))
    rows = table.to_pylist()
    for at, row in enumerate(rows):
        low, high = histories.offsets[at : at + 2].tolist()
        for name in names:
            whole = histories.strings(name).to_pylist() if histories.dtype(name) == "string" else histories.values(name)
            row[f"history_{name}"] = list(whole[low:high])
    return rows


def same(found: list[Row], rows: Sequence[Row], names: Sequence[str]) -> bool:
    kept = ("label", "note", *(f"history_{name}" for name in names))
    return repr([[row[name] for name in kept] for row in _plain(found)]) == repr(
        [[row[name] for name in kept] for row in rows]
    )


def _plain(rows: list[Row]) -> list[Row]:
    return [
        {
            k: [getattr(one, "item", lambda one=one: one)() for one in v] if isinstance(v, list) else v
            for k, v in row.items()
        }
        for row in rows
    ]


def migrate(folder: Path, fat: Path, **options: Any) -> FatRowsResult:
    return import_fat_rows(fat, folder / "store", folder / "slim.parquet", shards=2, **options)


NAMES = ("ts", "item_id", "dwell")


@pytest.mark.parametrize("max_len", [3, 8, 1000])
def test_every_example_comes_back_and_resolves_to_its_version(max_len: int, tmp_path: Path, log_import: Log) -> None:
    rows = draw_rows(1, users=6, events=300, max_len=max_len)
    fat = write(tmp_path / "fat.parquet", rows)

    result = migrate(tmp_path, fat, asked="asked")

    found = read_examples(tmp_path / "store", tmp_path / "slim.parquet", NAMES, result.longest)
    assert same(found, rows, NAMES)
    assert [row["version"] for row in found] == [row["true_version"] for row in rows]
    assert (result.rows, result.examples, result.verified, result.conflicts, result.gaps) == (300, 300, 300, 0, 0)
    assert result.events == sum(
        max(row["true_version"] for row in rows if row["user_id"] == user) for user in range(-1, 5)
    )
    assert result.copied == sum(len(row["history_ts"]) for row in rows)
    slim = pq.read_table(tmp_path / "slim.parquet")
    assert slim.column_names == ["user_id", "asked", "label", "note", "true_version", "version", "last_ts"]
    with Store.open(tmp_path / "store") as store, store.snapshot() as snapshot:
        resolved = snapshot.resolve(slim["user_id"].to_numpy(), slim["asked"].to_numpy())
        assert resolved.version.tolist() == slim["version"].to_pylist()
        assert resolved.last_ts.tolist() == slim["last_ts"].to_pylist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fat.parquet", "slim.parquet", "store"]
    what = f"{result.verified} of {result.rows} rows verified, {result.copied} copied events"
    log_import(f"fat rows to {max_len}", 1, result.events, result.users, what)


def test_shuffled_rows_without_moments_are_ordered_by_their_newest_events(tmp_path: Path) -> None:
    rows = draw_rows(2, users=5, events=400, max_len=6)
    random.Random(0).shuffle(rows)
    result = migrate(tmp_path, write(tmp_path / "fat.parquet", rows, ["asked"]))
    assert result.verified == 400
    assert same(read_examples(tmp_path / "store", tmp_path / "slim.parquet", NAMES, 6), rows, NAMES)


@pytest.mark.parametrize("shuffled", [False, True])
def test_users_may_be_strings(shuffled: bool, tmp_path: Path) -> None:
    rows = draw_rows(10, users=5, events=120, max_len=4)
    if shuffled:
        random.Random(1).shuffle(rows)
    table = pa.Table.from_pylist(rows, SCHEMA).drop_columns(["asked"])
    names = pa.array([f"user {row['user_id']}" for row in rows])
    pq.write_table(table.drop_columns(["user_id"]).append_column("member", names), tmp_path / "fat.parquet")
    result = migrate(tmp_path, tmp_path / "fat.parquet", user_id="member")
    assert (result.verified, result.users) == (120, 5)
    found = read_examples(tmp_path / "store", tmp_path / "slim.parquet", NAMES, 4)
    assert same(found, rows, NAMES)
    assert [row["user_id"] for row in found] == names.to_pylist()


def test_histories_without_times_get_places_for_them(tmp_path: Path) -> None:
    rows = draw_rows(3, users=3, events=60, max_len=1000)
    fat = write(tmp_path / "fat.parquet", rows, ["asked", "history_ts"])
    result = migrate(tmp_path, fat)
    assert result.verified == 60
    names = ("item_id", "dwell")
    found = read_examples(tmp_path / "store", tmp_path / "slim.parquet", names, 1000)
    assert same(found, rows, names)
    assert all(row["last_ts"] == max(row["version"] - 1, 0) for row in found)


@given(
    seed=st.integers(0, 10**6), users=st.integers(1, 4), events=st.integers(1, 80), max_len=st.integers(1, 12),
    every=st.integers(1, 15), asked=st.booleans(), timed=st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_published_equals_the_fat_rows(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    users: int,
    events: int,
    max_len: int,
    every: int,
    asked: bool,
    timed: bool,
) -> None:
    folder = tmp_path_factory.mktemp("fat")
    rows = draw_rows(seed, users, events, max_len, every)
    without = [name for name, there in (("asked", asked), ("history_ts", timed)) if not there]
    fat = write(folder / "fat.parquet", rows, without)
    result = migrate(folder, fat, asked="asked" if asked else None, max_len=max_len)
    names = NAMES if timed else NAMES[1:]
    assert same(read_examples(folder / "store", folder / "slim.parquet", names, max_len), rows, names)
    if every == 1 and max_len > 1:
        assert result.gaps == 0


def test_gaps_between_windows_are_counted_and_the_rows_kept(tmp_path: Path) -> None:
    rows = [row for row in draw_rows(4, users=1, events=40, max_len=4) if row["true_version"] in (10, 12, 30)]
    result = migrate(tmp_path, write(tmp_path / "fat.parquet", rows), asked="asked")
    assert (result.gaps, result.events, result.verified) == (1, 4 + 2 + 4, 3)
    assert same(read_examples(tmp_path / "store", tmp_path / "slim.parquet", NAMES, 4), rows, NAMES)


def _alter(rows: list[Row], at: int, name: str, place: int, value: Any) -> list[Row]:
    changed = [dict(row) for row in rows]
    changed[at] = {**changed[at], name: [*changed[at][name]]}
    changed[at][name][place] = value
    return changed


@pytest.mark.parametrize("max_len", [5, 1000])
@pytest.mark.parametrize("place", [0, 2])
def test_rows_that_contradict_others_are_counted_and_the_first_is_named(
    max_len: int, place: int, tmp_path: Path
) -> None:
    rows = draw_rows(5, users=2, events=60, max_len=max_len)
    long = [at for at, row in enumerate(rows) if len(row["history_ts"]) >= 5]
    rows = _alter(rows, long[9], "history_item_id", place, 77)
    rows = _alter(rows, long[4], "history_dwell", place, -1.0)
    fat = write(tmp_path / "fat.parquet", rows)

    with pytest.raises(ConflictError) as refused:
        migrate(tmp_path, fat, asked="asked")

    told = str(refused.value)
    assert "2 of 60 rows" in told and f"{fat}, row {long[4]}, user {rows[long[4]]['user_id']}" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fat.parquet"]

    result = migrate(tmp_path, fat, asked="asked", on_conflict="skip")
    kept = [row for at, row in enumerate(rows) if at not in (long[4], long[9])]
    assert (result.conflicts, result.examples, result.verified) == (2, 58, 58)
    assert f"row {long[4]}" in str(result.first_conflict)
    assert same(read_examples(tmp_path / "store", tmp_path / "slim.parquet", NAMES, result.longest), kept, NAMES)


def test_a_history_that_shrinks_is_a_conflict(tmp_path: Path) -> None:
    rows = draw_rows(6, users=1, events=12, max_len=1000)
    rows[9] = {**rows[9], **{f"history_{name}": rows[9][f"history_{name}"][:3] for name in NAMES}}
    with pytest.raises(ConflictError, match=r"row 9, user -1: it shows 3 events, fewer"):
        migrate(tmp_path, write(tmp_path / "fat.parquet", rows), asked="asked")


def test_hashes_that_lie_are_found_before_anything_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = draw_rows(7, users=2, events=50, max_len=4)
    fat = write(tmp_path / "fat.parquet", rows)
    monkeypatch.setattr(migration, "hash_events", lambda columns, n: np.ones(n, np.uint64))
    with pytest.raises(VerificationError, match=r"nothing was published|resolve it again"):
        migrate(tmp_path, fat, asked="asked")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fat.parquet"]


def test_a_migration_that_is_killed_publishes_nothing(tmp_path: Path) -> None:
    rows = draw_rows(11, users=2, events=40, max_len=4)
    fat = write(tmp_path / "fat.parquet", rows)

    def die(at: FatRowsProgress) -> None:
        if at.stage == "verify":
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            migrate(tmp_path, fat, progress=die)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "store").exists() and not (tmp_path / "slim.parquet").exists()
    assert migrate(tmp_path, fat).verified == 40


def test_strings_timestamps_other_names_and_several_files(tmp_path: Path) -> None:
    moments = [np.datetime64("2024-05-01T12:00:00", "s") + n for n in range(4)]
    table = pa.table({
        "uid": pa.array([7, 7, 9, 7], pa.int32()), "label": [1, 0, 1, 0], "note": list("abcd"),
        "when": pa.array([[], moments[:1], moments[1:2], moments[:3]], pa.list_(pa.timestamp("s"))),
        "what": pa.array([[], ["x"], ["y"], ["x", "", "ü"]], pa.list_(pa.string())),
        "paid": pa.array([[], [True], [False], [True, False, True]], pa.large_list(pa.bool_())),
    })  # fmt: skip
    (tmp_path / "fat").mkdir()
    pq.write_table(table.slice(0, 2), tmp_path / "fat" / "0.parquet")
    pq.write_table(table.slice(2), tmp_path / "fat" / "1.parquet")
    history = {"when": "ts", "what": "kind", "paid": "paid"}
    result = migrate(tmp_path, tmp_path / "fat", user_id="uid", history=history)
    assert (result.files, result.events, result.users) == (2, 4, 2)
    found = read_examples(tmp_path / "store", tmp_path / "slim.parquet", ["kind", "paid", "ts"], result.longest)
    assert [row["history_kind"] for row in found] == table["what"].to_pylist()
    assert [row["version"] for row in found] == [0, 1, 1, 3]
    assert [row["history_ts"] for row in found][3] == [1000 * moment.astype(int) for moment in moments[:3]]
    with Store.open(tmp_path / "store") as store:
        assert store.schema.time_unit == "ms"  # Parquet has no timestamps in seconds


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"history_ts": [[1], None]}, {}, "row 1 is null"),
        ({"history_ts": [[1], [None, 2]]}, {}, "list in row 1 has nulls"),
        ({"history_ts": [[1], [2]]}, {}, "row 1 has 2 elements"),
        ({"user_id": [1, None]}, {}, "row 1 is null"),
        ({"user_id": [0.5, 1.5]}, {}, "integers or strings are expected"),
        ({"history_item_id": [[b"x"], [b"x", b"y"]]}, {}, "numbers, bools and strings"),
        ({"version": [1, 2]}, {}, "column 'version' already"),
        ({}, {"asked": "nope"}, "no column 'nope' for moments"),
        ({}, {"prefix": "h_"}, "its list columns are history_ts, history_item_id"),
        ({}, {"history": {"history_ts": "ts"}}, "clocks alone"),
        ({}, {"max_len": 1}, "row 1 has 2 events, max_len is 1"),
        ({}, {"max_len": 0}, "max_len is 0"),
        ({}, {"on_conflict": "ignore"}, "on_conflict is 'ignore'"),
    ],
)
def test_files_and_arguments_that_cannot_be_are_refused(
    change: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    columns = {
        "user_id": [1, 1],
        "label": [0, 1],
        "history_ts": [[1], [1, 2]],
        "history_item_id": [[5], [5, 6]],
        **change,
    }
    pq.write_table(pa.table(columns), tmp_path / "fat.parquet")
    with pytest.raises(SchemaError) as refused:
        migrate(tmp_path, tmp_path / "fat.parquet", **options)
    assert words in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fat.parquet"]


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    fat = write(tmp_path / "fat.parquet", draw_rows(8, 1, 5, 3))
    (tmp_path / "slim.parquet").write_text("mine")
    with pytest.raises(UihkvError, match="already there"):
        migrate(tmp_path, fat)
    with pytest.raises(UihkvError, match="one of the inputs"):
        import_fat_rows(fat, tmp_path / "store", fat, force=True)
    (tmp_path / "store").write_text("mine")
    with pytest.raises(StoreExistsError):
        migrate(tmp_path, fat, force=True)
    assert (tmp_path / "slim.parquet").read_text() == (tmp_path / "store").read_text() == "mine"


def test_the_command_migrates_and_refuses_in_a_line(tmp_path: Path) -> None:
    rows = draw_rows(9, users=3, events=40, max_len=4)
    fat = write(tmp_path / "fat.parquet", rows)
    done = run("import-fatrows", fat, tmp_path / "store", "-o", tmp_path / "slim.parquet", "--asked", "asked", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] == 40
    write(tmp_path / "bad.parquet", _alter(rows, 30, "history_item_id", 1, 77))
    bad = run(
        "import-fatrows", tmp_path / "bad.parquet", tmp_path / "b", "-o", tmp_path / "b.parquet", "--asked", "asked"
    )
    assert bad.returncode == 1 and "row 30" in bad.stderr and len(bad.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "b").exists() and not (tmp_path / "b.parquet").exists()
