"""The command line as a user types it: what it prints, its exit statuses, and that failures leave nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uihkv import Store

SCHEMA = 'time_unit = "ms"\n[columns]\nitem_id = "int64"\nkind = { dtype = "uint8", default = 3 }\n'


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from uihkv.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three users, made by the command line, and files around it."""
    made = tmp_path_factory.mktemp("cli")
    (made / "schema.toml").write_text(SCHEMA)
    (made / "text.parquet").write_text("not parquet")
    events = {"user_id": [1, 1, 2, 1], "ts": [10, 20, 30, 5], "item_id": [7, 8, 9, 6], "seen": [10, 20, 30, 40]}
    pq.write_table(pa.table(events), made / "events.parquet")
    asked = {"user_id": [1, 1, 1, 2, 9], "as_of": [10, 11, 41, 31, 99], "label": [0, 1, 0, 1, 0]}
    pq.write_table(pa.table(asked), made / "asked.parquet")
    created = run("create", made / "store", "--schema", made / "schema.toml", "--shards", 2)
    assert (created.returncode, created.stderr) == (0, ""), created.stderr
    ingested = run("ingest", made / "store", made / "events.parquet", "--visible-at", "seen", "--source", "s", "--json")
    assert ingested.returncode == 0, ingested.stderr
    assert json.loads(ingested.stdout)["appended"] == 4
    assert ingested.stderr == ""  # no progress where there is no terminal
    return made


def test_an_ingest_run_again_stores_nothing_twice(folder: Path) -> None:
    again = run(
        "ingest", folder / "store", folder / "events.parquet", "--visible-at", "seen", "--source", "s", "--json"
    )
    told = json.loads(again.stdout)
    assert (told["appended"], told["replayed"]) == (0, 4)


def test_ingest_takes_text_in_the_order_of_a_column_by_several_processes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("user_id,ts,item_id,come\n5,10,1,3\n6,11,2,2\n5,12,3,1\n")
    made = run("create", tmp_path / "store", "--schema", folder / "schema.toml", "--shards", 2)
    assert made.returncode == 0, made.stderr
    told = run(
        "ingest", tmp_path / "store", tmp_path / "log.txt", "--format", "csv", "--order-by", "come", "--processes", 2,
        "--scratch", tmp_path, "--source", "log", "--json",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["appended"] == 3
    with Store.open(tmp_path / "store") as store, store.snapshot() as snapshot:
        assert store.sources() == {"log": 3}
        assert snapshot.read(snapshot.head([5])).values("item_id").tolist() == [3, 1]
    refused = run("ingest", tmp_path / "store", tmp_path / "log.txt", "--format", "orc")
    assert refused.returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "store"]


def test_ingest_with_a_schema_builds_a_store_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    new = ["--schema", folder / "schema.toml", "--shards", 3]
    made = run("ingest", tmp_path / "store", folder / "events.parquet", *new, "--batch-rows", 2, "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["appended"] == 4
    with Store.open(tmp_path / "store") as store, store.snapshot() as snapshot:
        assert store.shards == 3
        assert snapshot.read(snapshot.head([1])).values("item_id").tolist() == [7, 8, 6]
    again = run("ingest", tmp_path / "store", folder / "events.parquet", *new)
    assert again.returncode == 1 and len(again.stderr.splitlines()) == 1
    bad = run("ingest", tmp_path / "other", folder / "events.parquet", folder / "text.parquet", *new)
    assert bad.returncode == 1 and "text.parquet" in bad.stderr
    lacking = run("ingest", tmp_path / "other", folder / "events.parquet", "--shards", 3)
    assert lacking.returncode == 2 and "--schema" in lacking.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_stats_and_show_say_what_is_there(folder: Path) -> None:
    told = json.loads(run("stats", folder / "store", "--json").stdout)
    assert (told["events"], told["users"], told["shards"]) == (4, 2, 2)
    table = run("stats", folder / "store", "--details")
    assert table.returncode == 0 and "column item_id" in table.stdout
    assert all(len(line) <= 80 for line in table.stdout.splitlines())
    shown = run("show", folder / "store", 1, "--last", 2)
    assert shown.returncode == 0
    assert "version 3" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())


