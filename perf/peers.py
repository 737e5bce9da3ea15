"""Other engines beside ours: a process of theirs, asked over a pipe.

They live in an environment of their own (``pip install 'uihkv[bench]'`` there, and its interpreter in
``UIHKV_BENCH_PYTHON``), or in this one. Where they are missing a bench goes on without them and says why.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

INTERPRETER = "UIHKV_BENCH_PYTHON"
FEAST_INTERPRETER = "UIHKV_FEAST_PYTHON"
"""Another one, for Feast (``pip install 'feast[duckdb]' timefence``), which pins much, and for Timefence."""
ASOF_PEERS = ("duckdb", "polars")


def why_missing(modules: tuple[str, ...] = ASOF_PEERS, interpreter: str = INTERPRETER) -> str | None:
    """Why the peers cannot run; None: they can."""
    python = os.environ.get(interpreter, sys.executable)
    code = f"import pyarrow, {', '.join(modules)}"
    try:
        tried = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{interpreter} names {python}, which does not run ({error})"
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"{python}: {last}; install it there, or name another interpreter in {interpreter}"
    return None


def join_with_feast(
    folder: Path, events: tuple[Int64s, Int64s, Int64s, Int64s], requests: tuple[Int64s, Int64s]
) -> tuple[Int64s, Int64s]:
    """What Feast's point-in-time join finds, without and with ``filter_by_created_timestamp``: int64[requests] each.

    Args:
        folder: where the tables are handed over.
        events: int64[events] each: user, ts and time of creation in milliseconds, and the value to be found.
        requests: int64[requests] each: user and moment; 0 is found where there is nothing.

    """
    folder.mkdir(exist_ok=True)
    user, ts, created, found = events
    times = [pa.array(column, pa.timestamp("ms", tz="UTC")) for column in (ts, created, requests[1])]
    pq.write_table(
        pa.table({"user_id": user, "ts": times[0], "created": times[1], "found": found}), folder / "events.parquet"
    )
    rows = np.arange(len(requests[0]))
    asked = pa.table({"user_id": requests[0], "event_timestamp": times[2], "row": rows})
    pq.write_table(asked, folder / "requests.parquet")
    python = os.environ.get(FEAST_INTERPRETER, sys.executable)
    script = Path(__file__).with_name("peer_feast.py")
    subprocess.run([python, "-W", "ignore", script, folder], check=True, capture_output=True)
    answers = []
    for name in ("plain", "created"):
        table = pq.read_table(folder / f"{name}.parquet")
        answer = np.zeros(len(rows), np.int64)
        answer[table.column("row").to_numpy()] = table.column("found").to_numpy()
        answers.append(answer)
    return answers[0], answers[1]


def audit_with_timefence(
    folder: Path, users: Int64s, as_of: Int64s, newest_ts: Int64s, newest_visible: Int64s
) -> dict[str, int]:
    """How many joined rows Timefence's audit finds leaking, by either clock of each row's newest events.

    Args:
        folder: where the table is handed over.
        users, as_of: int64[rows], of the requests; times in milliseconds.
        newest_ts, newest_visible: int64[rows], greatest of the events joined to each; negative where there is none.

    """
    folder.mkdir(exist_ok=True)
    columns = {"as_of": as_of, "newest_ts": newest_ts, "newest_visible": newest_visible}
    times = {name: pa.array(column, pa.timestamp("ms", tz="UTC"), mask=column < 0) for name, column in columns.items()}
    pq.write_table(pa.table({"user_id": users, **times}), folder / "joined.parquet")
    python = os.environ.get(FEAST_INTERPRETER, sys.executable)
    script = Path(__file__).with_name("peer_timefence.py")
    subprocess.run([python, "-W", "ignore", script, folder], check=True, capture_output=True)
    found: dict[str, int] = json.loads((folder / "audit.json").read_text())
    return found


class AsofPeers:
    """DuckDB and Polars, with the same events and requests in memory.

    Args:
        folder: where the tables are handed over.
        events: int64[events] each: user, moment and value, in arrival order; of equal user and moment the last counts.
        requests: int64[requests] each: user and moment.

    """

    def __init__(self, folder: Path, events: tuple[Int64s, Int64s, Int64s], requests: tuple[Int64s, Int64s]) -> None:
        folder.mkdir(exist_ok=True)
        user, at, value = events
        order = np.lexsort((np.arange(len(user)), at, user))
        last = np.append((np.diff(user[order]) != 0) | (np.diff(at[order]) != 0), True)
        rows = order[last] if len(order) else order
        rows = rows[np.argsort(at[rows], kind="stable")]
        _write(folder / "events.parquet", {"user_id": user[rows], "at": at[rows], "value": value[rows]})
        rows = np.argsort(requests[1], kind="stable")
        _write(folder / "requests.parquet", {"user_id": requests[0][rows], "at": requests[1][rows], "row": rows})
        self._folder = folder
        self._rows = len(rows)
        python = os.environ.get(INTERPRETER, sys.executable)
        script = Path(__file__).with_name("peer_asof.py")
        self._process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ask(
            {"do": "load", "events": str(folder / "events.parquet"), "requests": str(folder / "requests.parquet")}
        )

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None  # they are pipes
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peers' process ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def join(self, peer: str, strict: bool = True) -> float:
        """Seconds of one join, by the peer's own clock."""
        return float(self._ask({"do": "join", "peer": peer, "strict": strict})["seconds"])

    def values(self, peer: str, strict: bool = True) -> Int64s:
        """The joined values in the requests' order, 0 where there is none: int64[requests]."""
        out = self._folder / f"{peer}.parquet"
        self._ask({"do": "join", "peer": peer, "strict": strict, "out": str(out)})
        table = pq.read_table(out)
        found = np.zeros(self._rows, np.int64)
        found[table.column("row").to_numpy()] = table.column("value").fill_null(0).to_numpy()
        return found

    def close(self) -> None:
        """End the peers' process."""
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write(path: Path, columns: dict[str, Int64s]) -> None:
    pq.write_table(pa.table(columns), path, compression="none")
