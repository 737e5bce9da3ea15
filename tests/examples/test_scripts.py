"""The scripts of examples/ as a reader runs them: they end well, and what they train gets better."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import AsyncIterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loader import Loader, StreamExamples
from uihkv import Projection, Store

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {"lightning_module": "lightning", "torchrec_kjt": "torchrec"}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts find each other, as they do when one is run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("name", ["plain_pytorch", "lightning_module", "torchrec_kjt", "hstu_layout"])
def test_a_script_runs_and_learns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    library = NEEDS.get(name)
    if library and not find_spec(library):
        pytest.skip(f"{library} is not installed")
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    told = capsys.readouterr().out
    if name == "hstu_layout":
        assert "[3 keys x 64 rows]" in told and "[2 keys x 64 rows]" in told
        assert "action_timestamp" in told
        return
    before, after = map(float, re.findall(r"loss ([\d.]+) -> ([\d.]+)", told)[0])
    assert after < 0.8 * before
    if name == "plain_pytorch":
        assert f"{1500 - 5 * 64} examples were left" in told


@pytest.mark.usefixtures("scripts")
def test_messages_of_a_topic_become_batches(tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from kafka_stream import columns  # type: ignore[import-not-found]
    from tiny_log import make_log  # type: ignore[import-not-found]

    store_path, examples_path = make_log(tmp_path)
    rows = pq.read_table(examples_path).slice(0, 150).to_pylist()

    async def topic() -> AsyncIterator[Any]:
        for row in rows:
            yield columns([SimpleNamespace(value=json.dumps(row).encode(), partition=0, offset=0)])

    with (
        Store.open(store_path, readonly=True) as store,
        Loader(store, StreamExamples(topic()), Projection(["item_id"], max_len=8), batch_size=64) as loader,
    ):
        seen = [batch.examples["candidate"].tolist() for batch in loader]
    assert list(chain(*seen)) == [row["candidate"] for row in rows]
    assert [len(batch) for batch in seen] == [64, 64, 22]


def test_every_script_is_in_the_table_and_tested() -> None:
    table = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"[`{path.name}`]({path.name})" in table
