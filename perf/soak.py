"""Does anything get lost when processes are killed for as long as one cares to watch?

A writer, an ingester, eight readers, one who holds snapshots, a compactor that also seals, a trimmer, a backup and a
trainer's loader with its workers use one store; at random moments one of them, now and then all of them, get SIGKILL
and are started again. Each checks all that it sees against a journal outside the store (:mod:`perf.soakjournal`); from
time to time the store is verified whole, its reader slots are counted, and the memory and open files of every process
are noted. A process that makes no progress for long is a finding too.

``python -m perf.soak [--minutes N]``: 75 seconds, or with ``--full`` an hour. Whatever is found ends it with status 1.
Processes are forked from one that has all kernels loaded, so that a start costs milliseconds. It may be stopped as a
group and continued (SIGSTOP, SIGCONT): time in which nobody ran counts for nobody.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb
import numpy as np

from perf.harness import Report, Settings, run_bench
from perf.soakfeeds import ingest_file
from perf.soakjournal import (
    EVERYONE,
    HUNG,
    OTHER,
    SCHEMA,
    SHARDS,
    TWICE,
    USERS,
    Journal,
    Progress,
    SoakError,
    batch,
    check_store,
    heads_after,
)
from perf.soakroles import ROLES, WRITERS, Task
from perf.soaktables import Watched, tabulate
from uihkv import Store
from uihkv.openstore import Durability

TEAM = ("writer", "ingester", *["reader"] * 8, "holder", "compactor", "trimmer", "backup", "loader")
WEIGHTS = {"writer": 3.0, "ingester": 2.0, "reader": 0.5, "compactor": 2.0, "trimmer": 2.0, "backup": 1.0,
           "holder": 0.02, "loader": 0.3}  # fmt: skip
"""How often each is killed: those that write more, those that take long to begin or to end less."""
WORKER_WEIGHT = 0.15
ALL_SHARE = 0.001
CHECK_EVERY_S = 10.0
STUCK_S = 240.0
"""A process that does nothing for so long hangs: on a machine that others use too, all but a hang is shorter."""
_TICK_S = 2.0
_LEAVE_S = 60.0
"""How long a worker may stay whose loader was killed; on a machine that others use too it gets there late."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class AwakeClock:
    """Seconds in which this process ran: a gap between two looks counts for :data:`_TICK_S` at most."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self.awake_s = 0.0
        self.stopped_s = 0.0

    def look(self) -> float:
        """Seconds until now."""
        now = time.monotonic()
        gap, self._at = now - self._at, now
        self.awake_s += min(gap, _TICK_S)
        self.stopped_s += max(0.0, gap - _TICK_S)
        return self.awake_s


class Soak:
    """Processes on one store.

    Args:
        folder: empty; the store, its copies and the journal go there.
        seed: of every choice.
        pause_s: about how long between two kills.
        hold_s: how long the holder keeps a snapshot.

    """

    def __init__(self, folder: Path, seed: int, pause_s: float, hold_s: int) -> None:
        self.folder = folder
        self.path = folder / "store"
        self.chance = random.Random(seed)
        self.pause_s = pause_s
        self.watched = Watched()
        _warm_up(folder / "warm")
        Store.create(self.path, SCHEMA, SHARDS, chunk_events=64).close()
        self.journal = Journal(folder / "journal")
        self.journal["seconds to hold"] = hold_s
        self._clock = AwakeClock()
        self._running: dict[int, tuple[int, Durability]] = {}
        """Process of each member of the team, and what its handle promises."""
        self._seen = dict.fromkeys(range(len(TEAM)), (-1, 0.0))
        """What each had done when it last had done more, and when that was."""
        self._loaders: list[tuple[int, float]] = []
        """Loaders that were killed, and when: their workers are to leave."""

    def run(self, seconds: float) -> None:
        """Kill and look for so long, or until the first finding, which is noted."""
        begin = time.monotonic()
        try:
            self._run(seconds)
        except SoakError as error:
            self.watched.findings[error.kind] += 1
            self.watched.words.append(str(error))
        self.watched.seconds = time.monotonic() - begin
        self.watched.stopped_s = self._clock.stopped_s

    def _run(self, seconds: float) -> None:
        begin = looked = time.monotonic()
        weights = [*(WEIGHTS[role] for role in TEAM), WORKER_WEIGHT]
        try:
            for member in range(len(TEAM)):
                self._start(member)
            while time.monotonic() - begin < seconds:
                self._sleep(self.chance.expovariate(1 / self.pause_s))
                self._notice_ends()
                if self.chance.random() < ALL_SHARE:
                    some = list(range(len(TEAM)))
                else:
                    some = self.chance.choices(range(len(TEAM) + 1), weights)
                if some == [len(TEAM)]:
                    self._kill_worker()
                    continue
                for member in some:
                    self._kill(member)
                for member in some:
                    self._start(member)
                if time.monotonic() - looked > CHECK_EVERY_S:
                    self._look()
                    looked = time.monotonic()
        finally:
            for member in list(self._running):
                self._kill(member, count=False)
        self._look()
        self._fork(self._finish, wait=True)

    def _sleep(self, seconds: float) -> None:
        end = self._clock.look() + seconds
        while self._clock.look() < end:
            time.sleep(min(0.05, seconds))

    # -- the team -----------------------------------------------------------------------------------

    def _start(self, member: int) -> None:
        role, seed = TEAM[member], self.chance.random()
        durability: Durability = self.chance.choice(("sync", "relaxed")) if role in WRITERS else "sync"

        def work() -> None:
            journal = Journal(self.folder / "journal", member, durability)
            ROLES[role](Task(self.path, journal, random.Random(seed), durability))

        self._running[member] = (self._fork(work), durability)

    def _kill(self, member: int, count: bool = True) -> None:
        role, (process, durability) = TEAM[member], self._running.pop(member)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise self._complaint(role, process, status)
        if role == "loader":
            self._loaders.append((process, self._clock.look()))
        self.watched.kills[role, durability if role in WRITERS else ""] += count

    def _kill_worker(self) -> None:
        process = self._running[TEAM.index("loader")][0]
        workers = [pid for pid, parent in workers_of_loaders() if parent == process]
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)
                self.watched.workers_killed += 1

    def _notice_ends(self) -> None:
        """Whoever ended by itself, or makes no progress."""
        now = self._clock.look()
        for member, (process, _) in self._running.items():
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                del self._running[member]
                raise self._complaint(TEAM[member], process, status)
            count = self.journal.done_by(member)
            if count != self._seen[member][0]:
                self._seen[member] = (count, now)
            elif now - self._seen[member][1] > STUCK_S:
                where = Path(f"/proc/{process}/wchan").read_text()
                raise SoakError(HUNG, f"the {TEAM[member]} has done nothing for {STUCK_S:.0f} s (it waits in {where})")

    def _complaint(self, who: str, process: int, status: int) -> SoakError:
        told = self.folder / f"error-{process}"
        kind, words = json.loads(told.read_text()) if told.exists() else (OTHER, f"status {status}")
        return SoakError(kind, f"the {who} ended by itself: {words}")

    def _fork(self, work: Callable[[], None], wait: bool = False) -> int:
        """Do something in a process of its own, which never returns from here."""
        parent = os.getpid()
        process = os.fork()
        if process:
            if wait:
                self._wait(process)
            return process
        try:
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
            if os.getppid() == parent:
                work()
            os._exit(0)
        except BaseException as error:
            told = (error.kind if isinstance(error, SoakError) else OTHER, traceback.format_exc())
            (self.folder / f"error-{os.getpid()}").write_text(json.dumps(told))
            os._exit(1)

    def _wait(self, process: int) -> None:
        begin = self._clock.look()
        while True:
            done, status = os.waitpid(process, os.WNOHANG)
            if done and status:
                raise self._complaint("check", process, status)
            if done:
                return
            if self._clock.look() - begin > STUCK_S:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                raise SoakError(HUNG, f"a check does not end in {STUCK_S:.0f} s")
            time.sleep(0.02)

    # -- looks --------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Verify the store beside those who use it, and note what all of them hold."""
        for member, (process, _) in self._running.items():
            held = _held_by(process)
            if held is not None:
                self.watched.memory.setdefault(TEAM[member], []).append(held[0])
                self.watched.files.setdefault(TEAM[member], []).append(held[1])
        now = self._clock.look()
        gone = {process for process, killed_at in self._loaders if now - killed_at > _LEAVE_S}
        left = [pid for pid, parent in workers_of_loaders() if int(parent) in gone]
        self._loaders = [entry for entry in self._loaders if entry[0] not in gone]
        self._fork(self._check, wait=True)
        found = json.loads((self.folder / "check").read_text())
        self.watched.checks.append({**found, "left behind": len(left)})

    def _check(self) -> None:
        least = Progress.acknowledged(self.journal)
        cleaned = _clean_slots(self.path)
        with Store.open(self.path) as store:
            check_store(store, least, self.journal)
            stats = store.stats()
            stale = [process for process in _reading(store) if not _lives(process)]
            if stale:  # it may have died between the two looks
                stale = [process for process in _reading(store) if process in stale]
            found = {
                "bytes": stats.bytes, "free bytes": stats.free_bytes, "readers": stats.readers,
                "reader lag": stats.reader_lag, "stale slots": len(stale), "slots cleaned": cleaned,
                "events": stats.events,
            }  # fmt: skip
        (self.folder / "check").write_text(json.dumps(found))

    def _finish(self) -> None:
        """Nobody else is there: complete what was cut off, and count every event."""
        batches, files = self.journal["batches begun"], self.journal["files begun"]
        with Store.open(self.path) as store:
            done = store.sources().get("writer", 0)
            for number in range(done, batches + 1):  # whole ones, and one that was cut off
                if number:
                    store.append(batch(number), backfill=True, source="writer", offset=number)
            if files:
                ingest_file(store, self.folder / "files", files - 1)
            check_store(store, Progress(batches, files), self.journal)
            with store.snapshot() as snapshot:
                heads = snapshot.head(EVERYONE).version
            expected = np.append(heads_after(batches), np.full(len(EVERYONE) - len(USERS), 2 * files))
            if not np.array_equal(heads, expected):
                raise SoakError(TWICE, f"after all, heads are {heads.tolist()}")


