"""Bad bytes are an error of ours, never a wrong sequence and never a crash."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.format.chunks import USER, OpenChunk, encode_one
from uihkv import Column, CorruptChunkError, FormatError, Schema, UihkvError
from uihkv.chunk import (
    BLOCKS_AT,
    DESCRIPTOR_BYTES,
    FORM_AT,
    FORM_SHORT,
    FORM_ZONES,
    FORMAT_AT,
    HEADER_BYTES,
    ZONE_BYTES,
)
from uihkv.events import Events
from uihkv.kernels.decode import VERIFY_NEVER

SCHEMA = Schema([Column("a", "int64"), Column("f", "float32"), Column("tags", "int16", ragged=True)])
FLAT = Schema([Column("a", "int64"), Column("f", "float32")])


def events(n: int, ragged: bool, rounded: bool = False) -> Events:
    rng = np.random.default_rng(n)
    ts = np.cumsum(rng.integers(0, 5, n)) * 1000
    columns = {"a": rng.integers(0, 9, n), "f": rng.random(n).astype(np.float32)}
    if rounded:
        columns["f"] = np.round(columns["f"], 2)
    lists = {}
    if ragged:
        lists["tags"] = np.append(0, np.cumsum(rng.integers(0, 4, n)))
        columns["tags"] = rng.integers(0, 5, int(lists["tags"][-1])).astype(np.int16)
    return Events(np.full(n, USER), ts, ts + 1, columns, lists)


TEXTS = Schema([Column("a", "int64"), Column("name", "string"), Column("raw", "bytes")])


def texts(n: int) -> Events:
    rng = np.random.default_rng(n)
    ts = np.cumsum(rng.integers(0, 5, n)) * 1000
    columns, lists = {"a": rng.integers(0, 9, n)}, {}
    for name, distinct in (("name", 5), ("raw", n)):
        values = [b"value %d" % (value * 7919) for value in rng.integers(0, distinct, n)]
        lists[name] = np.append(0, np.cumsum([len(value) for value in values]))
        columns[name] = np.frombuffer(b"".join(values), np.uint8).copy()
    return Events(np.full(n, USER), ts, ts + 1, columns, lists)


CHUNKS = {
    "texts": (TEXTS, encode_one(TEXTS, texts(300)), 300),
    "few texts": (TEXTS, encode_one(TEXTS, texts(2)), 2),
    "long": (SCHEMA, encode_one(SCHEMA, events(300, True)), 300),
    "short": (FLAT, encode_one(FLAT, events(3, False)), 3),
    "middle": (FLAT, encode_one(FLAT, events(60, False)), 60),
    "bits": (FLAT, encode_one(FLAT, events(700, False)), 700),
    "decimal": (FLAT, encode_one(FLAT, events(300, False, rounded=True)), 300),
}


def contents(schema: Schema, data: bytes, n: int, verify: int) -> list[bytes]:
    chunk = OpenChunk(schema, data, n, verify=verify)
    found = []
    for name in schema.readable:
        values = chunk.read(name, 0, n)
        found.append(b"".join(part.tobytes() for part in values) if isinstance(values, tuple) else values.tobytes())
    return found


@pytest.mark.parametrize("which", CHUNKS)
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_found(which: str, data: st.DataObject) -> None:
    schema, chunk, n = CHUNKS[which]
    at = data.draw(st.integers(0, 8 * len(chunk) - 1))
    damaged = bytearray(chunk)
    damaged[at // 8] ^= 1 << (at % 8)
    with pytest.raises((CorruptChunkError, FormatError)):
        contents(schema, bytes(damaged), n, 1)


@pytest.mark.parametrize("which", CHUNKS)
def test_a_truncated_or_grown_value_is_found(which: str) -> None:
    schema, chunk, n = CHUNKS[which]
    for size in [*range(0, len(chunk), 7), len(chunk) - 1]:
        with pytest.raises(CorruptChunkError):
            contents(schema, chunk[:size], n, 1)
    with pytest.raises(CorruptChunkError):
        contents(schema, chunk + b"\0", n, 1)


def reseal(chunk: bytearray) -> bytes:
    """Make the header's checksum right again: damage that only the checks of fields can find."""
    covered = len(chunk)
    if chunk[FORM_AT] != FORM_SHORT and len(chunk) >= HEADER_BYTES:
        blocks = struct.unpack_from("<H", chunk, BLOCKS_AT)[0]
        covered = HEADER_BYTES + blocks * (DESCRIPTOR_BYTES + (ZONE_BYTES if chunk[FORM_AT] == FORM_ZONES else 0))
    seed = USER % 2**64
    struct.pack_into("<I", chunk, 0, xxhash.xxh3_64_intdigest(bytes(chunk[4:covered]), seed) & 0xFFFFFFFF)
    return bytes(chunk)


