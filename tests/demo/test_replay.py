"""For every example of the full-size demo, what the loader gives is a plain-Python replay of the log."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from loader import Loader, ParquetExamples
from loader.demo.train import TENANTS
from tests.demo.conftest import FullDemo


class ReplayedLog:
    """Each user's events as lists, and when each became visible: never before the one that arrived before it."""

    def __init__(self, path: Path, columns: set[str]) -> None:
        self.events: dict[str, dict[int, list[int]]] = {name: defaultdict(list) for name in columns}
        self.visible: dict[int, list[int]] = defaultdict(list)
        rows = pq.read_table(path).to_pydict()
        for row, (user, arrived_at) in enumerate(zip(rows["user_id"], rows["arrived_at"], strict=True)):
            before = self.visible[user]
            before.append(max(arrived_at, before[-1]) if before else arrived_at)
            for name in columns:
                self.events[name][user].append(rows[name][row])

    def history(self, name: str, user: int, as_of: int, max_len: int) -> list[int]:
        seen = bisect_left(self.visible[user], as_of)  # how many became visible strictly before
        return self.events[name][user][max(0, seen - max_len) : seen]


@pytest.mark.parametrize("which", ["train", "evaluate"])
def test_every_examples_history_equals_a_replay_of_the_log(full_demo: FullDemo, which: str) -> None:
    projections = {tenant.name: tenant.projection for tenant in TENANTS}
    replay = ReplayedLog(full_demo.log_path, {name for one in projections.values() for name in one.columns or ()})
    examples = ParquetExamples(getattr(full_demo, which))
    seen = 0
    with Loader(full_demo.store, examples, tenants=projections, batch_size=512, seed=1) as loader:
        for batch in loader:
            asked = list(zip(batch.pointers.user_id.tolist(), batch.examples["as_of"].tolist(), strict=True))
            for tenant, projection in projections.items():
                assert projection.columns is not None and projection.max_len is not None
                for name in projection.columns:
                    found = batch.histories[tenant][name]
                    expected: list[int] = []
                    offsets = [0]
                    for user, as_of in asked:
                        expected += replay.history(name, user, as_of, projection.max_len)
                        offsets.append(len(expected))
                    assert found.offsets.tolist() == offsets, (tenant, name)
                    assert found.values.tolist() == expected, (tenant, name)
            seen += len(batch)
    assert seen == len(examples)
