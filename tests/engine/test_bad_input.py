"""Bad input is refused by name, with what was found and what was expected, and leaves everything as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from uihkv import Column, PointerError, Pointers, Projection, ReadOnlyError, Schema, SchemaError, Store

SCHEMA = Schema(
    [
        Column("item_id", "int64"),
        Column("action", "uint8"),
        Column("dwell", "float32", default=0.0),
        Column("flag", "bool", default=False),
        Column("tags", "int32", ragged=True, default=[]),
        Column("vec", "float16", shape=(2,), default=0.0),
    ]
)


def good_rows() -> dict[str, Any]:
    return {
        "user_id": np.array([1, 2, 1]),
        "ts": np.array([10, 20, 30]),
        "item_id": np.array([100, 200, 300]),
        "action": np.array([1, 2, 3], np.uint8),
        "dwell": np.array([0.5, np.nan, 1.5], np.float32),
        "flag": np.array([True, False, True]),
        "tags": [[1], [], [2, 3]],
        "vec": np.ones((3, 2), np.float16),
    }


def as_arrow(values: Any) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.array(values)


def changed(change: dict[str, Any]) -> dict[str, Any]:
    """Good rows with these columns instead; None takes one away."""
    return {name: values for name, values in {**good_rows(), **change}.items() if values is not None}


def as_table(change: dict[str, Any]) -> pa.Table:
    return pa.table({name: as_arrow(values) for name, values in changed(change).items()})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two users with events in chunks and tails, and a source."""
    with Store.create(tmp_path / "store", SCHEMA, shards=2, chunk_events=2) as made:
        made.append(good_rows(), backfill=True, source="log", offset=7)
        yield made


def contents(store: Store) -> tuple[object, ...]:
    """All that a store says, and the bytes of its files."""
    with store.snapshot() as snapshot:
        heads = snapshot.head([1, 2, 3])
        events = snapshot.read(heads, Projection(SCHEMA.readable))
        values = [events.values(name).tobytes() for name in events]
        versions = (heads.version.tolist(), snapshot.users().tolist())
    files = sorted(file for file in store.path.rglob("*") if file.is_file() and file.name != "lock.mdb")
    hashes = [(str(file), xxhash.xxh3_64_hexdigest(file.read_bytes())) for file in files]
    return store.stats(), versions, values, store.sources(), hashes


@contextmanager
def refused(store: Store, error: type[Exception], message: str) -> Iterator[None]:
    """Inside, this very error comes, and the store stays as it was, to the byte."""
    before = contents(store)
    with pytest.raises(error, match=message) as raised:
        yield
    assert raised.type is error
    assert contents(store) == before


LISTED = "item_id, action, dwell, flag, tags, vec"

