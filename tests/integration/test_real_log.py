"""Random projections of the real log through the loader equal a plain-Python replay of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader import ArrayExamples, Loader
from loader.demo.eventlog import EventLog, copy_log, read_log, store_log
from uihkv import Projection, Store

COLUMNS = ("ts", "visible_at", "item_id", "kind", "added", "deleted", "binary")
GIT_LOG = Path(__file__).parents[3] / "shared" / "data" / "git-events.parquet"
LOGS = ["ansible", *(["git"] if GIT_LOG.exists() else [])]  # the second one lies beside the repository, or nowhere


class Replay:
    """A log as lists of rows a user, and a store that was made of it."""

    def __init__(self, log: EventLog, store: Store) -> None:
        self.store = store
        self.values = {**log.columns, "visible_at": log.visible_at}
        order = np.argsort(log.user_id, kind="stable")
        users, first = np.unique(log.user_id[order], return_index=True)
        self.rows = dict(zip(users.tolist(), np.split(order, first[1:]), strict=True))
        self.visible = {user: log.visible_at[rows].tolist() for user, rows in self.rows.items()}

    def window(self, user: int, as_of: int, max_len: int | None) -> np.ndarray:
        """Rows that became visible strictly before, the newest of them, oldest first."""
        rows = self.rows.get(user, np.empty(0, np.int64))[: bisect_left(self.visible.get(user, []), as_of)]
        return rows if max_len is None else rows[max(0, len(rows) - max_len) :]


@pytest.fixture(scope="module", params=LOGS)
def replay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    folder = tmp_path_factory.mktemp("real")
    path = copy_log(folder / "events.parquet") if request.param == "ansible" else GIT_LOG
    with store_log(path, folder / "store", lambda at: None) as store:
        yield Replay(read_log(path), store)


def projections() -> st.SearchStrategy[tuple[list[str], int | None]]:
    columns = st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True)
    return st.tuples(columns, st.none() | st.integers(1, 5000))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(projections(), min_size=1, max_size=3), seed=st.integers(0, 2**32))
def test_loaded_histories_equal_a_replay(replay: Replay, asked: list[tuple[list[str], int | None]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    event = rng.integers(0, len(replay.values["visible_at"]), 48)
    user = np.where(rng.random(48) < 0.05, -1, replay.values["user_id"][event])  # -1: nobody
    as_of = replay.values["visible_at"][event] + rng.integers(-1, 2, 48)
    with replay.store.snapshot() as snapshot:
        pointers = snapshot.resolve(user, as_of)
    columns: dict[str, Any] = {
        "user_id": pointers.user_id, "version": pointers.version, "last_ts": pointers.last_ts, "moment": as_of,
    }  # fmt: skip
    tenants = {str(place): Projection(*one) for place, one in enumerate(asked)}
    with Loader(replay.store, ArrayExamples(columns), tenants=tenants, batch_size=17, seed=seed) as loader:
        for batch in loader:
            moments = batch.examples["moment"].tolist()
            for tenant, (names, max_len) in zip(tenants, asked, strict=True):
                windows = [
                    replay.window(one, moment, max_len)
                    for one, moment in zip(batch.pointers.user_id.tolist(), moments, strict=True)
                ]
                rows = np.concatenate(windows)
                history = batch.histories[tenant]
                assert history.lengths.tolist() == [len(window) for window in windows]
                for name in names:
                    assert history[name].values.numpy().tobytes() == replay.values[name][rows].tobytes(), name
