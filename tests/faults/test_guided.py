"""Inputs that a fuzzer found, and some that it would look at: parsers refuse them by errors with a name.

``UIHKV_FUZZ_CASES`` sets how many random changes each parser is given; ``python -m perf.guided`` goes by coverage.
"""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loader import ParquetExamples
from perf.guidedtargets import MARKS, TARGETS, Target, attempt, fuzz_blindly, make_marker
from uihkv import Column, FormatError, PointerError, Pointers, Schema, SchemaError, Store
from uihkv.ingest import ingest

FOUND = Path(__file__).parent / "found"
CASES = int(os.environ.get("UIHKV_FUZZ_CASES", "150"))


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_refuses_what_is_not_its_own_by_name(name: str) -> None:
    counts = fuzz_blindly(TARGETS[name], seconds=3600, seed=4, cases=CASES)
    assert counts.total() >= CASES
    assert any(not word.startswith("refused") for word in counts)  # seeds are read
    assert any(word.startswith("refused") for word in counts)


def test_an_error_without_a_name_of_ours_is_a_finding() -> None:
    def run(data: bytes) -> tuple[str, list[int]]:
        return "read", [{b"\0": 1}[data]]

    assert attempt(Target(lambda: [b"\0"], run), b"\0") == ("read", [1])
    with pytest.raises(KeyError) as found:
        fuzz_blindly(Target(lambda: [b"\0"], run), seconds=60)
    assert "the input" in found.value.__notes__[0]
    mark = make_marker()
    assert [mark(number) for number in (0, MARKS - 1, MARKS)] == [0, MARKS - 1, -1]


def test_pointers_of_a_table_with_one_name_twice_are_refused() -> None:
    table = pa.table([[1], [2], [3]], names=["user_id", "version", "user_id"])
    with pytest.raises(PointerError, match="'user_id' stands more than once"):
        Pointers.from_arrow(table)


def test_a_parquet_file_whose_names_are_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    columns = {"user_id": [1], "version": [0], "ts": [1], "item_id": [1], "labelled": [1]}
    pq.write_table(pa.table(columns), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"labelled", b"\x94abelled"))
    with pytest.raises(SchemaError, match="cannot be read as Parquet"):
        ParquetExamples(path)
    with (
        Store.create(tmp_path / "store", Schema([Column("item_id", "int64")]), shards=1) as store,
        pytest.raises(FormatError, match="cannot be read as Parquet"),
    ):
        ingest(store, path)


def test_a_parquet_file_whose_row_group_lies_about_its_rows_takes_no_memory() -> None:
    """62 milliards of rows in a file of two."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SchemaError, match="cannot be read as Parquet"):
        ParquetExamples(FOUND / "lying-row-count.parquet")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize(("claimed", "words"), [(3, "other rows than"), (1, "other rows than"), (1 << 45, "no memory")])
def test_a_parquet_file_whose_footer_lies_about_its_rows_is_refused(tmp_path: Path, claimed: int, words: str) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"user_id": [1, 2], "version": [0, 0]}), path, store_schema=False)
    varint, left = b"", 2 * claimed  # as Thrift writes an int64
    while left > 127:
        varint, left = varint + bytes([left & 127 | 128]), left >> 7
    whole = path.read_bytes()
    lying = whole.replace(b"\x16\x04\x19\x1c", b"\x16" + varint + bytes([left]) + b"\x19\x1c")
    size = int.from_bytes(lying[-8:-4], "little") + len(lying) - len(whole)
    path.write_bytes(lying[:-8] + size.to_bytes(4, "little") + lying[-4:])
    assert pq.read_metadata(path).num_rows == claimed
    with pytest.raises(SchemaError, match=words):
        ParquetExamples(path)


def test_a_parquet_file_that_pyarrow_cannot_show_a_column_of_does_not_end_the_process() -> None:
    """Its footer says of a column what pyarrow's view of that column aborts on, in 25.0: nobody may look there."""
    with pytest.raises(SchemaError, match="cannot be read as Parquet"):
        ParquetExamples(FOUND / "column-histogram.parquet")


def test_random_changes_are_the_same_again() -> None:
    from perf.guidedtargets import change

    seeds = [b"abc", b"defgh"]
    assert [change(b"abcdef", seeds, random.Random(3)) for _ in range(2)] == [
        change(b"abcdef", seeds, random.Random(3)) for _ in range(2)
    ]
