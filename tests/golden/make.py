"""Make the stores that every later version must open, verify and read the same, and what they hold.

``python -m tests.golden.make`` writes ``formatN-KIND.tar.gz`` and ``.json`` beside this file, for the format that the
package writes now. Once a format is released its files stay as they are for ever: make only those of a new one.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from uihkv import Column, Pointers, Schema, Store
from uihkv.dtypes import BFLOAT16, CODED, DTYPES, element_type
from uihkv.manifest import STORE_FORMAT

HERE = Path(__file__).parent
KINDS = ("int64", "string")
IDS: dict[str, list[Any]] = {"int64": [-(2**63), -1, 0, 7, 2**63 - 1], "string": ["a", "7", "Ω\0", "é" * 200, "user"]}
COUNT = [3, 30, 1, 90, 17]
"""Events of each user in a batch."""


def schema_of(kind: str) -> Schema:
    """A column of every type, one of a shape, ragged ones, and two that change later."""
    plain = [Column(f"c_{dtype}", dtype) for dtype in DTYPES]
    more = [
        Column("shaped", "float32", shape=(2, 3)), Column("ragged_int", "int32", ragged=True),
        Column("ragged_float", "float64", ragged=True), Column("wider", "int16"), Column("dropped", "uint32"),
    ]  # fmt: skip
    return Schema([*plain, *more], time_unit="ms", user_id=kind)


def batch(schema: Schema, number: int) -> dict[str, Any]:
    """Events of all users: values that compress and such that do not, at the ends of their types too."""
    rng = np.random.default_rng(number)
    user = np.repeat(np.arange(len(COUNT)), COUNT)
    n = len(user)
    ids = IDS[schema.user_id]
    rows: dict[str, Any] = {"user_id": [ids[at] for at in user], "ts": 1_000_000 * number + np.arange(n) * 7}
    for column in schema.columns:
        if column.dtype in CODED:
            words = ["", "click", "Ω", "a longer word", "\0"]
            drawn = [words[at] for at in rng.integers(0, len(words), n)]
            rows[column.name] = drawn if column.dtype == "string" else [word.encode() for word in drawn]
        elif column.ragged:
            rows[column.name] = [_values(column, rng, (int(size),)) for size in rng.integers(0, 5, n)]
        else:
            rows[column.name] = _values(column, rng, (n, *column.shape))
    return rows


def _values(column: Column, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    dtype = element_type(column.dtype)
    if column.dtype == "bool":
        return rng.random(shape) < 0.3
    if column.dtype == BFLOAT16:
        return rng.integers(0, 2**16, shape).astype(dtype)
    if dtype.kind == "f":
        odd = np.array([0.0, -0.0, np.nan, np.inf, 0.25, 19.99], dtype)
        return np.where(rng.random(shape) < 0.2, rng.choice(odd, shape), rng.normal(size=shape).astype(dtype))
    limits = np.iinfo(dtype)
    far = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.1, far, rng.integers(0, 9, shape).astype(dtype))


def make(kind: str, folder: Path) -> dict[str, Any]:
    """Live a store's life in a folder: what it then holds."""
    schema = schema_of(kind)
    with Store.create(folder / "store", schema, shards=2, chunk_events=32) as store:
        store.append(batch(schema, 1), backfill=True, source="log", offset=5)
        store.seal()
        store.append(batch(schema, 2), visible_at=np.full(sum(COUNT), 2_500_000), source="log", offset=9)
        store.widen_column("wider", "int64")
        store.add_column(Column("added", "float32", default=0.5))
        store.drop_column("dropped")
        store.append(batch(store.schema, 3), backfill=True, source="other", offset=0)
        store.compact()
        store.append(batch(store.schema, 4), backfill=True, source="log", offset=11)
        store.trim(IDS[kind][3], 100)
        store.backup(folder / "whole")
    with Store.open(folder / "whole", readonly=True) as store:
        return describe(store)


def describe(store: Store) -> dict[str, Any]:
    """All that a store holds, every value by its bits."""
    with store.snapshot(verify="always") as snapshot:
        heads = snapshot.head(IDS[store.schema.user_id])
        stats = store.stats()
        histories = [
            {"version": version, **_read(snapshot, Pointers(heads.user_id[at : at + 1], [version]))}
            for at, head in enumerate(heads.version.tolist())
            for version in (head, max(head // 2, 1))
        ]
        moments = [0, 1_000_001, 2_500_000, 2_500_001, 3_000_100, 2**62]
        resolved = [
            snapshot.resolve(heads.user_id, [moment] * len(heads), on_trimmed="truncate").version.tolist()
            for moment in moments
        ]
    return {
        "fingerprint": store.fingerprint, "shards": store.shards, "schema": _plain(store.schema.describe()),
        "sources": store.sources(), "heads": heads.version.tolist(), "last_ts": heads.last_ts.tolist(),
        "resolved": resolved, "histories": histories,
        "counts": [stats.users, stats.events, stats.chunks, stats.tail_events, stats.trimmed_users],
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=repr))


def _read(snapshot: Any, pointer: Pointers) -> dict[str, Any]:
    found = snapshot.read(pointer, on_trimmed="truncate")
    columns = {}
    for name in found.columns:
        values, inner = found.values(name), found.element_offsets(name)
        columns[name] = [values.dtype.str, values.tobytes().hex(), None if inner is None else inner.tolist()]
    return {"length": int(found.lengths[0]), "columns": columns}


def main() -> None:
    """Write the files of the format in force."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            expected = make(kind, Path(folder))
            with tarfile.open(HERE / f"format{STORE_FORMAT}-{kind}.tar.gz", "w:gz") as archive:
                for file in sorted((Path(folder) / "whole").rglob("*")):
                    if file.is_file() and file.name != "lock.mdb":
                        archive.add(file, file.relative_to(Path(folder) / "whole").as_posix())
        (HERE / f"format{STORE_FORMAT}-{kind}.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
