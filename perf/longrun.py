"""All that a training process does with loaders in a month, in each of many short rounds.

Loaders that live as long as the run, in this process, with one worker and with two, plain, with tenants, deduplicated;
and beside them a process that appends and trims. A round is:

- a whole epoch of each, two passes of one loader at once, passes that are left, and iterators that nobody uses;
- consumers that raise, in a ``for`` and in an ``async for``, and an example that cannot be read;
- a worker that is killed, and the pass after it, which has a new one;
- a loader that is made, traced and closed; a stream, from a queue, that is read and one that is left.

Between rounds no pass is open, so what is held then (:meth:`LongRun.look`) belongs to the loaders that live on.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from loader import ArrayExamples, Loader, StreamExamples, WorkerError
from perf.killed import digest_batch
from perf.loading import COLUMNS, Bench
from perf.processes import (
    anonymous_bytes,
    count_descriptors,
    count_slabs,
    count_threads,
    list_tree,
    own_bytes,
)
from uihkv import PointerError, Projection, Store

BATCH = 64
EXAMPLES = 1_536
PREFETCH = 4
TENANTS = {"long": Projection(COLUMNS, 1024), "short": Projection(("item_id",), 128)}
SLABS = 3 * (PREFETCH + 2 + 1)
"""Most shared memory of workers that live on, in pieces: for each of three the slabs ahead, two with the consumer, and
the page that says which are free."""

APPENDED_USERS = 4
KEPT_EVENTS = 256
APPEND_EVERY_S = 0.1
"""So seldom that the pages freed while a snapshot is held are few, however long a pass takes on a busy machine: what is
free at most follows the longest pass. Those freed behind a snapshot that is never closed add up all the same."""

_SLOTS = """
import sys, lmdb
shards = [lmdb.open(path, readonly=True, subdir=True, max_dbs=16) for path in sys.argv[1:]]
for _ in sys.stdin:
    print(sum(len(line.split()) == 3 for shard in shards for line in shard.readers().splitlines()[1:]), flush=True)
