"""A process that is killed and started again sees every batch once; a loader that runs on holds on to nothing."""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loader import Loader, ParquetExamples
from perf.killed import PROJECTION, kill_at_random, read_whole
from perf.workloads import Workload, build_store, make_log
from uihkv import Store

SOAK_S = 20.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and a file of examples that point into it."""
    folder = tmp_path_factory.mktemp("killed")
    log = make_log(Workload(users=60, mean_length=300), 1)
    build_store(folder / "store", log, shards=2).close()
    rng = np.random.default_rng(1)
    user = rng.integers(0, len(log.users), 6_000)
    version = (rng.random(len(user)) * log.lengths[user]).astype(np.int64)
    table = {"user_id": log.users[user], "version": version, "label": rng.random(len(user))}
    pq.write_table(pa.table(table), folder / "examples.parquet")
    return folder / "store", folder / "examples.parquet"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_process_resumes_bit_for_bit(trained: tuple[Path, Path], tmp_path: Path, workers: int) -> None:
    store, examples = trained
    found = kill_at_random(store, examples, tmp_path / "log", workers, kills=2, seed=workers, step_s=0.05)
    assert found == read_whole(store, examples)


def test_a_loader_that_runs_on_holds_on_to_nothing(trained: tuple[Path, Path]) -> None:
    """Epoch after epoch, in this process and with a worker: descriptors, maps and memory stay as they are."""
    store, examples = trained

    def held() -> tuple[int, int]:
        gc.collect()
        maps = sum("uihkv-loader" in line for line in Path("/proc/self/maps").read_text().splitlines())
        return len(list(Path("/proc/self/fd").iterdir())), maps

    with Store.open(store, readonly=True) as opened:
        rows = ParquetExamples(examples)
        with (
            Loader(opened, rows, PROJECTION, batch_size=64) as here,
            Loader(opened, rows, PROJECTION, batch_size=64, num_workers=1, dedup=True) as there,
        ):
            sizes = []
            until, epoch = time.monotonic() + SOAK_S, 0
            while time.monotonic() < until or len(sizes) < 6:
                for loader in (here, there):
                    loader.set_epoch(epoch)
                    for number, _ in enumerate(loader):
                        if number == epoch % 7 and epoch % 3 == 0:
                            break  # a pass that is left
                epoch += 1
                if epoch == 3:
                    before = held()
                sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            del _
            assert held()[0] <= before[0] + 2
            assert held()[1] <= before[1] + 8
            half = sizes[len(sizes) // 2]
            assert sizes[-1] - half < 32 << 10, f"peak memory grew from {half} to {sizes[-1]} KiB in the second half"