def test_resolve_writes_slim_examples_with_ties_out(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "slim.parquet"
    done = run("resolve", folder / "store", folder / "asked.parquet", "-o", out, "--as-of", "as_of", "--json")
    assert done.returncode == 0, done.stderr
    slim = pq.read_table(out)
    assert slim.column("version").to_pylist() == [0, 1, 3, 1, 0]
    assert slim.column("last_ts").to_pylist() == [0, 10, 5, 30, 0]
    assert slim.column("label").to_pylist() == [0, 1, 0, 1, 0]
    later = run("resolve", folder / "store", folder / "asked.parquet", "-o", tmp_path / "d", "--as-of", "as_of",
                "--delay", 2)  # fmt: skip
    assert later.returncode == 0, later.stderr
    assert pq.read_table(tmp_path / "d").column("version").to_pylist() == [0, 0, 2, 0, 0]


def test_trim_removes_and_later_commands_say_so(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "store", tmp_path / "store")
    told = json.loads(run("trim", tmp_path / "store", 1, "--before", 2, "--json").stdout)
    assert told == {"users": 1, "events": 2, "chunks": 1}
    asked = (folder / "asked.parquet", "--as-of", "as_of")
    refused = run("resolve", tmp_path / "store", *asked, "-o", tmp_path / "slim.parquet")
    assert refused.returncode == 1 and "trimmed" in refused.stderr
    done = run("resolve", tmp_path / "store", *asked, "-o", tmp_path / "slim.parquet", "--on-trimmed", "truncate")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "slim.parquet").column("version").to_pylist() == [2, 2, 3, 1, 0]
    aged = json.loads(run("trim", tmp_path / "store", "--visible-before", 31, "--json").stdout)
    assert (aged["users"], aged["events"]) == (1, 1)
    older = ["--visible-before", 3]
    for wrong in ([], [1, *older], [1, "--erase", "--before", 1], [*older, "--before", 1]):
        assert run("trim", tmp_path / "store", *wrong).returncode == 2
    shown = run("show", tmp_path / "store", 1)
    assert shown.returncode == 0, shown.stderr


def test_compact_and_backup_make_stores_that_hold_the_same(folder: Path, tmp_path: Path) -> None:
    told = json.loads(run("backup", folder / "store", tmp_path / "backup", "--json").stdout)
    assert told["path"] == str(tmp_path / "backup") and told["records"] > 0
    told = json.loads(run("compact", tmp_path / "backup", "--seal", "--copy-to", tmp_path / "c", "--json").stdout)
    assert (told["sealed_events"], told["copy"]) == (4, str(tmp_path / "c"))
    shown = [json.loads(run("show", path, 1, "--json").stdout) for path in (folder / "store", tmp_path / "c")]
    assert shown[0] == shown[1]
    again = run("backup", folder / "store", tmp_path / "c")
    assert (again.returncode, again.stdout) == (1, "") and "a store is there" in again.stderr
    table = run("compact", tmp_path / "c")
    assert table.returncode == 0 and all(len(line) <= 80 for line in table.stdout.splitlines())


def test_verify_ends_with_1_and_the_list_where_something_is_wrong(folder: Path, tmp_path: Path) -> None:
    sound = run("verify", folder / "store", "--json")
    assert sound.returncode == 0, sound.stderr
    assert (json.loads(sound.stdout)["ok"], json.loads(sound.stdout)["events"]) == (True, 4)
    shutil.copytree(folder / "store", tmp_path / "store")
    (tmp_path / "store/shards/0001/data.mdb").write_bytes(b"nothing" * 2000)
    damaged = run("verify", tmp_path / "store", "--repair")
    assert damaged.returncode == 1 and "1 problem" in damaged.stderr
    assert "shard 0001: " in damaged.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["stats", "{}/nowhere"], 1, "does not exist"),
        (["stats", "{}/schema.toml"], 1, "not a uihkv store"),
        (["create", "{}/store", "--schema", "{}/schema.toml"], 1, "a store is there"),
        (["create", "{}/other", "--schema", "{}/missing.toml"], 1, "missing.toml: No such file or directory\n"),
        (["ingest", "{}/store", "{}/text.parquet"], 1, "cannot be read as Parquet"),
        (["ingest", "{}/store", "{}/missing.parquet"], 1, "does not exist"),
        (["ingest", "{}/store", "{}/events.parquet", "--visible-at", "nope"], 1, "nope"),
        (["resolve", "{}/store", "{}/asked.parquet", "-o", "{}/out.parquet", "--as-of", "nope"], 1, "nope"),
        (["show", "{}/store", "alice"], 1, "not a whole number"),
        (["create"], 2, "Missing argument"),
        (["ingest", "{}/store", "{}/events.parquet", "--rename", "author"], 2, "--rename"),
        (["import-fatrows", "{}/events.parquet", "{}/new", "-o", "{}/out", "--history", "ts"], 2, "--history"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_what_fails_says_so_in_a_line_and_leaves_nothing(
    folder: Path, arguments: list[str], status: int, words: str
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = run(*(argument.replace("{}", str(folder)) for argument in arguments))
    assert done.returncode == status, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    if status == 1:
        assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert sorted(path.name for path in folder.iterdir()) == before
    with Store.open(folder / "store") as store:
        assert store.stats().events == 4


def test_help_teaches_with_an_example() -> None:
    for command in ("create", "ingest", "resolve", "stats", "show", "verify", "trim", "compact", "backup", "demo"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert "--json" in done.stdout, command
    assert np.all([name in run("--help").stdout for name in ("create", "ingest", "resolve", "stats", "show", "demo")])
