"""Does anything get lost when processes are killed for as long as one cares to watch?

One writer, several readers, a compactor that also seals and trims, and a backup work on one store; at random moments
one of them, now and then all of them, get SIGKILL and are started again. Each checks all that it sees against a journal
outside the store (:mod:`perf.soakroles`); from time to time the store is verified whole, its reader slots are counted,
and the memory and open files of every process are noted.

``python -m perf.soak [--minutes N]``: two minutes, or with ``--full`` an hour. Whatever is found ends it with status 1.
Processes are forked from one that has all kernels loaded, so that a start costs milliseconds.
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
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from perf.harness import Report, Section, Settings, run_bench
from perf.report import Cell
from perf.soakroles import (
    FINDINGS,
    OTHER,
    ROLES,
    SCHEMA,
    SHARDS,
    TWICE,
    USERS,
    Journal,
    SoakError,
    back_up,
    batch,
    check_heads,
    check_newest,
    check_sound,
    check_store,
    compact,
    heads_after,
    read,
)
from uihkv import Store

TEAM = ("writer", "reader", "reader", "reader", "compactor", "backup")
CHECK_EVERY_S = 10.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(slots=True)
class Watched:
    """What was seen while it ran."""

    kills: Counter[str] = field(default_factory=Counter)
    memory: dict[str, list[int]] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)
    checks: list[dict[str, int]] = field(default_factory=list)
    findings: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)


class Soak:
    """Processes on one store.

    Args:
        folder: empty; the store, its copies and the journal go there.
        seed: of every choice.
        pause_s: about how long between two kills.

    """

    def __init__(self, folder: Path, seed: int, pause_s: float) -> None:
        self.folder = folder
        self.path = folder / "store"
        self.chance = random.Random(seed)
        self.pause_s = pause_s
        self.watched = Watched()
        _warm_up(folder / "warm")
        Store.create(self.path, SCHEMA, SHARDS, chunk_events=64).close()
        self.journal = Journal(folder / "journal")
        self._running: dict[int, int] = {}
        """Process of each member of the team."""

    def run(self, seconds: float) -> None:
        """Kill and look for so long, or until the first finding, which is noted."""
        try:
            self._run(seconds)
        except SoakError as error:
            self.watched.findings[error.kind] += 1
            self.watched.words.append(str(error))

    def _run(self, seconds: float) -> None:
        begin = time.monotonic()
        looked = begin
        try:
            for member in range(len(TEAM)):
                self._start(member)
            while time.monotonic() - begin < seconds:
                time.sleep(self.chance.expovariate(1 / self.pause_s))
                self._notice_ends()
                some = range(len(TEAM)) if self.chance.random() < 0.03 else [self.chance.randrange(len(TEAM))]
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

    def _start(self, member: int) -> None:
        role, seed = TEAM[member], self.chance.random()
        self._running[member] = self._fork(
            lambda: ROLES[role](self.path, Journal(self.folder / "journal", 1 + member), random.Random(seed))
        )

    def _kill(self, member: int, count: bool = True) -> None:
        process = self._running.pop(member)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise self._complaint(TEAM[member], process, status)
        self.watched.kills[TEAM[member]] += count

    def _notice_ends(self) -> None:
        for member, process in self._running.items():
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                del self._running[member]
                raise self._complaint(TEAM[member], process, status)

    def _complaint(self, who: str, process: int, status: int) -> SoakError:
        told = self.folder / f"error-{process}"
        kind, words = json.loads(told.read_text()) if told.exists() else (OTHER, f"status {status}")
        return SoakError(kind, f"the {who} ended by itself: {words}")

    def _fork(self, work: Callable[[], None], wait: bool = False) -> int:
        """Do something in a process of its own, which never returns from here."""
        parent = os.getpid()
        process = os.fork()
        if process:
            if wait and (status := os.waitpid(process, 0)[1]):
                raise self._complaint("check", process, status)
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

    def _look(self) -> None:
        """Verify the store beside those who use it, and note what all of them hold."""
        for member, process in self._running.items():
            held = _held_by(process)
            if held is not None:
                self.watched.memory.setdefault(TEAM[member], []).append(held[0])
                self.watched.files.setdefault(TEAM[member], []).append(held[1])
        self._fork(self._check, wait=True)
        self.watched.checks.append(json.loads((self.folder / "check").read_text()))

    def _check(self) -> None:
        least = self.journal["batches acknowledged"]
        with Store.open(self.path) as store:
            check_store_beside_writers(store, least, self.journal)
            stats = store.stats()
            stale = [process for process in _reading(store) if not Path(f"/proc/{process}").exists()]
            found = {
                "bytes": stats.bytes, "free bytes": stats.free_bytes, "readers": stats.readers,
                "reader lag": stats.reader_lag, "stale slots": len(stale), "events": stats.events,
            }  # fmt: skip
        (self.folder / "check").write_text(json.dumps(found))

    def _finish(self) -> None:
        """Nobody else is there: complete what was cut off, and count every event."""
        with Store.open(self.path) as store:
            done = store.sources().get("writer", 0)
            for number in range(done, self.journal["batches begun"] + 1):  # whole ones, and one that was cut off
                if number:
                    store.append(batch(number), backfill=True, source="writer", offset=number)
            check_store(store, self.journal["batches begun"], self.journal["batches begun"])
            with store.snapshot() as snapshot:
                heads = snapshot.head(USERS).version
            if not np.array_equal(heads, heads_after(self.journal["batches begun"])):
                raise SoakError(TWICE, f"after all, heads are {heads.tolist()}")


def check_store_beside_writers(store: Store, least: int, journal: Journal) -> None:
    """As :func:`perf.soakroles.check_store`, while batches come in."""
    check_sound(store)
    with store.snapshot(verify="always") as snapshot:
        heads = snapshot.head(USERS)
        check_heads(heads.version, least, journal["batches begun"])
        check_newest(snapshot, heads)


def _reading(store: Store) -> set[int]:
    """Processes with a reader slot in some shard."""
    found: set[int] = set()
    for number in range(store.shards):
        with store.shard_access().reading(number) as view:
            found |= view.shard.readers().pids
    return found


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
        journal["batches begun"] = 80
        journal["batches acknowledged"] = 80
    for role in (compact, read, back_up):
        end = time.monotonic() + 60
        counted = {compact: "trims", read: "snapshots read", back_up: "backups opened and verified"}[role]
        with suppress(StopIteration):
            role(folder / "store", _Until(journal, counted, end), random.Random(1))
    with Store.open(folder / "store") as store:
        check_store(store, 80, 80)
        store.stats()


class _Until(Journal):
    """A journal that ends its role once something was done."""

    def __init__(self, journal: Journal, name: str, end: float) -> None:
        self._counts, self._row, self._name, self._end = journal._counts, 1, name, end

    def count(self, name: str, more: int = 1) -> None:
        super().count(name, more)
        if name == self._name or time.monotonic() > self._end:
            raise StopIteration


def measure(settings: Settings, minutes: float | None = None) -> Report:
    """Run, and tell what was done and what was lost."""
    minutes = settings.pick(2.0, 60.0) if minutes is None else minutes
    soak = Soak(settings.scratch, settings.seed, pause_s=0.15)
    soak.run(60 * minutes)
    watched, journal = soak.watched, soak.journal
    done: list[dict[str, Cell]] = [
        {"what": name, "times": journal[name]}
        for name in ("batches acknowledged", "snapshots read", "histories compared", "seals", "compactions", "trims",
                     "backups", "backups opened and verified")
    ]  # fmt: skip
    done.append({"what": "whole verifications beside all of them", "times": len(watched.checks)})
    killed: list[dict[str, Cell]] = [{"process": role, "SIGKILLs": watched.kills[role]} for role in ROLES]
    killed.append({"process": "all", "SIGKILLs": watched.kills.total()})
    lost: list[dict[str, Cell]] = [{"what": kind, "found": watched.findings[kind]} for kind in FINDINGS]
    stale = sum(check["stale slots"] for check in watched.checks)
    lost.append({"what": "reader slots of killed processes left behind", "found": stale})
    held: list[dict[str, Cell]] = []
    for what, of_role in (("MiB of memory", watched.memory), ("open files", watched.files)):
        for role, values in of_role.items():
            unit = 1 << 20 if what.startswith("MiB") else 1
            third = max(1, len(values) // 3)
            held.append({"what": f"{what}, {role}", "first third": _median(values[:third]) / unit,
                         "last third": _median(values[-third:]) / unit, "most": max(values) / unit})  # fmt: skip
    for what, unit in (
        () if not watched.checks else (("bytes", 1 << 20), ("free bytes", 1 << 20), ("readers", 1), ("reader lag", 1))
    ):
        values = [check[what] for check in watched.checks]
        third = max(1, len(values) // 3)
        title = f"MiB of the store's files{', free' if 'free' in what else ''}" if "bytes" in what else what
        held.append({"what": title, "first third": _median(values[:third]) / unit,
                     "last third": _median(values[-third:]) / unit, "most": max(values) / unit})  # fmt: skip
    return Report(
        sections=[
            Section(f"{minutes:g} minutes, {len(TEAM)} processes: what was done", done),
            Section("How often each was killed", killed),
            Section("What was lost", lost),
            Section("What was held", held),
        ],
        facts={"findings": watched.words, "minutes": minutes, "kills": dict(watched.kills), "checks": watched.checks},
    )


def _median(values: list[int]) -> float:
    return float(np.median(values))


def main() -> None:
    """The bench, with how long it runs."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float)
    given, rest = parser.parse_known_args()
    found: list[str] = []

    def run(settings: Settings) -> Report:
        report = measure(settings, given.minutes)
        found.extend(report.facts["findings"])
        return report

    run_bench("soak", __doc__, run, rest)
    if found:
        print(f"found: {found[0]}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
