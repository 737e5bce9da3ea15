"""One run of the protocol over a log: a writer with crashes, a serving side that lags, a trainer, and compaction.

The log's events arrive in its order. The writer commits them batch by batch; what it commits becomes visible at the
commit: the arrival of the batch's last event and a random lag later. Some batches are sent twice. At some the writer
is a process that is killed at a random moment of its append, and the batch is sent again. Meanwhile another process
compacts the store, and another trains on the examples as they are logged (:mod:`perf.protocol_trainer`).

Between two commits requests are served, at random moments before the next commit; each reads a snapshot that is a
random lag old: mostly the newest, at times one some commits old. What it logs is its pointer, its moment and the digest
of what it read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perf.digest import digest_sequences
from uihkv import Pointers, Projection, Schema, Snapshot, Store

Int64s = NDArray[np.int64]
Array = NDArray[Any]

WINDOW = 64
"""Newest events of each request's history that are read and compared."""
CRASHES, REPLAYS = 0.05, 0.1
"""Shares of batches at which the writer is killed, and that come twice."""
STALE_SNAPSHOTS = 6
LAG = 0.25
"""Mean lags of commits behind arrivals, and of snapshots behind requests, in medians of the time between commits."""

_COMPACTOR = """
import sys, time
from uihkv import Store
with Store.open(sys.argv[1]) as store:
    while True:
        store.seal()
        store.compact()
        time.sleep(0.5)
"""


