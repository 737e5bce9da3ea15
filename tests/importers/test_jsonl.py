"""JSON lines by a mapping: nested fields, defaults, clocks of every unit, lists, and lines that do not fit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.importers.conftest import Log
from uihkv import Column, Pointers, Projection, Schema, SchemaError, Store
from uihkv.importers import ImportProgress, import_log

SCHEMA = Schema(
    [
        Column("item_id", "int64"), Column("dwell", "float32", default=0.5), Column("half", "float16", default=0),
        Column("tags", "int32", ragged=True, default=()), Column("vec", "float32", shape=(2,), default=0),
        Column("paid", "bool", default=False),
    ],
    time_unit="ms",
)  # fmt: skip
RENAME = {"who.id": "user_id", "when": "ts", "what.product.id": "item_id"}
LINES: list[dict[str, Any]] = [
    {"who": {"id": 7, "name": "x"}, "when": "2024-05-01T12:00:00.250Z", "what": {"product": {"id": 3}}, "dwell": 0.1},
    {"who": {"id": 7}, "when": "2024-05-01T14:00:00+02:00", "what": {"product": {"id": 4}}, "tags": [1, 2],
     "half": 0.1},
    {"who": {"id": 9}, "when": "2024-05-01 12:00:01", "what": {"product": {"id": 5}}, "vec": [1, 2.5],
     "paid": True, "z": []},
]  # fmt: skip


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path, users: list[int]) -> Any:
    with Store.open(path, readonly=True) as store, store.snapshot() as snapshot:
        return snapshot.read(
            Pointers(users, snapshot.head(users).version), Projection(["ts", "visible_at", *store.schema.names])
        )


def test_nested_fields_defaults_lists_and_iso_times(tmp_path: Path, log_import: Log) -> None:
    file = write(tmp_path / "log.jsonl", LINES)
    import_log("jsonl", tmp_path / "store", file, columns=SCHEMA, rename=RENAME, time="iso", shards=1)
    found = read(tmp_path / "store", [7, 9])
    assert found.lengths.tolist() == [2, 1]
    noon = 1_714_564_800_000
    assert found.values("ts").tolist() == [
        noon + 250,
        noon,
        noon + 1000,
    ]  # rows are arrival order: a late event stays late
    assert found.values("visible_at").tolist() == [noon + 250, noon + 250, noon + 1000]
    assert found.values("item_id").tolist() == [3, 4, 5]
    assert found.values("dwell").tolist() == [np.float32(0.1), 0.5, 0.5]
    assert found.values("half").tolist() == [0, np.float16(0.1), 0]
    assert found.values("vec").tolist() == [[0, 0], [0, 0], [1, 2.5]]
    assert found.values("paid").tolist() == [False, False, True]
    values, _, lists = found["tags"]
    assert (values.tolist(), lists.tolist()) == ([1, 2], [0, 0, 2, 2])
    first = tuple(found.values(name)[0].tolist() for name in ("ts", "visible_at", "item_id", "dwell"))
    log_import("jsonl", 1, 3, 2, f"user 7: {first}")


def test_an_import_killed_at_a_batch_is_completed_by_the_next(tmp_path: Path) -> None:
    lines = [{"user_id": n % 3, "ts": 100 - n, "item_id": n} for n in range(30)]
    file = write(tmp_path / "log.jsonl", lines)

    def die(at: ImportProgress) -> None:
        if at.stage == "write" and at.events >= 14:
            os.kill(os.getpid(), signal.SIGKILL)

    options: dict[str, Any] = {"columns": SCHEMA, "shards": 2, "batch_rows": 7, "source": "log"}
    child = os.fork()
    if not child:
        try:
            import_log("jsonl", tmp_path / "store", file, progress=die, **options)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    again = import_log("jsonl", tmp_path / "store", file, **options)
    assert (again.appended, again.replayed) == (16, 14)
    found = read(tmp_path / "store", [0, 1, 2])
    assert found.values("item_id").tolist() == [*range(0, 30, 3), *range(1, 30, 3), *range(2, 30, 3)]


@pytest.mark.parametrize(("unit", "tick"), [(None, 1714564800250), ("s", 1714564800), ("us", 1714564800250000)])
def test_times_of_other_units_become_the_stores(unit: str | None, tick: int, tmp_path: Path) -> None:
    file = write(tmp_path / "log.jsonl", [{"user_id": 1, "ts": tick, "item_id": 2, "seen": tick}])
    import_log("jsonl", tmp_path / "store", file, columns=SCHEMA, time=unit, visible_at="seen", shards=1)
    found = read(tmp_path / "store", [1])
    assert (
        found.values("ts").tolist()
        == found.values("visible_at").tolist()
        == [1714564800250 // 1000 * 1000 + (unit != "s") * 250]
    )


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ({"ts": 1, "item_id": 2}, {}, "user_id is missing"),
        ({"user_id": 1, "ts": 1}, {}, "item_id is missing"),
        ({"user_id": 1, "ts": 1, "item_id": 2.5}, {}, "2.5"),
        ({"user_id": 1, "ts": 1, "item_id": 2, "tags": [1, None]}, {}, "tags is missing"),
        ({"user_id": 1, "ts": 1, "item_id": 2, "tags": [1 << 40]}, {}, "couldn't parse"),
        ({"user_id": 1, "ts": 1, "item_id": 2, "vec": [1]}, {}, "has not 2 elements"),
        ({"user_id": 1, "ts": 1500, "item_id": 2}, {"time": "us"}, "not whole in ms"),
        ({"user_id": 1, "ts": "yesterday", "item_id": 2}, {"time": "iso"}, "yesterday"),
        ({"user_id": 1, "ts": 1 << 62, "item_id": 2}, {"time": "s"}, "overflow"),
    ],
)
def test_a_line_that_does_not_fit_is_named(
    line: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    good = {"user_id": 1, "ts": "2024-01-01T00:00:00" if options.get("time") == "iso" else 1000, "item_id": 2}
    file = write(tmp_path / "log.jsonl", [good, good, line, good])
    with pytest.raises(SchemaError) as refused:
        import_log("jsonl", tmp_path / "store", file, columns=SCHEMA, **options)
    assert f"{file}, line 3: " in str(refused.value) and words in str(refused.value)
    assert not (tmp_path / "store").exists()
    assert import_log("jsonl", tmp_path / "store", file, columns=SCHEMA, on_bad="skip", **options).skipped == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rename": {"a": "nope"}}, "nope"), ({"rename": {"a": "ts", "b": "ts"}}, "two fields"),
        ({"time": "min"}, "min"),
        ({"rename": {"item_id.x": "ts"}}, "item_id"), ({"columns": "x"}, "Schema is expected"),
    ],
)  # fmt: skip
def test_mappings_that_cannot_be_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = write(tmp_path / "log.jsonl", [])
    with pytest.raises(SchemaError, match=words):
        import_log("jsonl", tmp_path / "store", file, **{"columns": SCHEMA, **options})


def test_string_users_and_columns(tmp_path: Path) -> None:
    schema = Schema([Column("page", "string", default="?"), Column("half", "bfloat16")], user_id="string")
    lines = [{"user_id": f"user {n % 3}", "ts": 100 - n, "half": 0.5, "page": f"/{n}"} for n in range(9)]
    del lines[4]["page"]
    file = write(tmp_path / "log.jsonl", lines)
    import_log("jsonl", tmp_path / "store", file, columns=schema, shards=2)
    found = read(tmp_path / "store", ["user 0", "user 1", "user 9"])  # type: ignore[list-item]
    rows = [0, 3, 6, 1, 4, 7]
    assert found.strings("page").to_pylist() == [lines[row].get("page", "?") for row in rows]
    assert found.dtype("half") == "bfloat16"