def _clean_slots(path: Path) -> int:
    """Free the slots of killed readers before anything else does; how many there were."""
    cleaned = 0
    for shard in sorted((path / "shards").iterdir()):
        with lmdb.open(str(shard), max_dbs=8, readonly=True) as environment:
            cleaned += environment.reader_check()
    return cleaned


def _reading(store: Store) -> set[int]:
    """Processes with a reader slot in some shard."""
    found: set[int] = set()
    for number in range(store.shards):
        with store.shard_access().reading(number) as view:
            found |= view.shard.readers().pids
    return found


def _lives(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def workers_of_loaders() -> Iterator[tuple[int, int]]:
    """Worker processes of loaders, each with the process that it works for."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        given = [word for word in words if word]
        if any(b"loader.workers.worker" in word for word in given) and given[-1].isdigit():
            yield int(entry.name), int(given[-1])


def _held_by(process: int) -> tuple[int, int] | None:
    """Resident bytes and open files of a process; resident memory without the mapped files of the store."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return 1024 * int(lines["RssAnon"].split()[0]), files


def _warm_up(folder: Path) -> None:
    """Compile and load all kernels, so that forked processes have them."""
    folder.mkdir()
    journal = Journal(folder / "journal")
    with Store.create(folder / "store", SCHEMA, SHARDS, chunk_events=64) as store:
        for number in range(1, 81):
            store.append(batch(number), backfill=True, source="writer", offset=number)
        (folder / "files").mkdir()
        for number in range(2):
            ingest_file(store, folder / "files", number)
    for name in ("begun", "acknowledged"):
        journal[f"batches {name}"], journal[f"files {name}"] = 80, 2
    for role, act in (
        ("trimmer", "trims"), ("compactor", "compactions"), ("reader", "snapshots read"),
        ("holder", "snapshots held to the end"), ("backup", "backups opened and verified"),
        ("loader", "batches trained on"),
    ):  # fmt: skip
        with suppress(StopIteration):
            ROLES[role](Task(folder / "store", _Until(journal, act), random.Random(1)))
    with Store.open(folder / "store") as store:
        check_store(store, Progress(80, 2), journal)


class _Until(Journal):
    """A journal that ends its role once something was done."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._counts, self._row, self._name = journal._counts, 1, name

    def count(self, name: str, more: int = 1) -> None:
        super().count(name, more)
        if name == self._name:
            raise StopIteration


def measure(settings: Settings, minutes: float | None = None) -> Report:
    """Run, and tell what was done and what was lost."""
    minutes = settings.pick(1.25, 60.0) if minutes is None else minutes
    soak = Soak(settings.scratch, settings.seed, pause_s=0.15, hold_s=round(min(max(1, 12 * minutes), 60)))
    soak.run(60 * minutes)
    return tabulate(soak.watched, soak.journal, TEAM, settings.scratch / "held")


@contextmanager
def _group_file(path: Path | None) -> Iterator[None]:
    """Name the process group in a file while it runs, for those who want to stop it for a while."""
    if path is not None:
        path.write_text(f"{os.getpgrp()}\n")
    try:
        yield
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


def main() -> None:
    """The bench, with how long it runs."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--group-file", type=Path)
    given, rest = parser.parse_known_args()
    found: list[str] = []

    def run(settings: Settings) -> Report:
        report = measure(settings, given.minutes)
        found.extend(report.facts["findings"])
        return report

    with _group_file(given.group_file):
        run_bench("soak", __doc__, run, rest)
    if found:
        print(f"found: {found[0]}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
