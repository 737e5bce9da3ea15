"""Chunks are cut where they fill pages: nothing is lost by it, and little of the pages is left empty."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.format.chunks import OpenChunk
from uihkv import Column, Schema
from uihkv.codec import EncodedChunks, Layouts, encode
from uihkv.events import Events

SCHEMA = Schema([Column("a", "int64"), Column("b", "uint8"), Column("v", "float32", shape=(3,))])
PAGE = 4096


def draw_events(lengths: list[int], varied: bool, seed: int) -> Events:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    ts = np.cumsum(rng.integers(0, 1 << 20, n))
    wide = rng.integers(0, 1 << 50, n) >> (rng.integers(0, 50, n) if varied else 30)
    quiet = np.arange(n) // max(1, n // 7) % 2 == 0  # stretches that need few bytes, and others
    columns = {
        "a": np.where(quiet & varied, 5, wide), "b": rng.integers(0, 3, n).astype(np.uint8),
        "v": rng.random((n, 3)).astype(np.float32),
    }  # fmt: skip
    return Events(np.repeat(np.arange(len(lengths)), lengths), ts, ts + 1, columns, {})


def cut(events: Events, lengths: list[int], chunk_events: int, compress: bool) -> EncodedChunks:
    count = np.array(lengths, np.int64)
    row = np.cumsum(count) - count
    one = np.ones(len(count), np.int64)
    users = np.arange(len(count))
    return encode(Layouts([SCHEMA]), events, row, count, 7 * one, users, one, chunk_events, compress, PAGE)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 3000) | st.integers(0, 20), min_size=1, max_size=6),
    chunk_events=st.sampled_from([1, 7, 300, 1024, 5000]),
    varied=st.booleans(),
    compress=st.booleans(),
)
def test_chunks_of_a_group_follow_each_other_and_hold_its_events(
    lengths: list[int], chunk_events: int, varied: bool, compress: bool
) -> None:
    events = draw_events(lengths, varied, len(lengths))
    chunks = cut(events, lengths, chunk_events, compress)
    assert chunks.count.max() <= chunk_events
    assert chunks.group.tolist() == sorted(chunks.group.tolist())
    begin = 0
    head = np.full(len(lengths), 7)
    for index, (group, count, end) in enumerate(zip(chunks.group, chunks.count, chunks.end, strict=True)):
        assert chunks.start[index] == head[group]
        row = sum(lengths[:group]) + head[group] - 7
        head[group] += count
        if index % 5 == 0 and count:
            chunk = OpenChunk(SCHEMA, chunks.buffer[begin:end].tobytes(), count, user=group, start=chunks.start[index])
            for name in ("a", "v"):
                assert chunk.read(name, 0, count).tobytes() == events.columns[name][row : row + count].tobytes()
            assert np.array_equal(chunk.read("ts", 0, count), events.ts[row : row + count])
        begin = end
    assert (head - 7).tolist() == lengths


def test_little_of_their_pages_is_left_empty() -> None:
    lengths = [30_000, 2_000, 700]
    chunks = cut(draw_events(lengths, False, 0), lengths, 1024, True)
    size = np.diff(chunks.end, prepend=0)
    sealed = np.append(chunks.group[1:] == chunks.group[:-1], False)
    pages = -(-(size + 16) // PAGE)
    assert size[sealed].sum() > 0.95 * PAGE * pages[sealed].sum()
    assert (size[~sealed] < PAGE).all()
