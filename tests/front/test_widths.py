"""What every command prints fits 80 columns where the output is no terminal, whatever the names and paths."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from uihkv.cli import BUILT_IN, app

SCHEMA = 'time_unit = "ms"\n[columns]\nitem_id = "int64"\n' + "".join(
    f"a_column_of_a_rather_long_name_{n} = {{ dtype = 'float64', default = 0.5 }}\n" for n in range(6)
)
STORE = "a-store-in-a-folder-of-a-rather-long-name"
COMMANDS = f"""
create {STORE} --schema schema.toml --shards 2
ingest {STORE} events.parquet --source a-source-of-a-rather-long-name-for-a-source
examples {STORE} -o examples-of-a-rather-long-name-for-a-file.parquet --every 3
resolve {STORE} asked.parquet -o slim.parquet --as-of asked
audit {STORE} slim.parquet --as-of asked
stats {STORE} --details
show {STORE} 3 --last 2
show {STORE} 3 --last 2 --columns item_id
verify {STORE}
trim {STORE} 3
compact {STORE} --copy-to a-copy-in-a-folder-of-a-rather-long-name
backup {STORE} a-backup-in-a-folder-of-a-rather-long-name
import jsonl other lines.jsonl --schema schema.toml
"""


def test_tables_fit_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("schema.toml").write_text(SCHEMA)
    Path("lines.jsonl").write_text('{"user_id": 1, "ts": 2, "item_id": 3}\n')
    user = np.arange(600) % 7
    pq.write_table(pa.table({"user_id": user, "ts": 10**12 + np.arange(600), "item_id": user}), "events.parquet")
    pq.write_table(pa.table({"user_id": user, "asked": 10**12 + np.arange(600)}), "asked.parquet")
    tried = set()
    for line in COMMANDS.strip().splitlines():
        done = CliRunner().invoke(app, shlex.split(line))
        assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"
        tried.add(line.split()[0])
        drawn = [printed for printed in done.output.splitlines() if set(printed) & set("─│┃━")]
        assert all(len(printed) <= 80 for printed in drawn), f"{line}:\n{done.output}"
    assert set(BUILT_IN) - tried == {
        "slim",
        "import-git",
        "import-fatrows",
    }  # their answers are as resolve's and import's


def test_a_title_takes_the_outputs_width_and_a_name_is_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("schema.toml").write_text('[columns]\nitem_id = "int64"\n')
    name = "[red]a store of a name that is longer than its table"
    made = CliRunner().invoke(app, ["create", name, "--schema", "schema.toml", "--shards", "1"])
    assert made.exit_code == 0 and name in " ".join(made.output.split()), made.output
    told = CliRunner().invoke(app, ["stats", name])
    assert told.output.splitlines()[0] == name
