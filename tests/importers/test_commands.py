"""The importers' commands as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.front.test_cli import run
from tests.importers.logs import SAMPLES


def test_import_makes_a_store_resumes_and_refuses(tmp_path: Path) -> None:
    files = SAMPLES["movielens"].write(tmp_path)
    done = run("import", "movielens", tmp_path / "store", *files, "--shards", 2, "--source", "ml", "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    told = json.loads(done.stdout)
    assert (told["format"], told["files"], told["appended"], told["created"]) == ("movielens", 3, 62, True)
    again = run("import", "movielens", tmp_path / "store", *files, "--source", "ml")
    assert "replayed" in again.stdout and all(len(line) <= 80 for line in again.stdout.splitlines())

    files[0].write_text(files[0].read_text() + "1::2::x::3\n")
    refused = run("import", "movielens", tmp_path / "other", *files)
    assert refused.returncode == 1 and len(refused.stderr.strip().splitlines()) == 1
    assert f"{files[0]}, line 31" in refused.stderr and not (tmp_path / "other").exists()
    skipped = run("import", "movielens", tmp_path / "other", *files, "--on-bad", "skip", "--json")
    assert json.loads(skipped.stdout)["skipped"] == 1


def test_import_takes_json_lines_by_a_schema_file_and_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text('time_unit = "ms"\n[columns]\nitem_id = "int64"\n')
    (tmp_path / "log.jsonl").write_text('{"who": {"id": 4}, "at": "2024-01-01T00:00:00Z", "item_id": 5}\n')
    mapping = ["--rename", "who.id=user_id", "--rename", "at=ts", "--time", "iso"]
    made = run(
        "import", "jsonl", tmp_path / "s", tmp_path / "log.jsonl", "--schema", tmp_path / "schema.toml", *mapping
    )
    assert made.returncode == 0, made.stderr
    more = run("import", "jsonl", tmp_path / "s", tmp_path / "log.jsonl", *mapping, "--json")
    assert json.loads(more.stdout)["appended"] == 1
    lacking = run("import", "jsonl", tmp_path / "none", tmp_path / "log.jsonl", *mapping)
    assert lacking.returncode == 2 and "--schema" in lacking.stderr
    assert run("import", "nonsense", tmp_path / "none", tmp_path / "log.jsonl").returncode == 2


def test_help_names_every_format() -> None:
    told = run("import", "--help").stdout
    assert "--source" in told and "Example: uihkv import movielens" in told
    assert all(name in " ".join(told.split()) for name in ("jsonl", "movielens", "kuairand", "yambda", "otto", "mind"))
    assert "Example: uihkv import-git" in run("import-git", "--help").stdout
