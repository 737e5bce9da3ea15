"""Logs by name: the real ones, and synthetic ones of any size.

- ``synthetic``: :mod:`perf.workloads` with its defaults (heavy tails to 65,536 events, Zipf items, sessions) and a
  tenth of late arrivals;
- ``uniform``: the same lengths and clocks, columns of uniform values: what compresses worst;
- ``ansible``: who changed which file of ``ansible/ansible`` when, shipped with the demo: 189,922 events;
- ``git``: the same of ``git/git``: 137,899 events, where it lies in ``../shared/data``.

Real logs have columns of their own and a visible time that is not ``ts``: a change is written at one time and arrives
at another.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import loader.demo
from loader.demo.eventlog import LOG_NAME, SCHEMA, read_log
from perf.workloads import Log, make_log, size_workload

SHARED = Path(__file__).parents[2] / "shared" / "data"
SYNTHETIC, REAL = ("synthetic", "uniform"), ("ansible", "git")


def load_log(name: str, events: int = 1_000_000, columns: int = 5, seed: int = 0) -> Log:
    """A user-major log.

    Args:
        name: of :data:`SYNTHETIC` or :data:`REAL`.
        events: of a synthetic log: about how many.
        columns: of a synthetic log: 5 or 20, ``ts`` among them.
        seed: of a synthetic log.

    Raises:
        ValueError: no log has that name.
        FileNotFoundError: a real log is not there.

    """
    if name in SYNTHETIC:
        values = "uniform" if name == "uniform" else "zipf"
        return make_log(size_workload(events, columns, late=0.1, values=values), seed)
    if name in REAL:
        return read_real_log(find_real_log(name))
    raise ValueError(f"no log {name!r}: there are {', '.join((*SYNTHETIC, *REAL))}")


def find_real_log(name: str) -> Path:
    """Where a real log's file is.

    Raises:
        FileNotFoundError: it is not there.

    """
    shipped = Path(loader.demo.__file__).parent / "data" / LOG_NAME
    path = shipped if name == "ansible" else SHARED / f"{name}-events.parquet"
    if not path.exists():
        raise FileNotFoundError(f"the log {name!r} is not at {path}; go without it, or put it there")
    return path


def read_real_log(path: Path) -> Log:
    """A file of ``user_id``, ``ts``, ``arrived_at`` and the demo's columns, in order of arrival: a user-major log."""
    read = read_log(path)
    order = np.argsort(read.user_id, kind="stable")
    users, counts = np.unique(read.user_id, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    columns = {name: read.columns[name][order] for name in SCHEMA.names}
    return Log(SCHEMA, read.user_id[order], read.ts[order], read.visible_at[order], columns, users, offsets)