@pytest.mark.parametrize("which", CHUNKS)
@settings(max_examples=1500, deadline=None)
@given(data=st.data())
def test_a_lying_header_with_a_right_checksum_never_crashes(which: str, data: st.DataObject) -> None:
    schema, chunk, n = CHUNKS[which]
    damaged = bytearray(chunk)
    head = min(len(chunk), HEADER_BYTES + 9 * DESCRIPTOR_BYTES)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(4, head - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    for verify in (1, VERIFY_NEVER):
        try:
            found = contents(schema, reseal(damaged), n, verify)
        except UihkvError:
            continue
        assert [len(part) for part in found][:2] == [8 * n, 8 * n]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), compress=st.booleans())
def test_lying_codes_and_lengths_never_crash(data: st.DataObject, compress: bool) -> None:
    """Damage of the blocks themselves, which only the checks of codes and lengths can find without checksums."""
    chunk = encode_one(TEXTS, texts(40), compress)
    begin = HEADER_BYTES + DESCRIPTOR_BYTES * struct.unpack_from("<H", chunk, BLOCKS_AT)[0]
    damaged = bytearray(chunk)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(begin, len(chunk) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = contents(TEXTS, bytes(damaged), 40, VERIFY_NEVER)
    except CorruptChunkError:
        return
    assert len(found) == len(TEXTS.readable)


def test_codes_out_of_range_and_lengths_that_do_not_add_up_are_named() -> None:
    schema = Schema([Column("name", "bytes")])
    values = [b"aa", b"bbb", b"aa"]
    lists = {"name": np.append(0, np.cumsum([len(value) for value in values]))}
    clock = np.zeros(3, np.int64)
    flat = {"name": np.frombuffer(b"".join(values), np.uint8).copy()}
    chunk = encode_one(schema, Events(np.full(3, USER), clock, clock, flat, lists), compress=False)
    assert chunk.endswith(b"\0\1\0" + b"\0\1" + b"\0\0\1\1\1")  # codes, lengths less 2, bytes less "a"
    for at, byte in ((-10, 2), (-9, 255), (-7, 1), (-6, 200)):
        damaged = bytearray(chunk)
        damaged[at] = byte
        with pytest.raises(CorruptChunkError, match="codes of a bytes or string column"):
            OpenChunk(schema, bytes(damaged), 3, verify=VERIFY_NEVER).read("name", 0, 3)


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=400), verify=st.sampled_from([0, 1, 2]))
def test_random_bytes_are_no_chunk(data: bytes, verify: int) -> None:
    with pytest.raises(UihkvError):
        contents(FLAT, data, 3, verify)


def test_a_chunk_under_another_users_key_is_found() -> None:
    schema, chunk, n = CHUNKS["middle"]
    with pytest.raises(CorruptChunkError, match="user 12, versions"):
        OpenChunk(schema, chunk, n, user=12)


def test_a_chunk_under_another_range_is_found() -> None:
    schema, chunk, n = CHUNKS["middle"]
    with pytest.raises(CorruptChunkError, match="range of versions"):
        OpenChunk(schema, chunk, n, start=41)


def test_a_chunk_of_a_newer_format_is_named_so() -> None:
    schema, chunk, n = CHUNKS["middle"]
    newer = bytearray(chunk)
    newer[FORMAT_AT] = 2
    with pytest.raises(FormatError, match="newer"):
        OpenChunk(schema, reseal(newer), n)