BAD_COLUMNS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown column": (
        {"colour": [1, 2, 3]},
        rf"unknown columns \['colour'\]; the store has user_id, ts, {LISTED}",
        "",
    ),
    "visible times as a column": ({"visible_at": [1, 2, 3]}, r"pass visible times as append\(\.\.\., visible_at", ""),
    "missing column": ({"item_id": None}, "column 'item_id' is missing and has no default; give int64 values", ""),
    "missing user_id": ({"user_id": None}, "column 'user_id' is missing; every event has a user_id and a ts", ""),
    "missing ts": ({"ts": None}, "column 'ts' is missing; every event has a user_id and a ts", ""),
    "negative ts": ({"ts": [10, -5, 30]}, "column 'ts': row 1 is -5; times are 0 or more", ""),
    "ts of floats": ({"ts": [10.0, 20.0, 30.0]}, "column 'ts': float64 given, int64 is expected", ""),
    "ts with NaN": ({"ts": [10.0, np.nan, 30.0]}, "column 'ts': float64 with NaN given, int64 is expected", ""),
    "ts of dates": (
        {"ts": np.array(["2020-01-01"] * 3, "datetime64[ms]")},
        r"column 'ts': datetime64\[ms\] given, int64 is expected",
        r"column 'ts': Arrow type timestamp\[ms\] given; cast it to int64 in the store's time unit",
    ),
    "users of text": ({"user_id": ["a", "b", "c"]}, "column 'user_id': .* given, int64 is expected", ""),
    "users past int64": (
        {"user_id": np.array([1, 2**63, 3], np.uint64)},
        "column 'user_id': 9223372036854775808 does not fit int64",
        "",
    ),
    "floats for integers": ({"item_id": [1.0, 2.0, 3.0]}, "column 'item_id': float64 given, int64 is expected", ""),
    "NaN for an integer": ({"item_id": [1.0, np.nan, 3.0]}, "column 'item_id': float64 with NaN given, int64", ""),
    "text for integers": ({"item_id": ["a", "b", "c"]}, "column 'item_id': .* given, int64 is expected", ""),
    "bools for integers": ({"item_id": [True, False, True]}, "column 'item_id': bool given, int64 is expected", ""),
    "integers for bools": ({"flag": [0, 1, 1]}, "column 'flag': int64 given, bool is expected", ""),
    "text for floats": ({"dwell": ["0.5", "1", "2"]}, "column 'dwell': .* given, float32 is expected", ""),
    "too large": ({"action": [1, 256, 2]}, "column 'action': 256 does not fit uint8", ""),
    "too small": ({"action": [1, -1, 2]}, "column 'action': -1 does not fit uint8", ""),
    "far too large": ({"item_id": np.array([1, 2**64 - 1, 2], np.uint64)}, "18446744073709551615 does not fit", ""),
    "float that would be rounded": (
        {"dwell": [0.5, 0.1, 1.5]},
        r"column 'dwell': row 1 is .*0\.1.*, which float32 cannot hold exactly",
        "",
    ),
    "integer that would be rounded": (
        {"dwell": [1, 2, 2**24 + 1]},
        r"column 'dwell': row 2 is .*16777217.*, which float32 cannot hold exactly",
        "",
    ),
    "float that would be infinite": (
        {"vec": np.full((3, 2), 1e30)},
        "column 'vec': row 0 is .*, which float16 cannot hold exactly",
        "",
    ),
    "wrong shape": (
        {"vec": np.ones((3, 3), np.float16)},
        r"column 'vec' has shape \(3, 3\), \(3, 2\) is expected",
        "",
    ),
    "no shape": ({"vec": [1.0, 2.0, 3.0]}, r"column 'vec' has shape \(3,\), \(3, 2\) is expected", ""),
    "lists for numbers": (
        {"item_id": [[1, 2], [3, 4], [5, 6]]},
        r"column 'item_id' has shape \(3, 2\), \(3,\) is expected",
        r"column 'item_id': Arrow type list<.*int64> given, int64 .*expected",
    ),
    "lists of unequal length for a shape": (
        {"vec": [[1.0, 2.0], [1.0], [1.0, 2.0]]},
        "column 'vec': rows of unequal shape",
        "column 'vec': lists are not all of 2 elements",
    ),
    "numbers for lists": (
        {"tags": [1, 2, 3]},
        "column 'tags': row 0 is not a flat list",
        "column 'tags': Arrow type int64 given, a list type is expected",
    ),
    "lists of lists": (
        {"tags": [[[1]], [[2]], [[3]]]},
        "column 'tags': row 0 is not a flat list",
        "column 'tags': .*int32 is expected",
    ),
    "lists of floats": ({"tags": [[1.5], [], [2.0]]}, "column 'tags': float64 given, int32 is expected", ""),
    "lists of text": ({"tags": [["a"], [], ["b"]]}, "column 'tags': .* given, int32 is expected", ""),
    "list element that does not fit": (
        {"tags": [[1], [], [2**31]]},
        "column 'tags': 2147483648 does not fit int32",
        "",
    ),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
