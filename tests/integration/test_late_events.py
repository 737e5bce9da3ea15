"""Late events: what a join on event time leaks into earlier examples of the real log, and what ``resolve`` does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loader.demo.eventlog import copy_log, read_log, store_log
from loader.demo.examples import pick_requests
from uihkv import Projection

DAY_MS = 86_400_000


def test_a_join_on_event_time_leaks_and_resolve_never_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = read_log(copy_log(tmp_path / "events.parquet"))
    requests = pick_requests(log, 10)
    late = float((log.visible_at - log.ts > DAY_MS).mean())

    order = np.argsort(log.user_id, kind="stable")
    users, first = np.unique(log.user_id[order], return_index=True)
    bounds = np.append(first, len(order))
    place = np.searchsorted(users, requests.user_id)
    by_ts = np.zeros(len(place), np.int64)
    leaked = np.zeros(len(place), np.int64)
    visible = np.zeros(len(place), np.int64)
    for example, (user, as_of) in enumerate(zip(place.tolist(), requests.as_of.tolist(), strict=True)):
        rows = order[bounds[user] : bounds[user + 1]]
        joined = log.ts[rows] < as_of
        seen = log.visible_at[rows] < as_of
        by_ts[example] = np.count_nonzero(joined)
        leaked[example] = np.count_nonzero(joined & ~seen)
        visible[example] = np.count_nonzero(seen)

    with store_log(tmp_path / "events.parquet", tmp_path / "store", lambda at: None) as store, store.snapshot() as snap:
        pointers = snap.resolve(requests.user_id, requests.as_of)
        histories = snap.read(pointers)
        seen_at = snap.read(pointers, Projection(["visible_at"])).values("visible_at")
    limit = np.repeat(requests.as_of, histories.lengths)
    leaks_of_resolve = int(np.count_nonzero(seen_at >= limit))
    examples = int(np.count_nonzero(leaked))
    with capsys.disabled():
        share = f"{examples:,} of {len(place):,} examples ({examples / len(place):.1%})"
        print(f"\nlate events: {late:.1%} of {len(log):,} arrive more than a day late")
        print(f"a join on ts leaks {leaked.sum():,} events into {share}; resolve leaks {leaks_of_resolve}")
    assert 0.15 < late < 0.25
    assert examples > 0
    assert leaks_of_resolve == 0
    assert pointers.version.tolist() == visible.tolist()
