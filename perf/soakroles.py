"""What each process of a soak does to the store: write, read, hold, compact, trim, back up, ingest, train.

A role runs until it is killed, or raises :class:`perf.soakjournal.SoakError`: something was lost, or twice, or wrong.
What has to be true of the store is :mod:`perf.soakjournal`'s; who is killed when, :mod:`perf.soak`'s; what is fed from
files and to trainers, :mod:`perf.soakfeeds`'s.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perf.soakfeeds import ingest_files, train
from perf.soakjournal import (
    EVERYONE,
    KEPT,
    LOST,
    Journal,
    Progress,
    SoakError,
    batch,
    check_newest,
    check_old,
    check_store,
    check_view,
)
from uihkv import CompactionPolicy, Pointers, Store
from uihkv.openstore import Durability


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is given.

    Attributes:
        path: of the store; what the process needs beside it goes into the same folder.
        journal: for what it does.
        chance: for its choices.
        durability: of its handle, if it writes.

    """

    path: Path
    journal: Journal
    chance: random.Random
    durability: Durability = "sync"

    def beside(self, name: str) -> Path:
        """A path beside the store."""
        return self.path.parent / name

    def rest(self, longest_s: float) -> None:
        """Leave the processor to others for a moment."""
        time.sleep(longest_s * self.chance.random())


def write(task: Task) -> None:
    """Append batch after batch, from where the store says that it is."""
    journal = task.journal
    with Store.open(task.path, durability=task.durability) as store:
        done = store.sources().get("writer", 0)
        if not journal["batches acknowledged"] <= done <= journal["batches begun"]:
            raise SoakError(
                LOST,
                f"batches {journal['batches acknowledged']} to {journal['batches begun']} were acknowledged to begun, "
                f"sources() says {done}",
            )
        journal["batches acknowledged"] = done
        while True:
            done += 1
            rows = batch(done)
            journal["batches begun"] = done
            store.append(rows, backfill=True, source="writer", offset=done)
            journal["batches acknowledged"] = done
            journal.count("appends acknowledged")
            journal.count("events acknowledged", len(rows["ts"]))
            task.rest(0.01)


def read(task: Task) -> None:
    """Take snapshots, read in them twice, and follow pointers of older ones."""
    journal, chance = task.journal, task.chance
    kept: list[Pointers] = []
    with Store.open(task.path, readonly=chance.random() < 0.5) as store:
        while True:
            least = Progress.acknowledged(journal)
            with store.snapshot() as snapshot:
                heads = check_view(snapshot, least, journal)
                compared = check_newest(snapshot, heads)
                for pointers in kept:
                    compared += check_old(snapshot, pointers)
                time.sleep(2.0 if chance.random() < 0.02 else 0.1 * chance.random())
                compared += check_newest(snapshot, heads)  # the pages it sees were not reused
                journal.count("histories compared", compared)
                journal.count("snapshots read")
            kept = [*kept[-2:], heads] if chance.random() < 0.2 else kept
            task.rest(0.1)


def hold(task: Task) -> None:
    """Keep one snapshot for long, read in it now and then, and note what that cost."""
    journal = task.journal
    with Store.open(task.path, readonly=True) as store:
        while True:
            seconds = journal["seconds to hold"]
            before = store.stats()
            with store.snapshot() as snapshot:
                heads = check_view(snapshot, Progress(0, 0), journal)
                begin = time.monotonic()
                while time.monotonic() - begin < seconds:
                    check_newest(snapshot, heads)
                    journal.count("reads in held snapshots")
                    time.sleep(seconds / 10)
                check_newest(snapshot, heads)
                after = store.stats()
            cost = {
                "seconds": time.monotonic() - begin, "transactions": after.reader_lag,
                "grown bytes": after.bytes - before.bytes, "kept bytes": after.kept_bytes,
            }  # fmt: skip
            with task.beside("held").open("a") as file:
                file.write(json.dumps(cost) + "\n")
            journal.count("snapshots held to the end")


def compact(task: Task) -> None:
    """Seal and compact, in any order."""
    with Store.open(task.path, durability=task.durability) as store:
        while True:
            what = task.chance.choice(["seals", "compactions"])
            if what == "seals":
                store.seal()
            else:
                store.compact(CompactionPolicy(transaction_events=task.chance.choice([500, 1 << 18])))
            task.journal.count(what)
            task.rest(0.2)


def trim(task: Task) -> None:
    """Leave the newest events of every user."""
    with Store.open(task.path, durability=task.durability) as store:
        while True:
            with store.snapshot() as snapshot:
                heads = snapshot.head(EVERYONE).version
            store.trim(EVERYONE, np.maximum(heads - KEPT, 0))
            task.journal.count("trims")
            task.rest(0.4)


def back_up(task: Task) -> None:
    """Copy the store, and see what the copy holds; a copy that is there is a whole one."""
    copy, gone = task.beside("copy"), task.beside("gone")
    least = Progress(0, 0)
    with Store.open(task.path, readonly=True) as store:
        while True:
            if copy.exists():
                with Store.open(copy) as copied:
                    check_store(copied, least, task.journal)
                task.journal.count("backups opened and verified")
                copy.rename(gone)  # its removal may be cut off
                shutil.rmtree(gone)
            shutil.rmtree(gone, ignore_errors=True)
            least = Progress.acknowledged(task.journal)
            store.backup(copy)
            task.journal.count("backups")
            task.rest(0.4)


def ingest_here(task: Task) -> None:
    """Ingest files, one after the other (:func:`perf.soakfeeds.ingest_files`)."""
    ingest_files(task.path, task.journal, task.durability, task.beside("files"), lambda: task.rest(0.2))


def train_here(task: Task) -> None:
    """Go through passes of a loader with workers (:func:`perf.soakfeeds.train`)."""
    train(task.path, task.journal, task.beside("passes"), workers=2, rest=lambda: task.rest(0.1))


ROLES: dict[str, Callable[[Task], None]] = {
    "writer": write, "ingester": ingest_here, "reader": read, "holder": hold, "compactor": compact, "trimmer": trim,
    "backup": back_up, "loader": train_here,
}  # fmt: skip
WRITERS = ("writer", "ingester", "compactor", "trimmer")
"""Those whose handle has a durability."""
