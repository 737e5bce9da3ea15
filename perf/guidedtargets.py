"""What is fuzzed by coverage: parsers of bytes that may be a stranger's, which must raise errors of ours or none.

A :class:`Target` has seeds, from stores that are kept (``tests/golden``) and made here, and a function that takes any
bytes: it parses them, checks a law of what was parsed, and gives a word for how that ended. Whatever it raises that is
no :class:`uihkv.UihkvError`, and any death of the process, is a finding.

Compiled kernels have no coverage that Python sees. So the words, and what a chunk's header claims, are told by way of
:func:`make_marker`: a function of many branches, one for each thing that may be seen.

``python -m perf.guidedtargets NAME --corpus FOLDER --seconds N [--blind]`` fuzzes one target: with atheris, or blindly,
by random changes of the seeds.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
MARKS = 1024
LONGEST = 4096
"""Bytes of an input."""
HANGS_S = 600
"""An input that takes so long hangs: the process may be stopped for a while, and continued."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser.

    Attributes:
        seeds: sound inputs.
        run: parses any input; a word for how that ended, and numbers of what was seen.

    """

    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], tuple[str, list[int]]]


# -- manifests, and what else a store and a loader keep in few bytes --------------------------------


def _golden_manifests() -> list[bytes]:
    return [path.read_bytes() for path in sorted(GOLDEN.rglob("manifest.msgpack"))]


def _manifest_seeds() -> list[bytes]:
    """Whole files, and the bodies that their checksums cover."""
    import msgpack

    from uihkv import Column, Schema
    from uihkv.manifest import Manifest

    schema = Schema([Column("a", "string"), Column("b", "float16", shape=(2, 3)), Column("c", "int8", ragged=True)])
    files = [*_golden_manifests(), Manifest("0" * 32, 4, 64, True, (schema,)).pack()]
    return [b"\0" + file for file in files] + [b"\1" + msgpack.unpackb(file)["body"] for file in files]


def _run_manifest(data: bytes) -> tuple[str, list[int]]:
    import msgpack
    import xxhash

    from uihkv.codec import Layouts
    from uihkv.manifest import Manifest

    where = Path("manifest")
    if data[:1] == b"\1":
        body = data[1:]
        outer = {"magic": "uihkv store", "format": 1, "checksum": xxhash.xxh3_64_intdigest(body), "body": body}
        data = b"\0" + msgpack.packb(outer)
    manifest = Manifest.unpack(data[1:], where)
    if Manifest.unpack(manifest.pack(), where) != manifest:
        raise AssertionError("a manifest is not what was packed")
    Layouts(manifest.schemas)
    return "read", [len(manifest.schemas), len(manifest.schema.names)]


def _record_seeds() -> list[bytes]:
    import struct

    state = {"version": 1, "epoch": 0, "consumed": 64, "segments": [[2, 8, 0, 4]], "fingerprint": {"store": "x"}}
    records = [struct.pack("<qq", 5, 5), struct.pack("<4q", 5, 5, 3, 4), struct.pack("<q", 7)]
    return [b"\0" + record for record in records] + [b"\1" + json.dumps(state).encode()]


def _run_record(data: bytes) -> tuple[str, list[int]]:
    """What a shard knows of a source; the state of a loader."""
    from loader.state import read_state
    from uihkv.sources import SourceRecord

    if data[:1] == b"\1":
        try:
            state = json.loads(data[1:])
        except (ValueError, RecursionError):
            return "no JSON", []
        position = read_state(state, {"store": "x"})
        return "a state", [len(position.segments)]
    try:
        record = SourceRecord.unpack(data[1:])
    except (ValueError, IndexError) as error:
        return f"refused: {type(error).__name__}", []
    if SourceRecord.unpack(record.pack()).pack() != record.pack():
        raise AssertionError("a record is not what was packed")
    record.check("source", 2)
    return "a source", [len(record.rests_on)]


# -- headers and chunks -----------------------------------------------------------------------------


@cache
def _samples() -> tuple[Any, ...]:
    from perf.mutants import make_corpus

    return tuple(make_corpus(0))


@cache
def _histories() -> list[Any]:
    """Layouts of every history of schemas among the samples."""
    from uihkv.codec import Layouts

    found: dict[Any, Any] = {}
    for sample in _samples():
        found.setdefault(tuple(tuple(schema.identities) for schema in sample.schemas), Layouts(sample.schemas))
    return list(found.values())


@cache
def _decoder() -> Any:
    from perf.mutants import Decoder

    return Decoder()


def _chunk_seeds() -> list[bytes]:
    """A byte that says how it is read, and a chunk; shorter ones, which change fastest."""
    keys = [tuple(tuple(schema.identities) for schema in sample.schemas) for sample in _samples()]
    order = list(dict.fromkeys(keys))
    seeds = []
    for sample, key in zip(_samples(), keys, strict=True):
        if len(sample.data) < LONGEST:
            seeds += [bytes([flags | order.index(key)]) + sample.data for flags in (0x10, 0x80, 0xC8)]
    return seeds


def _run_chunk(data: bytes) -> tuple[str, list[int]]:
    """Decode all of a chunk. Bits of the first byte: 0-2 schemas, 3 as a tail, 4-5 verify, 6-7 make checksums right."""
    from perf.mutants import Sample, sign
    from uihkv.chunk import BLOCKS_AT, DESCRIPTOR_BYTES, FORM_AT, HEADER_BYTES

    how, chunk = (data[0] if data else 0), data[1:]
    layouts = _histories()[(how & 7) % len(_histories())]
    if how & 0x80:
        chunk = sign(chunk, settle=bool(how & 0x40))
    seen = [chunk[FORM_AT]] if len(chunk) > FORM_AT else []
    if len(chunk) >= HEADER_BYTES:
        for block in range(min(chunk[BLOCKS_AT], 12)):
            at = HEADER_BYTES + DESCRIPTOR_BYTES * block
            seen += [hash((block, byte)) for byte in chunk[at : at + 3]]
    events = max(1, int.from_bytes(chunk[8:10], "little") % 2048)
    sample = Sample(tuple(layouts.schemas), chunk, events)
    parts = _decoder().contents(sample, layouts, chunk, (how >> 4 & 3) % 3, bool(how & 8), (0.0, 1.0))
    return "read", [*seen, len(parts)]


def _run_header(data: bytes) -> tuple[str, list[int]]:
    """Open a chunk or tail, by its header alone, and load its zones."""
    import numpy as np

    from perf.mutants import START, USER, sign
    from uihkv.codec import Entries

    how, chunk = (data[0] if data else 0), data[1:]
    layouts = _histories()[(how & 7) % len(_histories())]
    if how & 0x80:
        chunk = sign(chunk, settle=bool(how & 0x40))
    source = _decoder()._source.take(len(chunk))
    source[:] = np.frombuffer(chunk, np.uint8)
    one, nothing = np.ones(1, np.int64), np.empty(0, np.int64)
    as_tail = bool(how & 8)
    events = max(1, int.from_bytes(chunk[8:10], "little") % 2048)
    ranges = (nothing, nothing, nothing) if as_tail else (USER * one, START * one, (START + events) * one)
    entries = Entries(3, ranges, USER * one if as_tail else nothing)
    entries.address[0], entries.size[0] = source.ctypes.data, len(chunk)
    entries.open(0 * one, layouts, (how >> 4 & 3) % 3)
    return "opened", [int(entries.end[0] - entries.start[0]) % 64]


# -- pointers and examples --------------------------------------------------------------------------

_NAMES = ("user_id", "version", "last_ts", "label", "vec", "user_id")


def _table_of(data: bytes) -> Any:
    """A table whose columns, types and values the bytes choose."""
    import pyarrow as pa

    kinds = [
        pa.int64(), pa.int32(), pa.uint64(), pa.float32(), pa.string(), pa.large_string(), pa.bool_(),
        pa.list_(pa.int32()), pa.list_(pa.float32(), 2), pa.timestamp("ms"), pa.dictionary(pa.int32(), pa.string()),
        pa.binary(), pa.null(), pa.float16(), pa.decimal128(5), pa.string_view(),
    ]  # fmt: skip
    source = io.BytesIO(data)

    def take() -> int:
        got = source.read(1)
        return got[0] if got else 0

    columns: list[Any] = []
    names: list[str] = []
    rows = take() % 5
    for _ in range(take() % 5):
        kind, names = kinds[take() % len(kinds)], [*names, _NAMES[take() % len(_NAMES)]]
        values: list[Any] = []
        for _ in range(rows):
            value = int.from_bytes(source.read(1 + take() % 8), "little", signed=True)
            values.append(None if value == 0 and take() % 4 == 0 else _as_kind(value, kind))
        try:
            columns.append(pa.array(values, kind))
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            columns.append(pa.nulls(rows, kind))
    return pa.table(columns, names=names) if columns else pa.table({})


def _as_kind(value: int, kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return [value % 100] * 2
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
    return str(value) if text or str(kind) == "string_view" else b"%d" % value if pa.types.is_binary(kind) else value


def _pointer_seeds() -> list[bytes]:
    from uihkv import Pointers

    packed = Pointers([1, 2, -3], [0, 4, 5], [0, 7, 8]).pack()
    return [b"\0" + packed, b"\1\2\3\0\0\1\5\1\6\0\1\1\7\1\2\0\2\1\1\1\1", b"\1\3\2\4\0\2\1\2\3\4\1\0\1\1"]


def _run_pointers(data: bytes) -> tuple[str, list[int]]:
    """Packed pointers, and tables of pointers and examples."""
    from loader import ArrayExamples
    from uihkv import Pointers

    if data[:1] != b"\1":
        pointers = Pointers.from_packed(data[1:])
        if pointers.pack() != data[1:]:
            raise AssertionError("pointers are not what was packed")
        return "packed", [min(len(pointers), 8)]
    table = _table_of(data[1:])
    pointers = Pointers.from_arrow(table)
    if Pointers.from_arrow(pointers.to_arrow()) != pointers:
        raise AssertionError("pointers are not what they were as a table")
    examples = ArrayExamples(table)
    if examples.pointers != pointers:
        raise AssertionError("examples have other pointers than their table")
    return "a table", [len(examples), len(examples.columns)]


def _example_seeds() -> list[bytes]:
    """Parquet files: plain, compressed, with strings, lists and no rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [
        pa.table({"user_id": [1, 2], "version": [0, 3], "label": pa.array([0.0, 1.0], pa.float32())}),
        pa.table({"user_id": ["a", "b"], "version": [0, 3], "last_ts": [0, 9]}),
        pa.table({"user_id": [1], "version": [0], "vec": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))}),
        pa.table({"user_id": pa.array([], pa.int64()), "version": pa.array([], pa.int64())}),
    ]
    seeds = []
    for table in tables:
        for options in ({"compression": "none", "use_dictionary": False}, {"compression": "snappy"}):
            file = io.BytesIO()
            pq.write_table(table, file, store_schema=False, **options)
            seeds.append(file.getvalue())
    return [seed for seed in seeds if len(seed) < LONGEST]