@pytest.mark.parametrize("form", ["numpy", "arrow"])
def test_bad_rows_are_refused_whole(store: Store, form: str, case: str) -> None:
    change, message, of_arrow = BAD_COLUMNS[case]
    data = changed(change) if form == "numpy" else as_table(change)
    with refused(store, SchemaError, of_arrow if form == "arrow" and of_arrow else message):
        store.append(data, backfill=True)


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "unequal lengths": ({"action": np.ones(2, np.uint8)}, r"column 'action' has shape \(2,\), \(3,\) is expected"),
    "unequal lengths of lists": ({"tags": [[1], [2]]}, "column 'tags' has 2 lists, 3 are expected"),
    "one number for all": ({"item_id": 5}, r"column 'item_id' has shape \(\), \(3,\) is expected"),
    "a word for all": ({"item_id": "abc"}, r"column 'item_id' has shape \(\), \(3,\) is expected"),
    "None among numbers": ({"item_id": [1, None, 3]}, "column 'item_id': object given, int64 is expected"),
    "numbers past 64 bits": ({"item_id": [1, 2**70, 3]}, "column 'item_id': object given, int64 is expected"),
    "masked values": (
        {"item_id": np.ma.masked_array([1, 2, 3], [False, True, False])},
        "column 'item_id': some values are masked; fill or drop them",
    ),
    "masked values in a list": (
        {"tags": [[1], np.ma.masked_array([1, 2], [False, True]), []]},
        "column 'tags': some values are masked; fill or drop them",
    ),
    "masked values of all lists": (
        {"tags": (np.ma.masked_array([1, 2], [False, True]), np.array([0, 1, 2, 2]))},
        "column 'tags': some values are masked; fill or drop them",
    ),
    "complex numbers": ({"dwell": [1j, 2, 3]}, "column 'dwell': complex128 given, float32 is expected"),
    "None for a list": ({"tags": [[1], None, [2]]}, "column 'tags': row 1 is not a flat list"),
    "bools among integers": ({"tags": [[True], [2], []]}, "column 'tags': some lists are of bools and some are not"),
    "offsets past the elements": (
        {"tags": (np.arange(3), np.array([0, 1, 2, 4]))},
        "column 'tags': offsets begin at 0, never fall and end at the 3 elements",
    ),
    "offsets that fall": ({"tags": (np.arange(3), np.array([0, 2, 1, 3]))}, "column 'tags': offsets begin at 0, never"),
    "offsets of floats": (
        {"tags": (np.arange(3), np.array([0.0, 1, 2, 3]))},
        "column 'tags': offsets are a flat array",
    ),
    "offsets for another number of events": (
        {"tags": (np.arange(3), np.array([0, 1, 3]))},
        "column 'tags' has 2 lists, 3 are expected",
    ),
    "a name that is no text": ({3: [1, 2, 3], "colour": [1, 2, 3]}, r"unknown columns \[3, 'colour'\]"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused_whole(store: Store, case: str) -> None:
    change, message = BAD_ARRAYS[case]
    with refused(store, SchemaError, message):
        store.append(changed(change), backfill=True)


NULL = "row 1 is null; fill or drop nulls before appending"
BAD_ARROW: dict[str, tuple[dict[str, Any], str]] = {
    "null user": ({"user_id": pa.array([1, None, 3])}, f"column 'user_id': {NULL}"),
    "null ts": ({"ts": pa.array([1, None, 3])}, f"column 'ts': {NULL}"),
    "null number": ({"item_id": pa.array([1, None, 3])}, f"column 'item_id': {NULL}"),
    "null in a later chunk": ({"item_id": pa.chunked_array([[1], [None, 3]])}, f"column 'item_id': {NULL}"),
    "null with a default": ({"dwell": pa.array([1, None, 3], pa.float32())}, f"column 'dwell': {NULL}"),
    "nothing but nulls": ({"item_id": pa.nulls(3)}, "column 'item_id': row 0 is null"),
    "null list": ({"tags": pa.array([[1], None, [2]], pa.list_(pa.int32()))}, f"column 'tags': {NULL}"),
    "null in a list": ({"tags": pa.array([[1], [None], [2]], pa.list_(pa.int32()))}, f"column 'tags': {NULL}"),
    "null array": ({"vec": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float16(), 2))}, f"column 'vec': {NULL}"),
    "null in an array": ({"vec": pa.array([[1, None], [1, 2], [3, 4]], pa.list_(pa.float16(), 2))}, "'vec': row 1 is"),
    "null in a list for an array": ({"vec": pa.array([[1, None], [1, 2], [3, 4]], pa.list_(pa.float32()))}, "'vec'"),
    "structs": ({"item_id": pa.array([{"a": 1}] * 3)}, "column 'item_id': Arrow type struct<a: int64> given, int64"),
    "decimals": ({"item_id": pa.array([1, 2, 3]).cast(pa.decimal128(20))}, "column 'item_id': .*int64 is expected"),
    "dates": ({"item_id": pa.array([1, 2, 3], pa.date32())}, "column 'item_id': .*int64 is expected"),
    "durations": ({"item_id": pa.array([1, 2, 3], pa.duration("ms"))}, r"Arrow type duration\[ms\] given; cast it"),
    "a dictionary of text": ({"item_id": pa.array(["a", "b", "a"]).dictionary_encode()}, "int64 is expected"),
    "arrays of another size": ({"vec": pa.array([[1, 2, 3]] * 3, pa.list_(pa.float16(), 3))}, r"\(3, 3\), \(3, 2\)"),
}


