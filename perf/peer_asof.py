"""The peers' side of ASOF benches: DuckDB and Polars in a process and an interpreter of their own.

Run by :mod:`perf.peers` with an interpreter that has them (``pip install 'uihkv[bench]'``); it imports nothing of this
package. One JSON object a line on standard input is a command, one on standard output its answer.

- ``{"do": "load", "events": PATH, "requests": PATH}``: both into memory, as each peer likes them;
- ``{"do": "join", "peer": NAME, "strict": true, "out": PATH?}``: for each request the newest event of its user before
  its moment (``strict``) or not after it; the answer has ``seconds``, and with ``out`` the joined ``value`` goes to a
  file.

Events have ``user_id``, ``at`` and ``value``, one row a user and moment, sorted by ``at``; requests have ``user_id``,
``at`` and ``row``, sorted by ``at``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any


class DuckDB:
    """``ASOF LEFT JOIN`` over tables in memory, all cores."""

    def __init__(self, events: str, requests: str) -> None:
        import duckdb

        self._connection = duckdb.connect()
        for name, path in (("events", events), ("requests", requests)):
            self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{path}')")

    def join(self, strict: bool) -> Any:
        """An Arrow table of ``row`` and ``value``."""
        sign = ">" if strict else ">="
        return self._connection.sql(
            "SELECT r.row, e.value FROM requests r ASOF LEFT JOIN events e "
            f"ON r.user_id = e.user_id AND r.at {sign} e.at"
        ).to_arrow_table()


class Polars:
    """``join_asof`` over frames sorted by time, all cores."""

    def __init__(self, events: str, requests: str) -> None:
        import polars

        self._events = polars.read_parquet(events).set_sorted("at")
        self._requests = polars.read_parquet(requests).set_sorted("at")

    def join(self, strict: bool) -> Any:
        """An Arrow table of ``row`` and ``value``."""
        joined = self._requests.join_asof(
            self._events, on="at", by="user_id", strategy="backward", allow_exact_matches=not strict,
            check_sortedness=False,
        )  # fmt: skip
        return joined.select("row", "value").to_arrow()


PEERS: dict[str, Callable[[str, str], Any]] = {"duckdb": DuckDB, "polars": Polars}


def main() -> None:
    """Answer commands until the input ends."""
    loaded: dict[str, Any] = {}
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "load":
            loaded = {name: peer(command["events"], command["requests"]) for name, peer in PEERS.items()}
        else:
            begin = time.perf_counter()
            table = loaded[command["peer"]].join(command["strict"])
            answer["seconds"] = time.perf_counter() - begin
            if command.get("out"):
                import pyarrow.parquet as pq

                pq.write_table(table, command["out"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
