"""How many bytes does an event take on disk, against raw columns and against Parquet?

The whole store counts: every data file with its free pages and the waste inside pages, and the manifest (LMDB's lock
files hold no data). Against it stand *raw* columns (``ts`` and the schema's columns at the schema's widths, and the
visible time where the log has a clock of its own) and the same events sorted by user in Parquet, with lz4 and with
zstd. ``user_id`` does not count as raw (with it, ratios to raw would be lower by the factor given beside); Parquet
holds it, since without it nobody could tell whose the events are. A second table says where the bytes are.

Logs: both real ones of ``../shared/data``, as far as they are there, and a synthetic one with a heavy tail up to
65,536 events a user (50 M events in the long form). Stores are written batch by batch in order of arrival, or at
once, or compacted, where the store can do that.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perf.harness import Chart, Curve, Report, Section, Settings, run_bench
from perf.report import Cell
from perf.workloads import Workload, make_log
from uihkv import Column, Schema, Store
from uihkv.codec import Slices, measure_slices
from uihkv.kernels.decode import VERIFY_ONCE

DATA = Path(__file__).parents[2] / "shared" / "data"
REAL_LOGS = ("git", "ansible")
REAL_SCHEMA = Schema(
    [
        Column("item_id", "int64"), Column("kind", "uint16"), Column("added", "int32"), Column("deleted", "int32"),
        Column("binary", "uint8"),
    ]
)  # fmt: skip
BATCH_EVENTS = 1 << 22
_PAGE_HEADER, _NODE = 16, 10
"""LMDB's own bytes: of a page's header, and a node's header with the slot that points to it."""


@dataclass(frozen=True, slots=True)
class EventLog:
    """Events in the order in which they are appended, and the most that targets allow."""

    name: str
    schema: Schema
    columns: dict[str, NDArray[Any]]  # with user_id and ts
    visible_at: NDArray[np.int64] | None
    of_raw: float
    of_lz4: float

    def __len__(self) -> int:
        return len(self.columns["ts"])

    @property
    def raw_bytes(self) -> int:
        """Bytes of all columns but ``user_id``."""
        clock = 0 if self.visible_at is None else self.visible_at.nbytes
        return clock + sum(column.nbytes for name, column in self.columns.items() if name != "user_id")


def real_logs() -> Iterator[EventLog]:
    """The logs that lie beside the repository."""
    import pyarrow.parquet

    for name in REAL_LOGS:
        path = DATA / f"{name}-events.parquet"
        if path.exists():
            table = pyarrow.parquet.read_table(path)
            columns = {column: table.column(column).to_numpy() for column in table.schema.names}
            visible = columns.pop("arrived_at")
            yield EventLog(name, REAL_SCHEMA, columns, visible, of_raw=0.45, of_lz4=1.35)