@pytest.mark.parametrize("case", BAD_ARROW)
def test_bad_arrow_columns_are_refused_whole(store: Store, case: str) -> None:
    change, message = BAD_ARROW[case]
    for data in (as_table(change), as_table(change).combine_chunks().to_batches()[0]):
        with refused(store, SchemaError, message):
            store.append(data, backfill=True)


def test_an_arrow_table_with_a_name_twice_is_refused(store: Store) -> None:
    table = as_table({})
    with refused(store, SchemaError, r"column names \[.*\] are not unique"):
        store.append(table.append_column("action", table.column("action")), backfill=True)


@pytest.mark.parametrize("data", [None, 5, "rows", [1, 2], np.ones(3)])
def test_what_is_no_batch_is_refused(store: Store, data: Any) -> None:
    with refused(store, SchemaError, f"{type(data).__name__} given; a mapping of numpy arrays or an Arrow table is"):
        store.append(data)


TWO = "source and offset go together; give both or neither"
BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "too few visible times": ({"visible_at": [1, 2]}, r"column 'visible_at' has shape \(2,\), \(3,\) is expected"),
    "one visible time": ({"visible_at": 5}, r"column 'visible_at' has shape \(\), \(3,\) is expected"),
    "negative visible time": ({"visible_at": [1, 2, -3]}, "column 'visible_at': row 2 is -3; times are 0 or more"),
    "visible times of floats": ({"visible_at": [1.0, 2.0, 3.0]}, "column 'visible_at': float64 given, int64"),
    "null visible time": ({"visible_at": pa.array([1, None, 3])}, f"column 'visible_at': {NULL}"),
    "visible times and backfill": (
        {"visible_at": [1, 2, 3], "backfill": True},
        "give visible_at or backfill, not both",
    ),
    "source without offset": ({"source": "log"}, TWO),
    "offset without source": ({"offset": 3}, TWO),
    "negative offset": ({"source": "log", "offset": -1}, "offset is -1; a whole number from 0 to"),
    "offset of floats": ({"source": "log", "offset": 8.0}, r"offset is 8\.0; a whole number from 0 to"),
    "offset that is a bool": ({"source": "log", "offset": True}, "offset is True; a whole number from 0 to"),
    "offset past int64": ({"source": "log", "offset": 2**63}, "offset is 9223372036854775808; a whole number"),
    "empty source": ({"source": "", "offset": 8}, "source is ''; a name of 1 to 400 bytes is expected"),
    "long source": ({"source": "é" * 201, "offset": 8}, "source is 'é+'; a name of 1 to 400 bytes is expected"),
    "source that is no text": ({"source": 5, "offset": 8}, "source is 5; a name of 1 to 400 bytes is expected"),
    "half a surrogate pair": ({"source": "\ud800", "offset": 8}, r"source is '\\ud800'; a name of 1 to 400 bytes"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_of_append_are_refused(store: Store, case: str) -> None:
    arguments, message = BAD_ARGUMENTS[case]
    with refused(store, SchemaError, message):
        store.append(good_rows(), **arguments)


def test_numpy_offsets_are_as_good_as_any(store: Store) -> None:
    assert store.append(good_rows(), backfill=True, source="log", offset=np.int64(8)).appended == 3
    assert store.sources() == {"log": 8}


def test_a_readonly_handle_refuses_rows_before_it_looks_at_them(store: Store) -> None:
    with Store.open(store.path, readonly=True) as reader:
        for data in (good_rows(), None):
            with refused(store, ReadOnlyError, "was opened with readonly=True; open it without"):
                reader.append(data)


# -- pointers, projections and snapshots ------------------------------------------------------------


def test_a_version_past_the_head_is_an_error_or_empty_by_policy(store: Store) -> None:
    asked = Pointers([2, 1, 9], [1, 3, 0])
    with store.snapshot() as snapshot:
        with pytest.raises(
            PointerError, match="row 1: user 1 has 2 events in this snapshot, the pointer names version 3"
        ):
            snapshot.read(asked)
        with pytest.raises(PointerError, match="row 0: user 9 has 0 events in this snapshot"):
            snapshot.read(Pointers([9], [1]))
        found = snapshot.read(asked, Projection(["item_id"]), on_missing="empty")
        assert found.lengths.tolist() == [1, 0, 0]
        assert found.values("item_id").tolist() == [200]
        assert asked.version.tolist() == [1, 3, 0]
        with pytest.raises(SchemaError, match="on_missing is 'skip'; 'raise' or 'empty' is expected"):
            snapshot.read(asked, on_missing="skip")  # type: ignore[arg-type]


def test_a_wrong_last_ts_is_found_out_whatever_is_read(store: Store) -> None:
    message = "row 1: event 1 of user 1 has ts 30, the pointer's last_ts is 31; the pointer is of another store"
    with store.snapshot() as snapshot:
        for asked in (Projection(), Projection(["ts"], 1), Projection(["tags"], 1), Projection(["visible_at"])):
            with pytest.raises(PointerError, match=message):
                snapshot.read(Pointers([2, 1], [1, 2], [20, 31]), asked)
        assert snapshot.read(Pointers([2, 1, 9], [1, 2, 0], [20, 30, 5])).lengths.tolist() == [1, 2, 0]


@pytest.mark.parametrize("ids", [np.arange(5), [f"user {number}" for number in range(5)]])
@pytest.mark.parametrize(
    "rows", [slice(1, 4), slice(None, None, -2), np.array([3, 0, 3]), [4, 1], np.array([True, False] * 2 + [True])]
)
def test_rows_of_pointers_are_those_of_their_columns(ids: Any, rows: Any) -> None:
    version, last_ts = np.arange(5) * 2, np.arange(5) * 3
    found = Pointers(ids, version, last_ts)[rows]
    assert found == Pointers(np.array(ids)[rows].tolist(), version[rows], last_ts[rows])
    assert all(column.flags.c_contiguous for column in (found.user_id, found.version, found.last_ts))  # type: ignore[union-attr]


def test_rows_of_pointers_that_are_no_list_are_refused() -> None:
    with pytest.raises(PointerError, match=r"shape \(2, 2\)"):
        Pointers([1, 2], [0, 0])[np.zeros((2, 2), np.int64)]


def test_an_unknown_column_is_named_with_those_that_are_there(store: Store) -> None:
    with store.snapshot() as snapshot:
        with pytest.raises(SchemaError, match=rf"column 'colour'; the store has ts, visible_at, {LISTED}"):
            snapshot.read(snapshot.head([1]), Projection(["item_id", "colour"]))
        with pytest.raises(SchemaError, match=r"column 'dwell' was not read; this projection has item_id"):
            snapshot.read(snapshot.head([1]), Projection(["item_id"])).values("dwell")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_len": 0}, "max_len is 0; 1 or more events, or None for all, is expected"),
        ({"max_len": -3}, "max_len is -3; 1 or more"),
        ({"max_len": True}, "max_len is True; 1 or more"),
        ({"max_len": 2.0}, r"max_len is 2\.0; a whole number or None is expected"),
        ({"max_len": "9"}, "max_len is '9'; a whole number or None is expected"),
        ({"max_len": np.array([1, 2])}, "max_len is .*; a whole number or None is expected"),
        ({"columns": "item_id"}, r"columns is the string 'item_id'; write columns=\['item_id'\]"),
        ({"columns": []}, "at least one column; columns=None means all"),
        ({"columns": ["ts", "ts"]}, r"columns \('ts', 'ts'\) names one of them twice"),
        ({"columns": [1]}, r"column names are strings, \(1,\) given"),
        ({"columns": 5}, "columns is 5; a list of names or None is expected"),
    ],
)
def test_a_bad_projection_is_refused_when_it_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Projection(**arguments)