"""
"""Counts the reader slots of all shards whenever it is asked, used ones and those that are kept."""


class RoundError(Exception):
    """Something in a round did not end as it must."""


class _OfConsumerError(Exception):
    pass


class LongRun:
    """Loaders, a writer and a counter of reader slots; closed on leaving.

    Args:
        bench: the store and the examples.
        leak: what is held on to in each round, so that a verdict can be seen to fail: "descriptors", "memory",
            "threads", "slabs" or "slots"; None: nothing.

    """

    def __init__(self, bench: Bench, leak: str | None = None) -> None:
        self._bench = bench
        self._leak = leak
        self._leaked: list[Any] = []
        self._stack = ExitStack()
        self.done: Counter[str] = Counter()
        columns = {name: column[:EXAMPLES] for name, column in bench.columns.items()}
        self._examples = ArrayExamples(columns)
        wrong = {name: column[: 4 * BATCH].copy() for name, column in columns.items()}
        wrong["version"][3 * BATCH] += 1 << 40
        self._wrong = ArrayExamples(wrong)
        self._columns = columns
        plain: dict[str, Any] = {"projection": TENANTS["long"]}
        self.here = self._make(**plain)
        self.shared = self._make(tenants=TENANTS, dedup=True, num_workers=2, affinity_window=512)
        self.mortal = self._make(**plain, num_workers=1)
        self._whole: list[str] | None = None
        for _ in self.shared:  # its workers start, which are never killed
            pass
        self._lasting = _list_workers()
        self._writer = self._start("-m", "perf.longrun", str(bench.path))
        shards = sorted(str(path) for path in (bench.path / "shards").iterdir() if path.is_dir())
        self._slots = self._start("-c", _SLOTS, *shards)

    def _make(self, **options: Any) -> Loader:
        settings = {"batch_size": BATCH, "prefetch": PREFETCH, "seed": 1} | options
        return self._stack.enter_context(Loader(self._bench.store, self._examples, **settings))

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._stack.callback(_end, process)
        return process

    # -- a round ------------------------------------------------------------------------------------

    def run(self, number: int) -> None:
        """One round.

        Raises:
            RoundError: for anything that did not end as it must.

        """
        for loader in (self.here, self.shared, self.mortal):
            loader.set_epoch(number)
            self._count("epochs", sum(1 for _ in loader) == len(loader))
            self._leave(loader, 1 + number % 7)
            self._raise(loader)
        asyncio.run(self._raise_async(self.shared))
        same = zip(self.here, self.here, strict=True)
        self._count("passes at once", all(one.events == other.events for one, other in same))
        self._read_wrong(number % 2)
        self._kill_worker()
        self._made_and_closed(number)
        self._count("streams", asyncio.run(self._stream(None)) == 4)
        self._count("streams left", asyncio.run(self._stream(1)) == 1)
        self._check_same()
        self._plant()

    def _count(self, what: str, well: bool = True) -> None:
        if not well:
            raise RoundError(f"{what}: not as it must be, in round {self.done['epochs'] // 3}")
        self.done[what] += 1

    def _leave(self, loader: Loader, batches: int) -> None:
        iter(loader)  # nobody uses it
        for _ in islice(loader, batches):
            pass
        passing = iter(loader)
        next(passing)
        passing.close()
        self._count("passes left")

    def _raise(self, loader: Loader) -> None:
        with suppress(_OfConsumerError):
            for batch in loader:
                raise _OfConsumerError(f"{len(batch)} examples are too many")
        self._count("consumers that raised")

    async def _raise_async(self, loader: Loader) -> None:
        with suppress(_OfConsumerError):
            async for batch in loader:
                raise _OfConsumerError(f"{len(batch)} examples are too many")
        self._count("consumers that raised")

    def _read_wrong(self, workers: int) -> None:
        found = 0
        try:
            with Loader(
                self._bench.store, self._wrong, TENANTS["long"], batch_size=BATCH, num_workers=workers, shuffle=False
            ) as loader:
                for _ in loader:
                    found += 1
        except PointerError:
            self._count("examples that cannot be read", found == 3)
        else:
            raise RoundError("an example past its user's head was read")

    def _kill_worker(self) -> None:
        passing = iter(self.mortal)
        next(passing)
        mine = _list_workers() - self._lasting
        if len(mine) != 1:
            raise RoundError(f"{len(mine)} workers where one is expected")
        os.kill(mine.pop(), signal.SIGKILL)
        try:
            for _ in passing:
                pass
        except WorkerError:
            self._count("workers killed")
        else:
            raise RoundError("a pass whose worker was killed ended as if nothing had been")
        self._count("passes after a kill", sum(1 for _ in self.mortal) == len(self.mortal))

    def _made_and_closed(self, number: int) -> None:
        trace = self._bench.settings.scratch / "trace.json"
        options: dict[str, Any] = {"batch_size": BATCH, "seed": number, "num_workers": number % 3 % 2, "trace": trace}
        with Loader(self._bench.store, self._examples, TENANTS["short"], **options) as loader:
            self._count("loaders made and closed", sum(1 for _ in loader) == len(loader))
        trace.unlink()

    async def _stream(self, batches: int | None) -> int:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for first in range(0, 4 * BATCH, BATCH):
            queue.put_nowait({name: column[first : first + BATCH] for name, column in self._columns.items()})
        if batches is None:
            queue.put_nowait(None)
        found = 0
        with Loader(self._bench.store, StreamExamples(queue), TENANTS["long"], batch_size=BATCH) as loader:
            async for _ in loader:
                found += 1
                if found == batches:
                    break
        return found

    def _check_same(self) -> None:
        """Epoch 0 is to the bit what it was in the first round."""
        digests: list[str] = []
        for loader in (self.here, self.mortal):
            loader.set_epoch(0)
            digests += map(digest_batch, loader)
        half = len(digests) // 2
        self._whole = self._whole or digests
        self._count("epochs compared", digests[:half] == digests[half:] and digests == self._whole)

    def _plant(self) -> None:
        if self._leak == "descriptors":
            self._leaked.append(os.dup(0))
        elif self._leak == "memory":
            self._leaked.append(np.ones(1 << 19))
        elif self._leak == "threads":
            passing = iter(self.here)
            next(passing)
            self._leaked.append(passing)
        elif self._leak == "slabs":
            self._leaked += islice(self.mortal, 2)
        elif self._leak == "slots":
            self._leaked.append(self._bench.store.snapshot())

    # -- what is held -------------------------------------------------------------------------------

    def look(self) -> dict[str, float]:
        """What this process, its workers and the store hold now; megabytes where nothing else is said."""
        gc.collect()
        mine = os.getpid()
        aside = {self._writer.pid, self._slots.pid}
        workers = [pid for pid in list_tree(mine)[1:] if pid not in aside]
        slabs, descriptors = count_descriptors([mine])
        stats = self._bench.store.stats()
        return {
            "memory": anonymous_bytes([mine]) / 1e6,
            "memory of workers": anonymous_bytes(workers) / 1e6,
            "memory of all, shared once": own_bytes([mine, *workers]) / 1e6,
            "descriptors": descriptors,
            "descriptors of slabs": slabs,
            "descriptors of workers": count_descriptors(workers)[1],
            "shared slabs": count_slabs(mine),
            "threads": count_threads([mine]),
            "threads of workers": count_threads(workers),
            "workers": len(workers),
            "reader slots": self._count_slots(),
            "read transactions": stats.readers,
            "store": stats.bytes / 1e6,
            "free pages": stats.free_bytes / 1e6,
        }

    def _count_slots(self) -> int:
        assert self._slots.stdin is not None and self._slots.stdout is not None  # they are pipes
        self._slots.stdin.write("\n")
        self._slots.stdin.flush()
        return int(self._slots.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for held in self._leaked:
            if hasattr(held, "close"):
                held.close()
        self._leaked.clear()
        self._stack.close()


def _list_workers() -> set[int]:
    """Worker processes of this process's loaders."""
    found = set()
    for pid in list_tree(os.getpid())[1:]:
        with suppress(OSError):
            if b"loader.workers.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def _end(process: subprocess.Popen[str]) -> None:
    """Close its input, by which it ends."""
    process.communicate(timeout=60)
    if process.returncode:
        raise RoundError(f"a process beside the loaders ended with status {process.returncode}")


