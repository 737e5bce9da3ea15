"""Every operation is all there or not at all, at whichever of its system calls it is cut off; a share of these."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from perf import cuts, cutstores
from perf.cuts import LosesAll, Recording, make_recording, replay
from perf.cutstores import HALF, LOST, OPERATIONS, TORN, folder_of
from perf.powercut import Step, can_trace, cut

pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace, and a system that lets it trace")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return make_recording(tmp_path_factory.mktemp("recorded"))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_cut_off_anywhere_is_done_or_not(recording: Recording, name: str, tmp_path: Path) -> None:
    tally = replay(recording, name, tmp_path, every=10, seed=2)
    assert tally.words == []
    assert tally.points >= 9
    assert tally.cut >= 2


def test_an_append_whose_process_is_killed_leaves_the_store_to_others(recording: Recording, tmp_path: Path) -> None:
    tally = cuts.kill(recording, "append", tmp_path, every=4)
    assert tally.words == []
    assert tally.killed >= 2


def test_what_is_acknowledged_and_not_flushed_is_found(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relaxed append promises less; held to a promise that it does not give, it breaks it."""
    relaxed = OPERATIONS["append, relaxed"]
    monkeypatch.setitem(cutstores.OPERATIONS, "append, relaxed", replace(relaxed, durable=True))
    assert set(replay(recording, "append, relaxed", tmp_path).faults) == {LOST}


def test_a_publication_that_flushes_nothing_is_found(recording: Recording, tmp_path: Path) -> None:
    steps = [step for step in recording.steps if not (step.call == "sync" and "/build/" in step.path)]
    found = replay(replace(recording, steps=steps), "build", tmp_path, every=4, subsets=3)
    assert found.faults[HALF] + found.faults[TORN] > 0


def test_what_is_not_replayed_is_refused(recording: Recording, tmp_path: Path) -> None:
    where = recording.root / folder_of("append")
    unknown = Step(0.0, 1.0, "unknown", str(where / "store" / "file"), to="copy_file_range")
    with pytest.raises(ValueError, match="copy_file_range"):
        cut(recording.before / folder_of("append"), where, [unknown], 2.0, tmp_path / "cut", random.Random())
    cut(recording.before / folder_of("append"), where, [], 2.0, tmp_path / "none", LosesAll())
    assert (tmp_path / "none" / "store" / "manifest.msgpack").exists()
    shutil.rmtree(tmp_path / "none")
