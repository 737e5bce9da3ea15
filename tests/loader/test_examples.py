"""Examples from arrays, Arrow tables and Parquet files, and all that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from loader import ArrayExamples, Examples, ParquetExamples
from tests.loader.conftest import EXAMPLES, World
from uihkv import PointerError, Pointers, SchemaError

GOOD: dict[str, Any] = {"user_id": [1, 2], "version": [0, 3], "label": [0.5, 1.0]}


def test_parquet_gives_what_arrays_give(world: World, parquet: Path) -> None:
    arrays, file = world.examples, ParquetExamples(parquet)
    assert isinstance(arrays, Examples)
    assert isinstance(file, Examples)
    assert len(file) == len(arrays) == EXAMPLES
    assert file.columns == arrays.columns == ("label", "row", "candidate")
    assert file.fingerprint == arrays.fingerprint
    indices = np.array([50, 3, 3, 21])
    pointers, columns = file.take(indices)
    expected_pointers, expected = arrays.take(indices)
    assert pointers == expected_pointers
    for name, array in expected.items():
        assert columns[name].dtype == array.dtype
        assert np.array_equal(columns[name], array)
    assert columns["candidate"].shape == (4, 3)


def test_arrow_table_and_separate_pointers(world: World, parquet: Path) -> None:
    assert ArrayExamples(pq.read_table(parquet)).fingerprint == world.examples.fingerprint
    columns = {name: world.columns[name] for name in ("label", "row", "candidate")}
    pointers = Pointers(world.columns["user_id"], world.columns["version"], world.columns["last_ts"])
    assert ArrayExamples(columns, pointers=pointers).fingerprint == world.examples.fingerprint
    with pytest.raises(SchemaError, match="given twice"):
        ArrayExamples(world.columns, pointers=pointers)


def test_several_files_and_folders_are_read_in_order(world: World, tmp_path: Path) -> None:
    table = pa.table({"user_id": world.columns["user_id"], "version": world.columns["version"]})
    for part in range(3):
        pq.write_table(table.slice(part * 20, 20), tmp_path / f"part-{part}.parquet")
    whole = ArrayExamples({"user_id": world.columns["user_id"], "version": world.columns["version"]})
    assert ParquetExamples(tmp_path).fingerprint == whole.fingerprint
    paths = [tmp_path / f"part-{part}.parquet" for part in range(3)]
    assert ParquetExamples(paths).fingerprint == whole.fingerprint
    assert ParquetExamples(paths[::-1]).fingerprint != whole.fingerprint


def test_only_named_columns_are_taken(parquet: Path) -> None:
    assert ParquetExamples(parquet, columns=["label"]).columns == ("label",)
    assert ParquetExamples(parquet, columns=[]).columns == ()
    with pytest.raises(SchemaError, match=r"no columns.*nope"):
        ParquetExamples(parquet, columns=["nope"])


def test_last_ts_may_be_missing() -> None:
    pointers, columns = ArrayExamples(GOOD).take(np.array([1]))
    assert pointers.last_ts is None
    assert columns["label"].tolist() == [1.0]


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.uint16, np.uint32, np.uint64, np.float16, np.float64])
def test_columns_keep_their_type(kind: type) -> None:
    examples = ArrayExamples(GOOD | {"x": np.ones(2, kind)})
    assert examples.take(np.array([0]))[1]["x"].dtype == kind


def test_foreign_byte_order_and_strides_are_straightened() -> None:
    examples = ArrayExamples(GOOD | {"x": np.arange(4, dtype=">i4")[::2]})
    values = examples.take(np.array([0, 1]))[1]["x"]
    assert values.dtype == np.int32
    assert values.dtype.isnative
    assert values.tolist() == [0, 2]


def test_fingerprint_follows_pointers_and_shapes() -> None:
    fingerprint = ArrayExamples(GOOD).fingerprint
    assert ArrayExamples(GOOD).fingerprint == fingerprint
    for other in ({"version": [0, 4]}, {"user_id": [1, 3]}, {"last_ts": [0, 9]}, {"label": [1, 2]}, {"more": [1, 2]}):
        assert ArrayExamples(GOOD | other).fingerprint != fingerprint


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"user_id": None}, SchemaError, "'user_id'"),
    ({"version": [0, -1]}, PointerError, "negative"),
    ({"version": [0.0, 1.0]}, PointerError, "integers"),
    ({"user_id": [0.5, 1.5]}, PointerError, "user_id has dtype float64"),
    ({"user_id": ["a", 1]}, PointerError, "not all of the ids are str"),
    ({"version": [1]}, SchemaError, "unequal lengths"),
    ({"label": ["x", "y"]}, SchemaError, "leave it out"),
    ({"label": np.array([1, None])}, SchemaError, "'label'"),
    ({"label": [[1], [1, 2]]}, SchemaError, "not rectangular"),
    ({"label": 3}, SchemaError, "single value"),
    ({"label": torch.ones(2, requires_grad=True)}, SchemaError, "Tensor that is no array here"),
    ({"label": np.array([1, 2], "datetime64[s]")}, SchemaError, "'label'"),
    ({"label": np.ma.masked_array([1, 2], [True, False])}, SchemaError, "masked"),
    ({"label": pa.array([1, None])}, SchemaError, "1 nulls"),
    ({"user_id": [], "version": [], "label": []}, SchemaError, "no examples"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arrays_are_refused_by_name(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ArrayExamples(GOOD | change)


@pytest.mark.parametrize("missing", ["user_id", "version"])
def test_missing_pointer_column_is_named(missing: str) -> None:
    with pytest.raises(SchemaError, match=f"no column '{missing}'"):
        ArrayExamples({name: values for name, values in GOOD.items() if name != missing})


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, None]), "nulls"),
        (pa.array(["a", "b"]), "string.*leave it out"),
        (pa.array([[1], [1, 2]]), "1 to 2 elements"),
        (pa.array([[1], [None]]), "nulls in its lists"),
        (pa.array([[[1]], [[2]]]), "list"),
        (pa.array([1, 2], pa.timestamp("ms")), "cast it to int64"),
    ],
)
def test_bad_parquet_columns_are_refused_by_name(column: pa.Array, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"user_id": [1, 2], "version": [0, 0], "odd": column}), path)
    with pytest.raises(SchemaError, match=f"'odd'.*{message}"):
        ParquetExamples(path)
    assert len(ParquetExamples(path, columns=[])) == 2


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="does not exist"):
        ParquetExamples(tmp_path / "nothing.parquet")
    with pytest.raises(SchemaError, match=r"without \*.parquet"):
        ParquetExamples(tmp_path)
    (tmp_path / "text.parquet").write_text("not Parquet")
    with pytest.raises(SchemaError, match="cannot be read as Parquet"):
        ParquetExamples(tmp_path)
    pq.write_table(pa.table({"user_id": [1], "version": [0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": [1], "version": [0], "more": [1]}), tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match="give files alike"):
        ParquetExamples([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    pq.write_table(
        pa.table({"user_id": pa.array([], "int64"), "version": pa.array([], "int64")}), tmp_path / "c.parquet"
    )
    with pytest.raises(SchemaError, match="no examples"):
        ParquetExamples(tmp_path / "c.parquet")