def synthetic_log(settings: Settings) -> EventLog:
    """Five columns, users' events interleaved at random (each user's in order)."""
    log = make_log(Workload(users=settings.pick(3_700, 61_000), mean_length=1_000), settings.seed)
    columns = {"user_id": log.user_id, **log.readable}
    order = np.argsort(log.visible_at, kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    return EventLog("synthetic", log.schema, columns, None, of_raw=0.6, of_lz4=1.15)


def parquet_bytes(log: EventLog, path: Path, codec: str) -> int:
    """Size of the events, sorted by user, in Parquet."""
    import pyarrow as pa
    import pyarrow.parquet

    order = np.argsort(log.columns["user_id"], kind="stable")
    columns = {name: column[order] for name, column in log.columns.items()}
    if log.visible_at is not None:
        columns["visible_at"] = log.visible_at[order]
    pyarrow.parquet.write_table(pa.table(columns), path, compression=codec)
    size = path.stat().st_size
    path.unlink()
    return size


def append_log(store: Store, log: EventLog, batch_events: int) -> None:
    """The log in batches; visible times are its own, else ``ts``."""
    for first in range(0, len(log), batch_events):
        part = slice(first, first + batch_events)
        rows = {name: column[part] for name, column in log.columns.items()}
        if log.visible_at is None:
            store.append(rows, backfill=True)
        else:
            store.append(rows, log.visible_at[part])


def break_down(store: Store, own_clock: bool) -> dict[str, int]:
    """Bytes of a store by what they are: these add up to the size of its files."""
    layouts = store._open.layouts()
    found: dict[str, int] = dict.fromkeys(["chunk headers", *layouts.schema.readable], 0)
    lmdb_parts = dict.fromkeys(["keys", "nodes", "waste in pages", "branch pages", "free pages", "other"], 0)
    for number in range(store.shards):
        with store._open.reading(number) as (shard, transaction):
            directory = shard.directory(transaction)
            entries = directory.entries
            every = np.arange(len(entries.user))
            directory.prepare(every, layouts, VERIFY_ONCE)
            payload = int(entries.size.sum())
            count = entries.end - entries.start
            filled = every[count > 0]
            slices = Slices(filled, np.zeros_like(filled), count[filled], np.cumsum(count[filled]) - count[filled])
            for name in layouts.schema.readable:
                if name == "visible_at" and not own_clock:
                    continue  # the same as ts: it has no bytes of its own
                size = measure_slices(entries, layouts, slices, [name])[1]
                found[name] += size
                payload -= size
            found["chunk headers"] += payload
            key_bytes = 24 * entries.first_tail + 8 * (len(every) - entries.first_tail)
            stats = [transaction.stat(db) for db in (shard._chunks, shard._tails, shard._sources)]
            page = stats[0]["psize"]
            branch, leaf, overflow = (
                sum(stat[f"{kind}_pages"] for stat in stats) for kind in ("branch", "leaf", "overflow")
            )
            lmdb_parts["keys"] += key_bytes
            lmdb_parts["nodes"] += _NODE * len(every)
            lmdb_parts["branch pages"] += page * branch
            inside = page * (leaf + overflow) - key_bytes - _NODE * len(every) - int(entries.size.sum())
            lmdb_parts["waste in pages"] += inside
            file = (store.path / "shards" / f"{number:04d}" / "data.mdb").stat().st_size
            lmdb_parts["free pages"] += file - page * (branch + leaf + overflow + 3)  # two metas, one root
            lmdb_parts["other"] += 3 * page
    lmdb_parts["other"] += (store.path / "manifest.msgpack").stat().st_size
    return found | lmdb_parts


def weigh(
    settings: Settings, log: EventLog, shards: int, batch_events: int, compact: bool = False
) -> tuple[int, dict[str, int], int]:
    """Bytes of a store of the log, where they are, and how many users it has."""
    path = settings.scratch / "store"
    _remove(path)
    with Store.create(path, log.schema, shards=shards) as store:
        append_log(store, log, batch_events)
        users = store.stats().users
        if compact:
            _remove(settings.scratch / "compacted")
            store.compact(copy_to=settings.scratch / "compacted")
        else:
            total, parts = store.stats().bytes, break_down(store, log.visible_at is not None)
    if compact:
        with Store.open(settings.scratch / "compacted", readonly=True) as store:
            total, parts = store.stats().bytes, break_down(store, log.visible_at is not None)
        _remove(settings.scratch / "compacted")
    _remove(path)
    if sum(parts.values()) != total:
        raise RuntimeError(f"the parts add up to {sum(parts.values())} bytes, the files have {total}")
    return total, parts, users


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def measure(settings: Settings) -> Report:
    """Weigh every log in every form."""
    rows: list[dict[str, Cell]] = []
    where: list[dict[str, Cell]] = []
    notes: list[str] = []
    by_column: dict[str, dict[str, float]] = {}
    logs = [*real_logs(), synthetic_log(settings)]
    for log in logs:
        n = len(log)
        lz4 = parquet_bytes(log, settings.scratch / "events.parquet", "lz4")
        zstd = parquet_bytes(log, settings.scratch / "events.parquet", "zstd")
        forms: dict[str, Mapping[str, Any]] = {
            "one append, 1 shard": {"shards": 1, "batch_events": n},
            "one append, 16 shards": {"shards": 16, "batch_events": n},
            "8 batches, 16 shards": {"shards": 16, "batch_events": -(-n // 8)},
        }
        if n > BATCH_EVENTS:
            forms = {"batches, 16 shards": {"shards": 16, "batch_events": BATCH_EVENTS}}
        forms |= {f"{name}, compacted": {**form, "compact": True} for name, form in [*forms.items()][-1:]}
        for name, form in forms.items():
            total, parts, users = weigh(settings, log, **form)
            event = total / n
            rows.append(
                {
                    "log": log.name, "store": name, "bytes": event,
                    "of raw": total / log.raw_bytes, "(target)": f"{log.of_raw}", "of lz4": total / lz4,
                    "(target) ": f"{log.of_lz4}", "of zstd": total / zstd,
                }
            )  # fmt: skip
            blocks = {column: size / n for column, size in parts.items() if column in log.schema.readable}
            rest = {part: size / n for part, size in parts.items() if part not in log.schema.readable}
            where.append({"log": log.name, "store": name, "columns": sum(blocks.values()), **rest})
            by_column[f"{log.name}, {name}"] = blocks
        raw = log.raw_bytes / n
        notes.append(
            f"{log.name}: {n:,} events of {users:,} users; raw {raw:.0f} bytes an event ({raw + 8:.0f} with user_id: "
            f"ratios times {raw / (raw + 8):.2f}); Parquet lz4 {lz4 / n:.2f} ({lz4 / log.raw_bytes:.3f} of raw), zstd "
            f"{zstd / n:.2f}"
        )
        gc.collect()
    stores = [f"{row['log']}, {row['store']}" for row in rows]
    kinds = list(dict.fromkeys(name for row in where for name in row if name not in ("log", "store")))
    return Report(
        charts=[
            Chart("Bytes on disk", "", "over the same events elsewhere", [
                Curve(name, stores, [float(str(row[name])) for row in rows]) for name in ("of raw", "of lz4", "of zstd")
            ], kind="bars", line_at=1.0),
            Chart("Where they are", "", "bytes an event", [
                Curve(name, stores, [float(str(row[name])) for row in where]) for name in kinds
            ], kind="bars"),
        ],
        sections=[
            Section("Bytes an event on disk, of raw columns and of Parquet with lz4 and zstd", rows),
            Section("Where they are, bytes an event (columns: stored blocks)", where),
        ],
        notes=notes,
        facts={"bytes an event by column": by_column},
    )  # fmt: skip


if __name__ == "__main__":
    run_bench("footprint", __doc__, measure)
