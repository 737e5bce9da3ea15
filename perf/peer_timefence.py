"""Timefence's side of :mod:`perf.protocol`: its audit of a joined data set, in an interpreter that has it.

``python peer_timefence.py FOLDER`` reads ``joined.parquet`` there (``user_id``, ``as_of``, and of each row's newest
events ``newest_ts`` and ``newest_visible``, in UTC, null where there is none) and writes ``audit.json``: how many rows
it finds leaking by each of the two clocks. It imports nothing of this package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CLOCKS = {"ts": "newest_ts", "visible time": "newest_visible"}


def main(folder: Path) -> None:
    """Audit by both clocks."""
    import timefence

    report = timefence.audit(
        str(folder / "joined.parquet"), keys="user_id", label_time="as_of", feature_time_columns=CLOCKS
    )
    leaking = {clock: report.features[clock].leaky_row_count for clock in CLOCKS}
    (folder / "audit.json").write_text(json.dumps(leaking))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