@cache
def _place() -> Path:
    """A file of this process, in memory where that is possible."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    return folder / f"uihkv-guided-{os.getpid()}.parquet"


def _run_examples(data: bytes) -> tuple[str, list[int]]:
    """A file of examples."""
    from loader import ParquetExamples

    _place().write_bytes(data)
    try:
        examples = ParquetExamples(_place())
    finally:
        _place().unlink()
    return "read", [len(examples), len(examples.columns)]


TARGETS: dict[str, Target] = {
    "manifest": Target(_manifest_seeds, _run_manifest),
    "records": Target(_record_seeds, _run_record),
    "header": Target(_chunk_seeds, _run_header),
    "chunk": Target(_chunk_seeds, _run_chunk),
    "pointers": Target(_pointer_seeds, _run_pointers),
    "examples": Target(_example_seeds, _run_examples),
}


# -- fuzzing ----------------------------------------------------------------------------------------


def attempt(target: Target, data: bytes) -> tuple[str, list[int]]:
    """Run a target: how it ended, by a word that has no numbers in it, and what was seen.

    Raises:
        Exception: what is no error of ours: a finding.

    """
    from uihkv import UihkvError

    try:
        return target.run(data[:LONGEST])
    except UihkvError as error:
        words = "".join(letter for letter in str(error).rsplit(": ", 1)[-1] if letter.isalpha() or letter == " ")
        return f"refused: {type(error).__name__} {words[:60]}", []


def make_marker() -> Callable[[int], int]:
    """A function with a branch for each of :data:`MARKS` numbers: what a fuzzer by coverage can see of others' code."""
    lines = ["def mark(number):", *(f"    if number == {n}: return {n}" for n in range(MARKS)), "    return -1"]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    marker: Callable[[int], int] = names["mark"]
    return marker


