"""Shells complete commands and options, and what is drawn is a picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.front.test_cli import run
from uihkv import Column, Schema, Store
from uihkv.portrait import take_portrait


def complete(line: str) -> set[str]:
    """What bash is offered behind a line."""
    words = line.split(" ")
    environment = {
        **os.environ, "_UIHKV_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    command = [sys.executable, "-c", "from uihkv.cli import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return set(done.stdout.split())


def test_a_shell_completes_commands_and_options() -> None:
    assert {"stats"} <= complete("uihkv sta") <= {"stats"}
    assert {"import", "import-git", "import-fatrows"} == complete("uihkv imp")
    assert {"--plot"} == complete("uihkv stats --pl")
    assert "--install-completion" in run("--help").stdout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    ts = np.arange(900) * 1_000
    with Store.create(tmp_path / "store", Schema([Column("item_id", "int64")]), shards=2) as made:
        made.append(
            {"user_id": np.arange(900) % 30, "ts": ts, "item_id": rng.integers(0, 9, 900)},
            visible_at=ts + 500,
        )
        made.append({"user_id": [0], "ts": [5], "item_id": [1]}, visible_at=[10_000_000])
        made.trim(3, 10)
    return tmp_path / "store"


def test_a_portrait_counts_what_is_there(store: Path) -> None:
    with Store.open(store) as opened, opened.snapshot() as snapshot:
        whole = take_portrait(snapshot, 901)
        part = take_portrait(snapshot, 901, most_events=300)
    assert (whole.users, whole.events) == (30, 901 - 10)
    assert sorted(whole.lengths.tolist()) == [20] + [30] * 28 + [31]
    assert {name: count for name, count in whole.delays.items() if count} == {"1 s": 890, "6 h": 1}
    assert whole.out_of_order == 1
    assert (part.users, len(part.lengths)) == (30, 8)


def test_stats_draws_a_picture(store: Path, tmp_path: Path) -> None:
    told = run("stats", store, "--plot", tmp_path / "store.png")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "store.png").read_bytes().startswith(b"\x89PNG")
    assert "picture:" in told.stdout
    refused = run("stats", store, "--plot", tmp_path / "store.doc")
    assert refused.returncode == 2
    assert not (tmp_path / "store.doc").exists()