def append_and_trim(path: Path) -> None:
    """Append to some users of its own, and trim them, until standard input ends."""
    import select

    users = np.arange(-APPENDED_USERS, 0)
    rng = np.random.default_rng(0)
    with Store.open(path) as store:
        count = 0
        while not select.select([sys.stdin], [], [], APPEND_EVERY_S)[0]:
            store.append(_events(users, count, rng))
            count += 1
            if count % 50 == 0:
                with store.snapshot() as snapshot:
                    heads = snapshot.head(users).version
                store.trim(users, np.maximum(heads - KEPT_EVENTS, 0))


def _events(users: np.ndarray, number: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    owner = np.repeat(users, 8)
    return {
        "user_id": owner, "ts": 1_700_000_000_000 + 8 * number + np.arange(len(owner)) % 8,
        "item_id": rng.integers(0, 1 << 20, len(owner)),
        "action": rng.integers(0, 8, len(owner)).astype(np.uint8),
        "surface": rng.integers(0, 4, len(owner)).astype(np.uint8),
        "dwell": rng.random(len(owner)).astype(np.float32),
    }  # fmt: skip


def rounds(run: LongRun) -> Iterator[dict[str, float]]:
    """Round after round, and what is held after each."""
    number = 0
    while True:
        run.run(number)
        yield run.look()
        number += 1


if __name__ == "__main__":
    append_and_trim(Path(sys.argv[1]))
