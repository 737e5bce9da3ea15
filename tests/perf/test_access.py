"""Every way to read that is installed gives what the log has; a form that differs is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perf.access import WAYS
from perf.access_process import build, check
from perf.cases import Case
from perf.workloads import Workload, make_log


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    log = make_log(Workload(users=7, shortest=150, longest=150), 3)
    row = np.array([0, 6, 6, 3, 1, 2, 5, 6, 0, 4])
    version = np.array([100, 150, 149, 101, 100, 120, 150, 103, 150, 111])
    folder = tmp_path_factory.mktemp("access")
    return Case.save(folder / "case", folder / "log", log, row, version, 100, 4)


@pytest.mark.parametrize("name", WAYS)
def test_every_way_gives_what_the_log_has(case: Case, name: str) -> None:
    way = WAYS[name]
    reason = way.why_missing()
    if reason is not None:
        pytest.skip(reason)
    assert build(way, name, case, "random") > 0
    assert build(way, name, case, "by user") > 0


def test_a_form_that_differs_is_noticed(case: Case, tmp_path: Path) -> None:
    way = WAYS["mapped arrays"]
    read = way.open(case, tmp_path)

    def wrong(ids: np.ndarray) -> list[np.ndarray]:
        found = read(ids)
        found[1][-1] += 1
        return found

    with pytest.raises(RuntimeError, match="differs from the log"):
        check(case, wrong, case.batches(shuffled=True))
