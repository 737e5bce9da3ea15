"""Thousands of damaged chunks, in a process that would die of a byte read or written out of bounds."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from perf.fuzz import FuzzError, fuzz
from perf.mutants import Guarded


def test_damaged_chunks_are_refused_or_read_within_bounds(tmp_path: Path) -> None:
    counts = fuzz(6_000, seed=1, scratch=tmp_path)
    assert sum(counts.values()) == 6_000
    refused = sum(found for outcome, found in counts.items() if outcome.startswith("refused"))
    assert refused > 3_000
    assert counts["read: as written"] > 100  # undamaged where it was looked at
    assert counts["read: other values, checksums made right"] > 100  # the checks behind checksums were reached
    assert counts["refused: a block does not decompress"] > 20


def test_memory_before_an_output_is_watched() -> None:
    room = Guarded(1 << 12)
    output = room.take(100)
    room.check(100)
    ctypes.memset(output.ctypes.data - 1, 0, 1)
    with pytest.raises(AssertionError, match="before its begin"):
        room.check(100)


def test_a_process_that_dies_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_dying_package(tmp_path)))
    with pytest.raises(FuzzError, match="killed by signal 11"):
        fuzz(10, seed=1, scratch=tmp_path)


def _dying_package(folder: Path) -> Path:
    """Something that Python imports as it starts and that kills it."""
    (folder / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    return folder