def test_a_length_past_all_histories_means_all_of_them(store: Store) -> None:
    with store.snapshot() as snapshot:
        assert snapshot.read(snapshot.head([1]), Projection(max_len=2**70)).lengths.tolist() == [2]
        assert snapshot.read(snapshot.head([1]), Projection(max_len=np.int32(1))).lengths.tolist() == [1]


BAD_CALLS: dict[str, tuple[type[Exception], Any, str]] = {
    "columns for a projection": (
        SchemaError,
        lambda s: s.read(s.head([1]), ["ts"]),
        "list given as projection; a uihkv",
    ),
    "a pair for pointers": (PointerError, lambda s: s.read(([1], [1])), "tuple given; Pointers are expected"),
    "users of text": (PointerError, lambda s: s.head(["a"]), "given are string, this store's are int64"),
    "users of floats": (PointerError, lambda s: s.head([1.0]), "user_ids has dtype float64; integers are expected"),
    "users past int64": (PointerError, lambda s: s.head(np.array([2**63], ">u8")), "holds 9223372036854775808, more"),
    "users in a table": (PointerError, lambda s: s.head([[1], [2]]), r"user_ids has shape \(2, 1\); a flat array"),
    "ragged users": (PointerError, lambda s: s.head([[1], [2, 3]]), "user_ids has rows of unequal shape; a flat array"),
    "moments of floats": (PointerError, lambda s: s.resolve([1], [5.0]), "as_of has dtype float64; integers are"),
    "moments of dates": (
        PointerError,
        lambda s: s.resolve([1], np.array(["2020"], "M8[ms]")),
        "as_of has dtype datetime",
    ),
    "too few moments": (
        PointerError,
        lambda s: s.resolve([1, 2, 3], [5, 6]),
        "3 user_ids and 2 as_of; give one moment",
    ),
    "negative delay": (PointerError, lambda s: s.resolve([1], [5], delay=-1), "delay is -1; a whole number"),
    "delay of floats": (PointerError, lambda s: s.resolve([1], [5], delay=0.5), r"delay is 0\.5; a whole number"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_of_a_snapshot_is_refused(store: Store, case: str) -> None:
    error, call, message = BAD_CALLS[case]
    with store.snapshot() as snapshot, pytest.raises(error, match=message):
        call(snapshot)


def test_a_delay_past_all_times_leaves_nothing_visible(store: Store) -> None:
    with store.snapshot() as snapshot:
        for delay in (2**62, 2**63 - 1, 2**63, 2**80):
            assert snapshot.resolve([1, 2], [2**63 - 1, 0], delay=delay).version.tolist() == [
                2 * (delay < 2**63 - 31),
                0,
            ]


@pytest.mark.parametrize("verify", ["often", "", None, ["once"], 1])
def test_an_unknown_way_of_verifying_is_refused(store: Store, verify: Any) -> None:
    with pytest.raises(SchemaError, match=re.escape(f"verify is {verify!r}; one of never, once, always is expected")):
        store.snapshot(verify=verify)


BAD_PADDING: list[tuple[dict[str, Any], str]] = [
    ({"length": 0}, "length is 0; a whole number of 1 or more is expected"),
    ({"length": 2.5}, r"length is 2\.5; a whole number"),
    ({"length": True}, "length is True; a whole number"),
    ({"length": None}, "length is None; a whole number"),
    ({"side": "up"}, "side is 'up'; 'left' or 'right' is expected"),
    ({"name": "tags"}, "column 'tags' is ragged; pad its lists yourself"),
    ({"name": "colour"}, "column 'colour' was not read"),
    ({"value": 256}, "value is 256, which uint8 cannot hold"),
    ({"value": -1}, "value is -1, which uint8 cannot hold"),
    ({"value": float("nan")}, "value is nan, which uint8 cannot hold"),
    ({"value": 1.5}, r"value is 1\.5, which uint8 cannot hold"),
    ({"value": [1, 2, 3]}, r"value is \[1, 2, 3\], which uint8 cannot hold"),
    ({"value": [[1], [2, 3]]}, "which uint8 cannot hold"),
    ({"value": None}, "value is None, which uint8 cannot hold"),
    ({"name": "flag", "value": 2}, "value is 2, which bool cannot hold"),
]


@pytest.mark.parametrize(("change", "message"), BAD_PADDING)
def test_a_bad_padding_is_refused(store: Store, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"name": "action", "length": 3} | change
    with store.snapshot() as snapshot:
        histories = snapshot.read(snapshot.head([1, 2, 3]))
    with pytest.raises(SchemaError, match=message):
        histories.padded(**arguments)
