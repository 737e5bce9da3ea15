"""Worker processes change nothing but who reads; they end with the loader, and their death is told."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loader import ArrayExamples, Loader, LoaderClosedError, SettingError, WorkerError
from loader.reading import Request
from loader.testing import assert_resumes_exactly, assert_same_batch
from loader.workers import wire
from loader.workers.pool import WorkerPool
from tests.loader.conftest import World
from tests.loader.test_dedup import TENANTS
from uihkv import Column, PointerError, Pointers, Projection, Schema, SchemaError, StochasticLength, Store

WANTED = Projection(["item_id", "tags"], max_len=4)


def make(world: World, **options: Any) -> Loader:
    options = {"batch_size": 4, "num_workers": 2} | options
    if "tenants" not in options:
        options.setdefault("projection", WANTED)
    return Loader(world.store, options.pop("examples", world.examples), **options)


def children() -> set[int]:
    """Processes that this one has started and that have not ended."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found.add(int(entry.name))
    return found


def shared_memory() -> int:
    """Slabs that this process maps."""
    return Path("/proc/self/maps").read_text().count("uihkv-loader")


def shared_descriptors() -> int:
    """Connections and slabs that this process has open."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.append(str(entry.readlink()))
    return sum("socket" in link or "uihkv-loader" in link for link in links)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    gc.collect()  # of what other tests left to the collector
    before, held = children(), shared_descriptors()
    yield
    gc.collect()
    assert children() == before
    assert shared_memory() == 0
    assert shared_descriptors() == held


@pytest.mark.parametrize("dedup", [False, True])
def test_workers_make_the_same_batches_in_the_same_order(world: World, dedup: bool) -> None:
    with make(world, tenants=TENANTS, num_workers=2, dedup=dedup) as loader:
        assert loader.num_workers == 2
        for epoch in range(2):  # the second one reuses processes and slabs
            loader.set_epoch(epoch)
            alone = make(world, tenants=TENANTS, num_workers=0, dedup=dedup)
            alone.set_epoch(epoch)
            for batch, expected in zip(loader, alone, strict=True):
                assert_same_batch(batch, expected)
        stats = loader.stats()
        assert stats.stages[1].count == len(loader)
        assert stats.stages[1].total_s > 0
        assert stats.bytes_read > 0


def test_batches_that_are_kept_stay_what_they_were(world: World) -> None:
    with make(world, num_workers=1, batch_size=2, prefetch=3) as loader:
        kept = []
        for epoch in range(3):
            for number, batch in enumerate(loader):
                if number % 5 == epoch:
                    values = batch.history["item_id"].values
                    kept.append((values, values.clone()))
        assert all(torch.equal(values, copy) for values, copy in kept)
        assert shared_memory() > 0
    assert all(torch.equal(values, copy) for values, copy in kept)
    kept.clear()
    del batch, values


def test_workers_resume(world: World) -> None:
    state = None
    whole = list(make(world, num_workers=0))
    for workers, taken in ((2, 3), (1, 4), (0, 99)):
        with make(world, num_workers=workers) as loader:
            if state is not None:
                loader.load_state_dict(state)
            passing = iter(loader)
            for expected in whole[:taken]:
                assert_same_batch(next(passing), expected)
            passing.close()
            whole = whole[taken:]
            state = loader.state_dict()
    assert whole == []
    assert_resumes_exactly(lambda: make(world, num_workers=1, batch_size=20), steps=[1])


def test_an_error_of_a_worker_comes_as_itself_with_its_place(world: World) -> None:
    columns = dict(world.columns)
    columns["version"] = columns["version"].copy()
    columns["version"][22] += 1000
    loader = make(world, examples=ArrayExamples(columns), shuffle=False)
    with loader:
        passing = iter(loader)
        assert [len(next(passing)) for _ in range(5)] == [4] * 5
        with pytest.raises(PointerError, match="row 2") as caught:
            next(passing)
        notes = "\n".join(caught.value.__notes__)
        assert f"example 22 (row 2 of the batch): user {columns['user_id'][22]}" in notes
        assert "stage 'read', batch 5 of epoch 0, rank 0" in notes
        assert len(next(iter(loader))) == 4  # the workers are well


def test_a_read_that_fails_takes_no_slab_with_it(world: World) -> None:
    pool = WorkerPool(1, world.store.path, {"history": Projection()}, False, "raise", 2)
    try:
        rows = np.arange(50)
        pointers, _ = world.examples.take(rows)
        beyond = Pointers(pointers.user_id, pointers.version + 1000)
        number = pool.begin_pass()
        pool.ask(number, Request(pointers, None, 0, rows))
        slabs = pool._workers[0]._slabs._slabs
        known = len(slabs)
        for _ in range(known + 2):
            with pytest.raises(PointerError):
                pool.ask(number, Request(beyond, None, 0, rows))
            pool.ask(number, Request(pointers, None, 0, rows))
        assert len(slabs) == known
    finally:
        pool.close()


def in_a_forked_child(do: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        try:
            do()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_has_workers_of_its_own_and_takes_none_of_its_parents_memory(world: World) -> None:
    whole = list(make(world, num_workers=0))
    with make(world) as loader:
        kept = list(loader)

        def read() -> None:
            kept.clear()
            gc.collect()
            for batch, expected in zip(loader, whole, strict=True):
                assert_same_batch(batch, expected)
            loader.close()

        in_a_forked_child(read)
        again = list(loader)
        for batch, other, expected in zip(kept, again, whole, strict=True):
            assert_same_batch(batch, expected)
            assert_same_batch(other, expected)
        kept.clear()
        again.clear()
        del batch, other


def test_an_iterator_is_refused_in_a_forked_child(world: World) -> None:
    def ask() -> None:
        with pytest.raises(LoaderClosedError, match="parent process"):
            next(passing)

    with make(world) as loader:
        passing = iter(loader)
        next(passing)
        in_a_forked_child(ask)
        next(passing)
        passing.close()


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_killed_worker_ends_the_pass_with_what_happened(world: World, moment: str) -> None:
    before = children()
    with make(world, batch_size=1, prefetch=2) as loader:
        passing = iter(loader)
        next(passing)
        pid, _ = children() - before
        if moment == "during":
            os.kill(pid, signal.SIGSTOP)  # so that it is in the midst of something, or of nothing
        os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(WorkerError, match=rf"pid {pid}\) was killed by SIGKILL; .*memory") as caught:
            list(passing)
        assert time.monotonic() - started < 10
        assert any("in the loader's stage 'read'" in note for note in caught.value.__notes__)
        assert len(list(loader)) == 53  # a new pass has new workers


@pytest.mark.parametrize("end", ["break", "close", "forget", "error"])
def test_however_a_pass_ends_no_process_is_left(world: World, end: str) -> None:
    before = children()
    loader = make(world)
    passing = iter(loader)
    next(passing)
    assert len(children() - before) == 2
    if end == "close":
        loader.close()
    elif end == "error":
        with pytest.raises(ZeroDivisionError):
            for _ in passing:
                _ = 1 / 0
    del passing, loader
    gc.collect()
    assert children() == before


def test_two_passes_at_once_have_workers_each(world: World) -> None:
    with make(world, num_workers=1) as loader:
        for left, right in zip(loader, loader, strict=True):
            assert_same_batch(left, right)


def test_a_program_needs_no_guard_and_leaves_nothing_when_killed(world: World, tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(f"""
import os, time
import numpy as np
from loader import ArrayExamples, Loader
from uihkv import Projection, Store
store = Store.open({str(world.store.path)!r}, readonly=True)
examples = ArrayExamples({{"user_id": np.ones(4000, int), "version": np.ones(4000, int)}})
loader = Loader(store, examples, Projection(["ts"]), batch_size=2, num_workers=1)
passing = iter(loader)
print(len(next(passing)), flush=True)
print(passing._pipeline._release.__self__.pids[0], flush=True)
time.sleep(60)
""")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "2\n"
        (worker,) = map(int, process.stdout.readline().split())
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_a_worker_that_cannot_open_the_store_says_so(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s", Schema([Column("x", "int64")]), shards=1) as store:
        store.append({"user_id": [1], "ts": [1], "x": [1]})
        loader = Loader(store, ArrayExamples({"user_id": [1], "version": [1]}), WANTED_X, num_workers=1)
        (tmp_path / "s").rename(tmp_path / "t")
        with loader, pytest.raises(WorkerError, match="ended with status 1"):
            list(loader)


WANTED_X = Projection(["x"])


def test_projections_and_errors_survive_the_wire() -> None:
    for projection in (*TENANTS.values(), Projection(where={"a": {1, 2}, "b": (None, 3.5), "c": {"x", "y"}})):
        told = wire.unpack(wire.pack(wire.tell_projection(projection)))
        assert wire.hear_projection(told) == projection
    sampled = Projection(max_len=9, max_age=5, sample=StochasticLength(1.5, 3))
    assert wire.hear_projection(wire.unpack(wire.pack(wire.tell_projection(sampled)))) == sampled
    noted = SchemaError("no")
    noted.add_note("there")
    for error in (noted, ValueError("bad", 3), OSError(2, "gone")):
        heard = wire.hear_error(wire.unpack(wire.pack(wire.tell_error(error))))
        assert type(heard) is type(error)
        assert heard.args == error.args
        assert getattr(heard, "__notes__", []) == getattr(error, "__notes__", [])
    odd = wire.hear_error(wire.unpack(wire.pack(wire.tell_error(KeyError(object())))))
    assert isinstance(odd, WorkerError)
    assert "KeyError" in str(odd)


def test_objects_do_not_go_over_the_wire() -> None:
    with pytest.raises(WorkerError, match="num_workers=0"):
        wire.tell_array(np.array([object()]))


@pytest.mark.parametrize("workers", [-1, 1.5, True, 1000])
def test_bad_numbers_of_workers_are_refused(world: World, workers: Any) -> None:
    with pytest.raises(SettingError, match="num_workers is"):
        make(world, num_workers=workers)


@pytest.mark.parametrize("options", [{}, {"dedup": True, "affinity_window": 8}, {"split": "shards", "max_events": 9}])
def test_users_named_by_strings(tmp_path: Path, options: dict[str, Any]) -> None:
    names = np.array(["ann", "bø", "c", "a rather long name of a user"], dtype=np.dtypes.StringDType())
    user = names[np.arange(40) % 4]
    with Store.create(tmp_path / "s", Schema([Column("x", "int64")], user_id="string"), shards=2) as store:
        store.append({"user_id": user, "ts": np.arange(40), "x": np.arange(40)}, backfill=True)
        examples = ArrayExamples({"user_id": user, "version": np.arange(40) // 4, "row": np.arange(40)})
        with Loader(store, examples, Projection(["x"], 4), batch_size=7, num_workers=1, **options) as loader:
            seen = []
            for batch in loader:
                column = batch.history["x"].expand()
                for row, values in zip(batch.examples["row"].tolist(), column.nested().unbind(), strict=True):
                    assert values.tolist() == list(range(row % 4, row, 4))[-4:]
                    seen.append(row)
        assert sorted(seen) == list(range(40))
