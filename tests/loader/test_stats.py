"""What a loader tells of itself: numbers, a line, labels for torch's profiler, a trace, a bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from loader import Loader
from loader.live import describe_line
from tests.loader.conftest import World, parquet
from uihkv import Projection

__all__ = ["parquet"]


def make(world: World, **options: Any) -> Loader:
    return Loader(world.store, world.examples, Projection(["item_id"], max_len=4), **{"batch_size": 4, **options})


def test_rates_percentiles_and_readiness(world: World) -> None:
    loader = make(world)
    list(loader)
    stats = loader.stats()
    for stage in stats.stages:
        assert 0 < stage.p90_s <= stage.p99_s <= stage.max_s
    assert 0 <= stats.ready_share <= 1
    assert stats.examples_per_s == pytest.approx(53 / stats.elapsed_s)
    assert json.loads(json.dumps(stats.describe()))["events_per_s"] > 0
    line = describe_line(stats, 4)
    assert "14 batches" in line
    assert f"limited by {stats.limiting}" in line
    with loader.live():  # no terminal: says nothing, changes nothing
        assert len(list(loader)) == 14


@pytest.mark.parametrize("workers", [0, 1])
def test_a_trace_shows_every_stage_of_every_batch(world: World, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "pipeline.json"
    with make(world, trace=path, num_workers=workers) as loader:
        list(loader)
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]
    found = {(event["name"], event["args"]["batch"]) for event in events}
    assert found == {(name, batch) for name in ("take", "read", "assemble", "wait") for batch in range(14)}
    assert all(event["dur"] >= 0 for event in events)
    assert list(tmp_path.iterdir()) == [path]


def test_torchs_profiler_sees_the_consumer_wait(world: World) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        list(make(world))
    assert "## loader.wait ##" in {event.key for event in profile.key_averages()}


def test_bench_says_what_the_machine_can_feed(world: World, parquet: Path) -> None:
    import typer

    from loader.bench import bench

    app = typer.Typer()
    app.command()(bench)
    arguments = [str(world.store.path), str(parquet), "--batch-size", "8", "--seconds", "0.2"]
    done = CliRunner().invoke(app, [*arguments, "--json", "--columns", "item_id,ts", "--dedup"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["examples_per_s"] > 0
    assert facts["of_bare_reads"] > 0
    assert set(facts["stages"]) == {"take", "read", "assemble"}
    assert 0 <= facts["wait_share_at_1.25"] <= 1
    table = CliRunner().invoke(app, arguments)
    assert table.exit_code == 0
    assert "limiting stage" in table.output
