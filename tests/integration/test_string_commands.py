"""Users with string ids where work is shared or killed, and on the command line: the same as with numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.test_ingest import INGEST
from tests.front.test_cli import run
from uihkv import Column, Schema, Store
from uihkv.ingest import ingest

SCHEMA = Schema([Column("item_id", "int64")], user_id="string")
NAMES = ["ann", "bob", "žofie", "42", "-7", "with space", "x" * 300, "--help"]
ROWS = 2000


def events(rows: int = ROWS) -> Any:
    rng = np.random.default_rng(4)
    users = [NAMES[n] if n < len(NAMES) else f"user-{n}" for n in rng.integers(0, 60, rows)]
    number = np.arange(rows)
    return pa.table({"user_id": users, "ts": number, "item_id": number, "arrived": rng.permutation(number)})


def histories(store: Store) -> dict[str, list[int]]:
    with store.snapshot() as snapshot:
        users = snapshot.users()
        found = snapshot.read(snapshot.head(users))
        bounds = found.offsets.tolist()
        items = found.values("item_id").tolist()
    return {str(user): items[bounds[n] : bounds[n + 1]] for n, user in enumerate(users.tolist())}


def expected(table: Any, by: str | None) -> dict[str, list[int]]:
    made: dict[str, list[int]] = {}
    for row in sorted(table.to_pylist(), key=lambda row: row[by or "ts"]):
        made.setdefault(row["user_id"], []).append(row["item_id"])
    return made


@pytest.mark.parametrize("by", [None, "arrived"])
def test_a_killed_ingest_of_string_users_is_completed_by_processes(tmp_path: Path, by: str | None) -> None:
    table = events()
    pq.write_table(table, tmp_path / "events.parquet")
    Store.create(tmp_path / "store", SCHEMA, shards=4, chunk_events=16).close()
    settings = {"batch_rows": 150, "order_by": by}
    (tmp_path / "run.py").write_text(INGEST)
    command = [sys.executable, tmp_path / "run.py", tmp_path / "store", tmp_path / "events.parquet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    died = subprocess.run(
        [*map(str, command), json.dumps(settings), "write", "600"],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    with Store.open(tmp_path / "store") as store:
        done = store.stats().events
        assert 0 < done < ROWS
        told = ingest(store, tmp_path / "events.parquet", source="files", processes=2, **settings)  # type: ignore[arg-type]
        assert (told.appended, told.replayed) == (ROWS - done, done)
        assert histories(store) == expected(table, by)
        assert store.verify().ok


def test_every_command_takes_string_users(tmp_path: Path) -> None:
    table = events(400)
    pq.write_table(table, tmp_path / "events.parquet")
    (tmp_path / "schema.toml").write_text('user_id = "string"\ntime_unit = "ms"\n[columns]\nitem_id = "int64"\n')
    pq.write_table(
        pa.table({"user_id": [*NAMES, "nobody"], "asked": [200] * 9, "label": [1] * 9}), tmp_path / "asked.parquet"
    )
    store, slim = tmp_path / "store", tmp_path / "slim.parquet"

    def ask(*words: object) -> Any:
        done = run(words[0], "--json", *words[1:])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    new = ["--schema", tmp_path / "schema.toml", "--shards", 2, "--batch-rows", 64, "--processes", 2]
    assert ask("ingest", store, tmp_path / "events.parquet", *new)["appended"] == 400
    before = expected(table, None)
    assert ask("stats", store)["users"] == len(before)
    assert ask("resolve", store, tmp_path / "asked.parquet", "-o", slim, "--as-of", "asked")["rows"] == 9
    versions = [sum(item < 200 for item in before.get(name, [])) for name in [*NAMES, "nobody"]]
    assert pq.read_table(slim).column("version").to_pylist() == versions
    told = ask("audit", store, slim, "--as-of", "asked")
    assert (told["examples"], told["equal"]) == (9, 9)
    ask("examples", store, "-o", tmp_path / "made.parquet", "--every", 5)
    assert set(pq.read_table(tmp_path / "made.parquet").column("user_id").to_pylist()) <= set(before)
    assert ask("show", store, "žofie", "--last", 2)["version"] == len(before["žofie"])
    assert ask("show", store, "nobody")["version"] == 0
    assert ask("trim", store, "ann", "--before", 2)["events"] == 2
    assert ask("trim", store, "--erase", "--", "--help")["users"] == 1  # a name like an option
    assert ask("trim", store, "bob", "--erase")["events"] == len(before["bob"])
    assert ask("backup", store, tmp_path / "backup")
    assert ask("compact", store, "--copy-to", tmp_path / "copy")
    assert ask("verify", tmp_path / "backup")["ok"]
    for path in (store, tmp_path / "backup", tmp_path / "copy"):
        with Store.open(path, readonly=True) as opened, opened.snapshot() as snapshot:
            assert not {"bob", "--help"} & set(map(str, snapshot.users().tolist()))
            left = snapshot.read(snapshot.head(["ann", "42"]), on_trimmed="truncate")
            assert left.values("item_id").tolist() == before["ann"][2:] + before["42"]
            assert b"bob" not in b"".join(its.read_bytes() for its in path.rglob("*.mdb")) or path == store