@dataclass(frozen=True, slots=True)
class ArrivingLog:
    """Events in order of arrival.

    Attributes:
        schema: of the columns.
        columns: ``user_id``, ``ts`` and the schema's, ``[events]`` each.
        arrived_at: int64[events], in the time unit; may step back a little.

    """

    schema: Schema
    columns: dict[str, Array]
    arrived_at: Int64s

    def __len__(self) -> int:
        return len(self.arrived_at)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What was logged, and what happened.

    Attributes:
        pointers: of all examples, as logged.
        as_of: int64[examples].
        served: int64[examples], digests of what was read.
        visible_at: int64[events] of the log, as stored.
        crashes: writers killed.
        torn: of these, killed when some shards had the batch and others had not.
        replayed: events that came again and were not stored.
        trainer: what the streaming trainer says.

    """

    pointers: Pointers
    as_of: Int64s
    served: Int64s
    visible_at: Int64s
    crashes: int
    torn: int
    replayed: int
    trainer: dict[str, int]


def run_protocol(path: Path, log: ArrivingLog, *, batches: int, requests: int, seed: int) -> RunResult:
    """Write, serve, train and compact; the store stays at the path.

    Args:
        path: of the store, which is made.
        log: what arrives.
        batches: commits.
        requests: examples in all.
        seed: of everything drawn.

    """
    rng = np.random.default_rng(seed)
    bounds = np.linspace(0, len(log), batches + 1).astype(np.int64)
    arrived = np.maximum.accumulate(log.arrived_at)[bounds[1:] - 1]
    lag = LAG * float(np.median(np.diff(arrived)))
    commits = arrived + rng.exponential(lag, batches).astype(np.int64)
    commits = np.maximum.accumulate(commits - np.arange(batches)) + np.arange(batches)  # no two at one moment
    visible_at = np.repeat(commits, np.diff(bounds))
    until = np.append(commits[1:], commits[-1] + 1 + int(lag))
    counts = np.diff(np.linspace(0, requests, batches + 1).astype(np.int64))
    logged: list[tuple[Pointers, Int64s, Int64s]] = []
    crashes = torn = replayed = 0
    with Store.create(path, log.schema, shards=4, chunk_events=256) as store:
        compacting = subprocess.Popen([sys.executable, "-c", _COMPACTOR, path])
        training = subprocess.Popen(
            [sys.executable, "-m", "perf.protocol_trainer", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert training.stdin is not None and training.stdout is not None  # they are pipes
        try:
            snapshots: deque[tuple[int, Snapshot]] = deque()
            stream: Any = None
            for batch in range(batches):
                rows = slice(int(bounds[batch]), int(bounds[batch + 1]))
                data = {name: column[rows] for name, column in log.columns.items()}
                if rng.random() < CRASHES:
                    crashes += 1
                    _append_and_die(store, data, visible_at[rows], batch, float(rng.random()))
                again = store.append(data, visible_at[rows], source="log", offset=batch).replayed
                torn += 0 < again < len(visible_at[rows])
                replayed += again
                if rng.random() < REPLAYS:
                    offset = int(rng.integers(0, batch + 1))
                    replayed += store.append(data, visible_at[rows], source="log", offset=offset).replayed
                snapshots.append((int(commits[batch]), store.snapshot()))
                if len(snapshots) > STALE_SNAPSHOTS:
                    snapshots.popleft()[1].close()
                users = log.columns["user_id"][
                    rng.integers(0, len(log) if batch % 8 == 0 else rows.stop, counts[batch])
                ]
                as_of = rng.integers(commits[batch] + 1, until[batch] + 1, len(users))
                found = _serve(snapshots, users, as_of - rng.exponential(lag, len(users)))
                logged.append((found[0], as_of, found[1]))
                table = found[0].to_arrow().append_column("as_of", pa.array(as_of))
                table = table.append_column("served", pa.array(found[1]))
                if stream is None:
                    stream = pa.ipc.new_stream(pa.PythonFile(training.stdin, mode="w"), table.schema)
                stream.write_table(table)
                training.stdin.flush()
            stream.close()
            training.stdin.close()
            answer: dict[str, int] = json.loads(training.stdout.read())
            if training.wait():
                raise RuntimeError("the streaming trainer failed")
            for _, snapshot in snapshots:
                snapshot.close()
        finally:
            for process in (training, compacting):
                process.kill()
                process.wait()
    return RunResult(
        Pointers.concat([part[0] for part in logged]), np.concatenate([part[1] for part in logged]),
        np.concatenate([part[2] for part in logged]), visible_at, crashes, torn, replayed, answer,
    )  # fmt: skip


def _append_and_die(store: Store, data: dict[str, Array], visible_at: Int64s, offset: int, moment: float) -> None:
    """A writer that is killed while it appends."""
    child = os.fork()
    if not child:
        try:
            store.append(data, visible_at, source="log", offset=offset)
        finally:
            os._exit(0)
    time.sleep(0.03 * moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _serve(
    snapshots: deque[tuple[int, Snapshot]], users: Int64s, taken_at: NDArray[np.float64]
) -> tuple[Pointers, Int64s]:
    """Pointers and digests of what requests read, each from the snapshot that was the newest at a moment."""
    place = np.searchsorted([commit for commit, _ in snapshots], taken_at, side="right") - 1
    place = np.maximum(place, 0)
    version, last_ts, served = (np.empty(len(users), np.int64) for _ in range(3))
    for number in np.unique(place).tolist():
        snapshot = snapshots[number][1]
        rows = np.flatnonzero(place == number)
        pointers = snapshot.head(users[rows])
        assert pointers.last_ts is not None  # heads have it
        version[rows], last_ts[rows] = pointers.version, pointers.last_ts
        served[rows] = digest_window(snapshot, pointers)[0]
    return Pointers(users, version, last_ts), served


def digest_window(snapshot: Snapshot, pointers: Pointers) -> tuple[Int64s, Int64s, Array]:
    """Digests of what a read gives, its offsets, and its visible times."""
    found = snapshot.read(pointers, Projection(("visible_at", "ts", *snapshot.schema.names), max_len=WINDOW))
    columns = {name: found.values(name) for name in found}
    return digest_sequences(found.offsets, columns), found.offsets, columns["visible_at"]


def count_leaks(offsets: Int64s, visible_at: Array, as_of: Int64s) -> int:
    """Events that became visible after the moments of the requests that they are read for."""
    return int(np.count_nonzero(visible_at > np.repeat(as_of, np.diff(offsets))))
