"""``uihkv demo --quick``, as a user runs it, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from loader.demo.command import demo
from loader.demo.fatrows import join_projections
from loader.demo.run import prepare_folder
from loader.demo.train import TENANTS
from uihkv import StoreExistsError

RUN = "import typer; from loader.demo.command import demo; typer.run(demo)"


def run_quick(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, "--quick", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def test_quick_demo_ends_with_the_table_and_runs_again_in_its_own_folder(tmp_path: Path) -> None:
    first = run_quick(tmp_path / "out")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""  # no progress where there is no terminal
    for words in ("store", "slim examples", "fat rows", "examples/s", "waited", "retrieval", "ranker", "most popular"):
        assert words in first.stdout
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")

    second = run_quick(tmp_path / "out", "--json")
    assert second.returncode == 0, second.stderr
    figures = json.loads(second.stdout)
    assert figures["examples"] == figures["train_examples"] + figures["evaluate_examples"]
    assert figures["fat_bytes"] == (tmp_path / "out" / "fat.parquet").stat().st_size
    assert figures["slim_bytes"] == sum(
        (tmp_path / "out" / name).stat().st_size for name in ("train.parquet", "evaluate.parquet")
    )
    assert figures["ratio"] == pytest.approx(figures["fat_bytes"] / (figures["store_bytes"] + figures["slim_bytes"]))
    assert set(figures["metrics"]) == {"retrieval", "ranker", "most popular"}
    assert str(figures["events"])[:2] in first.stdout


def test_command_is_found_by_its_entry_point() -> None:
    found = [entry for entry in entry_points(group="uihkv.commands") if entry.name == "demo"]
    assert found and found[0].load() is demo


def test_importing_the_command_loads_nothing_heavy() -> None:
    code = (
        "import sys, loader.demo.command; "
        "sys.exit(str({'torch', 'numba', 'pyarrow', 'matplotlib'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_folder_of_somebody_elses_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("mine")
    with pytest.raises(StoreExistsError, match="choose another folder"):
        prepare_folder(tmp_path)
    assert (tmp_path / "train.parquet").read_text() == "mine"
    with pytest.raises(StoreExistsError):
        prepare_folder(tmp_path / "train.parquet")


def test_fat_rows_hold_what_all_tenants_need() -> None:
    joined = join_projections(tenant.projection for tenant in TENANTS)
    assert joined.max_len == 1024
    for tenant in TENANTS:
        assert set(tenant.projection.columns or ()) <= set(joined.columns or ())
