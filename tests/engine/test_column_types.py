"""Columns beyond numpy's numbers: bfloat16, bytes and strings, in every form in which they are given, and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from loader import ArrayExamples, Loader
from uihkv import Column, Histories, Projection, Schema, SchemaError, Store
from uihkv.ingest import ingest

NAMES = ["click", "", "vue €", "click", "a\0b"]
RAW = [name.encode() for name in NAMES]


def store_of(tmp_path: Path, *columns: Column, **options: Any) -> Store:
    return Store.create(tmp_path / "store", Schema(columns), shards=2, **options)


def append(store: Store, n: int = len(NAMES), **columns: Any) -> None:
    store.append({"user_id": np.full(n, 7), "ts": np.arange(n), **columns}, backfill=True)


def read(store: Store, **asked: Any) -> Histories:
    with store.snapshot() as snapshot:
        return snapshot.read(snapshot.head([7]), Projection(**asked))


def objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


FORMS = {
    "list of str": NAMES,
    "tuple of bytes": tuple(RAW),
    "str objects": objects(NAMES),
    "bytes objects": objects(RAW),
    "U": np.array(NAMES),
    "S": np.array(RAW),
    "StringDType": np.array(NAMES, np.dtypes.StringDType()),
    "string": pa.array(NAMES),
    "large_string": pa.array(NAMES, pa.large_string()),
    "string_view": pa.array(NAMES).cast(pa.string_view()),
    "binary": pa.array(RAW),
    "large_binary": pa.array(RAW, pa.large_binary()),
    "binary_view": pa.array(RAW, pa.binary_view()),
    "dictionary": pa.array(NAMES).dictionary_encode(),
    "slice": pa.array(["zz", *NAMES, "zz"]).slice(1, 5),
    "chunked": pa.chunked_array([NAMES[:2], NAMES[2:]]),
    "chunked dictionary": pa.chunked_array([NAMES[:2], NAMES[2:]]).dictionary_encode(),
    "pair": (np.frombuffer(b"".join(RAW), np.uint8), np.append(0, np.cumsum([len(raw) for raw in RAW]))),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["string", "bytes"])
def test_byte_strings_are_taken_in_every_form(tmp_path: Path, form: str, dtype: str) -> None:
    with store_of(tmp_path, Column("name", dtype), chunk_events=3) as store:
        append(store, name=FORMS[form])
        found = read(store, columns=["name"])
        values, offsets, inner = found["name"]  # type: ignore[misc]
    assert found.strings("name").to_pylist() == (NAMES if dtype == "string" else RAW)
    assert values.tobytes() == b"".join(RAW)
    assert (offsets.tolist(), len(inner)) == ([0, 5], 6)
    assert found.strings("name").buffers()[2].address == values.ctypes.data  # not a copy


def test_what_was_read_can_be_appended_again(tmp_path: Path) -> None:
    with store_of(tmp_path, Column("name", "string")) as store:
        append(store, name=NAMES)
        values, _, inner = read(store, columns=["name"])["name"]  # type: ignore[misc]
        append(store, name=(values, inner))
        assert read(store).strings("name").to_pylist() == NAMES * 2


@pytest.mark.parametrize(
    ("dtype", "values", "words"),
    [
        ("string", [b"\xff"] * 5, "utf8"),
        ("string", pa.array([b"a", b"b", b"\xff", b"c", b"d"]), "row 2 is not valid UTF-8"),
        ("string", (np.full(5, 255, np.uint8), np.arange(6)), "row 0 is not valid UTF-8"),
        ("string", ["\ud800"] * 5, "surrogates"),
        ("string", [1] * 5, "int"),
        ("bytes", ["a", "b", None, "c", "d"], "row 2 is null"),
        ("bytes", np.arange(5), "int64 given"),
        ("bytes", pa.array([1, 2, 3, 4, 5]), "Arrow type int64"),
        ("bytes", "abcde", "a list or array"),
        ("bytes", NAMES[:4], "4 values, 5 are expected"),
        ("bytes", np.array(RAW).reshape(5, 1), "shape"),
        ("bytes", (np.zeros(3, np.uint8), np.arange(6)), "end at the 3 bytes"),
        ("bytes", [[b"a"]] * 5, "list"),
    ],
)
def test_what_is_no_byte_string_is_refused_whole(tmp_path: Path, dtype: str, values: Any, words: str) -> None:
    with store_of(tmp_path, Column("name", dtype)) as store:
        with pytest.raises(SchemaError, match=words) as refused:
            append(store, name=values)
        assert "'name'" in str(refused.value)
        assert store.stats().events == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "string", "ragged": True}, "one value of string"),
        ({"dtype": "bytes", "shape": (2,)}, "one value of bytes"),
        ({"dtype": "string", "default": b"a"}, "not a str"),
        ({"dtype": "bytes", "default": "a"}, "not a bytes"),
        ({"dtype": "string", "default": "\udc00"}, "no UTF-8"),
        ({"dtype": "bfloat16", "default": "a"}, "not a single bfloat16"),
        ({"dtype": "bfloat16", "default": 1e39}, "cannot hold"),
        ({"dtype": "bfloat16", "default": 257}, "cannot hold"),
    ],
)
def test_columns_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        Column("c", **options)


def test_older_events_read_as_the_default_and_dropped_strings_are_gone(tmp_path: Path) -> None:
    with store_of(tmp_path, Column("item", "int64"), chunk_events=3) as store:
        append(store, item=np.arange(5))
        store.add_column(Column("name", "string", default="näh"))
        store.add_column(Column("raw", "bytes", default=b"\xff"))
        append(store, item=np.arange(5), name=NAMES)
        found = read(store)
        assert found.strings("name").to_pylist() == ["näh"] * 5 + NAMES
        assert found.strings("raw").to_pylist() == [b"\xff"] * 10
        assert read(store, where={"name": {"näh"}}).lengths.tolist() == [5]
        assert read(store, where={"raw": {b"\xff"}, "name": {"click"}}).lengths.tolist() == [2]
        store.drop_column("name")
        append(store, item=np.arange(5), raw=RAW)
        with Store.open(store.path) as again:
            assert read(again).strings("raw").to_pylist() == [b"\xff"] * 10 + RAW


def test_a_condition_names_accepted_strings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = rng.choice(["click", "view", "buy", "", "Ω"], 500)
    with store_of(tmp_path, Column("name", "string"), Column("raw", "bytes"), chunk_events=32) as store:
        append(store, 500, name=names, raw=names)
        for wanted in ({"click"}, {"click", "view"}, {"", "Ω", "nothing"}, {"nothing"}, {f"n{n}" for n in range(300)}):
            rows = np.flatnonzero(np.isin(names, list(wanted)))
            for where in ({"name": wanted}, {"raw": {value.encode() for value in wanted}}):
                found = read(store, columns=["ts", "name"], where=where)
                assert found.values("ts").tolist() == rows.tolist()
                assert found.strings("name").to_pylist() == names[rows].tolist()
        newest = read(store, columns=["ts"], where={"name": {"buy"}, "ts": (None, 400)}, max_len=7)
        assert newest.values("ts").tolist() == [row for row in np.flatnonzero(names == "buy") if row <= 400][-7:]
        for where, words in (
            ({"name": ("a", "b")}, "'a'"),
            ({"name": (1, 2)}, "a set of str"),
            ({"name": {b"click"}}, "a set of str"),
            ({"name": {1}}, "a set of str"),
            ({"name": {"a", 1}}, "'a'"),
            ({"raw": {"click"}}, "a set of bytes"),
            ({"ts": {"click"}}, "int64"),
            ({"name": {"\ud800"}}, "no UTF-8"),
        ):
            with pytest.raises(SchemaError, match=words):
                read(store, where=where)


def test_strings_are_for_strings_and_padding_is_not(tmp_path: Path) -> None:
    columns = [Column("name", "string"), Column("small", "uint8", ragged=True)]
    with store_of(tmp_path, *columns) as store:
        append(store, name=NAMES, small=[[1]] * 5)
        found = read(store)
    with pytest.raises(SchemaError, match="'small' is uint8"):
        found.strings("small")
    with pytest.raises(SchemaError, match="ragged"):
        found.padded("name", 3)


def test_strings_come_from_parquet_and_reach_the_trainer(tmp_path: Path) -> None:
    table = {"user_id": [7] * 5, "ts": range(5), "name": pa.array(NAMES).dictionary_encode(), "half": [0.5] * 5}
    pq.write_table(pa.table({**table, "half": pa.array([0.5] * 5, pa.float32())}), tmp_path / "log.parquet")
    columns = [Column("name", "string"), Column("half", "bfloat16"), Column("late", "bytes", default=b"x")]
    with store_of(tmp_path, *columns) as store:
        assert ingest(store, tmp_path / "log.parquet").appended == 5
        examples = ArrayExamples({"user_id": np.array([7, 7, 8]), "version": np.array([5, 2, 0])})
        with Loader(store, examples, Projection(), batch_size=3, shuffle=False) as batches:
            [batch] = list(batches)
    name = batch.history["name"]
    assert (name.values.dtype, name.offsets.tolist()) == (torch.uint8, [0, 5, 7, 7])
    assert bytes(name.values.tolist()) == b"".join(RAW) + b"".join(RAW[:2])
    assert name.element_offsets is not None
    assert torch.diff(name.element_offsets).tolist() == [len(raw) for raw in RAW + RAW[:2]]
    half = batch.history["half"]
    assert half.values.dtype == torch.bfloat16
    padded = half.padded(3, value=-1.0)
    assert padded.tolist() == [[0.5] * 3, [-1.0, 0.5, 0.5], [-1.0] * 3]


def bits(numbers: Any) -> np.ndarray:
    return (np.asarray(numbers, np.float32).view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bfloat16_takes_exact_floats_and_bit_patterns(tmp_path: Path, dtype: str) -> None:
    numbers = [1.5, -0.0, np.inf, np.nan, 96.0]
    columns = [
        Column("a", "bfloat16"), Column("b", "bfloat16"), Column("vec", "bfloat16", shape=(2,)),
        Column("tags", "bfloat16", ragged=True), Column("late", "bfloat16", default=-2.5),
    ]  # fmt: skip
    with store_of(tmp_path, *columns) as store:
        given = np.array(numbers, dtype)
        append(store, a=given, b=bits(numbers), vec=np.tile(given[:, None], 2), tags=[given[:n] for n in range(5)])
        found = read(store)
        assert found.dtype("a") == "bfloat16"
        for name in ("a", "b"):
            values = torch.from_numpy(found.values(name)).view(torch.bfloat16)
            torch.testing.assert_close(values.double(), torch.tensor(numbers).double(), equal_nan=True, rtol=0, atol=0)
        assert found.values("a").tobytes() == found.values("b").tobytes()
        assert found.values("vec")[:, 1].tobytes() == found.values("a").tobytes()
        assert found.values("tags").tolist() == [one for n in range(5) for one in bits(numbers)[:n].tolist()]
        assert found.values("late").tolist() == bits([-2.5] * 5).tolist()
        assert found.padded("a", 6, value=1.5)[0, 0] == bits(1.5)
        assert read(store, columns=["ts"], where={"a": {1.5}}).values("ts").tolist() == [0]
        assert read(store, columns=["ts"], where={"a": (None, 96.0)}).values("ts").tolist() == [0, 1, 4]
        with pytest.raises(SchemaError, match="bfloat16 cannot hold"):
            found.padded("a", 6, value=0.1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, 1.0, 1.001, 1.0, 1.0], "row 2"),
        (np.full(5, 1e39), "row 0"),
        ([1, 2, 3, 4, 5], "int64 given"),
        (torch.ones(5, dtype=torch.bfloat16), "Tensor given"),
    ],
)
def test_bfloat16_refuses_what_would_change(tmp_path: Path, values: Any, words: str) -> None:
    with store_of(tmp_path, Column("a", "bfloat16")) as store, pytest.raises(SchemaError, match=words):
        append(store, a=values)


def test_bfloat16_takes_a_library_s_own_type(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with store_of(tmp_path, Column("a", "bfloat16"), Column("tags", "bfloat16", ragged=True)) as store:
        given = np.array([1.5, -0.0, np.inf, 0.1, 96.0]).astype(ml_dtypes.bfloat16)
        append(store, a=given, tags=[given[:n] for n in range(5)])
        assert read(store).values("a").view(ml_dtypes.bfloat16).tobytes() == given.tobytes()


def test_a_schema_file_names_the_new_types(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(
        '[columns]\nname = { dtype = "string", default = "web" }\nraw = "bytes"\nhalf = "bfloat16"\n'
    )
    schema = Schema.from_toml(tmp_path / "schema.toml")
    assert [(column.dtype, column.default) for column in schema.columns] == [
        ("string", "web"), ("bytes", None), ("bfloat16", None),
    ]  # fmt: skip
    assert Schema.from_description(schema.describe()) == schema


@pytest.mark.parametrize("chunk_events", [8, 400])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_a_condition_takes_a_number_as_the_column_holds_it(tmp_path: Path, dtype: str, chunk_events: int) -> None:
    """However chunks cut the events: zones hold float64, in which 0.3 is another number."""
    stored = bits([0.30078125] * 400) if dtype == "bfloat16" else np.full(400, 0.3, dtype)
    schema = Schema([Column("a", dtype)])
    with Store.create(tmp_path / "s", schema, shards=1, chunk_events=chunk_events) as store:
        append(store, 400, a=stored)
        for wanted in ({0.3}, (0.3, 0.3), (None, 0.3), (0.3, None), (-1e300, 1e300)):
            assert len(read(store, columns=["ts"], where={"a": wanted}).values("ts")) == 400
        for wanted in ({0.31, 1e300}, (None, 0.29), (0.31, None), (1e300, None), (None, -1e300)):
            assert len(read(store, columns=["ts"], where={"a": wanted}).values("ts")) == 0
        with pytest.raises(SchemaError, match="more than any float"):
            read(store, where={"a": {10**400}})
        with pytest.raises(SchemaError, match=r"holds '0\.3'; the column is float"):
            read(store, where={"a": {"0.3"}})