def change(data: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    """A seed with some random changes."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(6):
            case 0 | 1 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(out):
                out[at] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
            case 3:
                del out[at : at + chance.randint(1, 16)]
            case 4:
                out[at:at] = chance.randbytes(chance.randint(1, 8))
            case _:
                other = chance.choice(seeds)
                low = chance.randrange(len(other) + 1)
                out[at : at + chance.randint(0, 32)] = other[low : low + chance.randint(1, 32)]
    return bytes(out)


def fuzz_blindly(target: Target, seconds: float, seed: int = 0, cases: int | None = None) -> Counter[str]:
    """Change seeds at random, for so long or so many cases; counts by how it ended."""
    seeds, chance = target.seeds(), random.Random(seed)
    counts: Counter[str] = Counter()
    for one in seeds:
        counts[attempt(target, one)[0]] += 1
    end = time.monotonic() + seconds
    while time.monotonic() < end and (cases is None or counts.total() < cases + len(seeds)):
        data = change(chance.choice(seeds), seeds, chance)
        try:
            counts[attempt(target, data)[0]] += 1
        except Exception as error:
            error.add_note(f"the input: {data!r}")
            raise
    return counts


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(prog="python -m perf.guidedtargets", description="Fuzz one parser by coverage.")
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of inputs, which grows")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blind", action="store_true", help="without atheris")
    given = parser.parse_args()
    target = TARGETS[given.name]
    if given.blind:
        counts = fuzz_blindly(target, given.seconds, given.seed)
        print(f"#{counts.total()} DONE cov: 0 ft: {len(counts)} corp: 0/0b", file=sys.stderr)
        return
    import atheris

    kernels = [f"uihkv.kernels.{path.stem}" for path in (GOLDEN.parents[1] / "uihkv" / "kernels").glob("*.py")]
    with atheris.instrument_imports(include=["uihkv", "loader"], exclude=kernels):
        import loader
        import uihkv.manifest
        import uihkv.sources

        seeds = target.seeds()
    assert loader is not None
    assert uihkv is not None
    mark = atheris.instrument_func(make_marker())
    given.corpus.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(seeds):
        attempt(target, one)  # compiles what it needs
        (given.corpus / f"seed-{number:04d}").write_bytes(one)

    def run(data: bytes) -> None:
        word, seen = attempt(target, data)
        for feature in (hash(word), *(hash((word, one)) for one in seen)):
            mark(feature % MARKS)

    artifacts = given.corpus.parent / f"finding-{given.name}-"
    options = [
        f"-max_total_time={given.seconds}", f"-max_len={LONGEST}", f"-timeout={HANGS_S}", "-rss_limit_mb=4096",
        f"-seed={given.seed}", f"-artifact_prefix={artifacts}", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(given.corpus)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
