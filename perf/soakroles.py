"""What each process of a soak does to the store, and how it knows that what it sees is right.

Events are a function of user and version, and heads one of the last batch, so that whatever a reader gets can be
checked without a copy of the data: batch ``k`` appends two events to every user ``u`` with ``(u + k) % 4 == 0``. The
journal is a small file outside the store, mapped by all: which batch was begun, which was acknowledged, how often each
thing was done. What a process wrote into it stays when it is killed.

A role runs until it is killed, or raises :class:`SoakError`: something was lost, or twice, or wrong.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv import Column, CompactionPolicy, Pointers, Projection, Schema, Snapshot, Store

Int64s = NDArray[np.int64]

SCHEMA = Schema([Column("item_id", "int64"), Column("kind", "uint8")])
USERS = np.arange(240)
SHARDS = 3
READ = 256
"""Newest events of a history that must always be whole."""
KEPT = 400
"""Newest events that a trim leaves."""
SLOTS = (
    "batches begun", "batches acknowledged", "snapshots read", "histories compared", "seals", "compactions", "trims",
    "backups", "backups opened and verified",
)  # fmt: skip
"""What the journal counts: the first two by the writer alone, the others in a row for each process."""
ROWS = 16


LOST, TWICE, WRONG = "acknowledged events lost", "events there twice or torn", "wrong sequences"
UNSOUND, OTHER = "problems in verifications", "processes that failed otherwise"
FINDINGS = (LOST, TWICE, WRONG, UNSOUND, OTHER)


class SoakError(AssertionError):
    """The store is not what the journal says; ``kind``: one of :data:`FINDINGS`."""

    def __init__(self, kind: str, words: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {words}")


class Journal:
    """Counts in a file that is mapped by all processes: int64[ROWS, SLOTS]."""

    def __init__(self, path: Path, row: int = 0) -> None:
        if not path.exists():
            np.zeros((ROWS, len(SLOTS)), np.int64).tofile(path)
        self._counts = np.memmap(path, np.int64, "r+", shape=(ROWS, len(SLOTS)))
        self._row = row

    def __getitem__(self, name: str) -> int:
        return int(self._counts[:, SLOTS.index(name)].sum())

    def __setitem__(self, name: str, value: int) -> None:
        """Of the writer's: one word, written at once."""
        self._counts[0, SLOTS.index(name)] = value

    def count(self, name: str, more: int = 1) -> None:
        """Note that something was done so often."""
        self._counts[self._row, SLOTS.index(name)] += more


def heads_after(batches: int) -> Int64s:
    """Every user's head after so many batches: int64[USERS]."""
    heads: Int64s = 2 * ((USERS + batches) // 4 - USERS // 4)
    return heads


def batch(number: int) -> dict[str, Any]:
    """The events of a batch."""
    some = USERS[(USERS + number) % 4 == 0]
    user = np.repeat(some, 2)
    version = np.repeat(heads_after(number - 1)[some], 2) + np.tile([0, 1], len(some))
    return {"user_id": user, "ts": version, **values_of(user, version)}


def values_of(user: Int64s, version: Int64s) -> dict[str, NDArray[Any]]:
    """What a user's event of this version holds."""
    return {"item_id": (user << 32) + version, "kind": (version % 5).astype(np.uint8)}


def check_heads(heads: Int64s, least: int, most: int) -> None:
    """Heads lie between two batches, each batch whole."""
    if (heads < heads_after(least)).any():
        raise SoakError(LOST, f"batch {least} was acknowledged, heads are {heads.tolist()}")
    if (heads > heads_after(most)).any() or (heads % 2).any():
        raise SoakError(TWICE, f"batch {most} was begun, heads are {heads.tolist()}")


def check_newest(snapshot: Snapshot, heads: Pointers) -> int:
    """The newest events of every history, each by what it must be; how many histories."""
    found = snapshot.read(heads, Projection(["item_id", "kind"], max_len=READ))
    length = np.minimum(heads.version, READ)
    if not np.array_equal(found.lengths, length):
        raise SoakError(WRONG, f"histories of {found.lengths.tolist()} events were read, {length.tolist()} are there")
    _check_values(found, np.asarray(heads.user_id), heads.version)
    return len(heads)


def check_old(snapshot: Snapshot, pointers: Pointers) -> int:
    """Pointers that were taken long ago still give their prefix, or what a trim has left of it."""
    found = snapshot.read(pointers, Projection(["item_id", "kind"], max_len=READ), on_trimmed="truncate")
    _check_values(found, np.asarray(pointers.user_id), pointers.version)
    return len(pointers)


def _check_values(found: Any, users: Int64s, versions: Int64s) -> None:
    lengths = found.lengths
    user = np.repeat(users, lengths)
    version = np.arange(len(user)) - np.repeat(found.offsets[1:] - versions, lengths)
    for name, values in values_of(user, version).items():
        if not np.array_equal(found.values(name), values):
            raise SoakError(WRONG, f"column {name!r} is not what was appended")


# -- roles ------------------------------------------------------------------------------------------


def write(path: Path, journal: Journal, chance: random.Random) -> None:
    """Append batch after batch, from where the store says that it is."""
    with Store.open(path, durability=chance.choice(["sync", "relaxed"])) as store:
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
            journal["batches begun"] = done
            store.append(batch(done), backfill=True, source="writer", offset=done)
            journal["batches acknowledged"] = done


def read(path: Path, journal: Journal, chance: random.Random) -> None:
    """Take snapshots, read in them twice, and follow pointers of older ones."""
    kept: list[Pointers] = []
    with Store.open(path, readonly=chance.random() < 0.5) as store:
        while True:
            acknowledged = journal["batches acknowledged"]
            with store.snapshot() as snapshot:
                heads = snapshot.head(USERS)
                check_heads(heads.version, acknowledged, journal["batches begun"])
                compared = check_newest(snapshot, heads)
                for pointers in kept:
                    compared += check_old(snapshot, pointers)
                time.sleep(2.0 if chance.random() < 0.02 else 0.05 * chance.random())
                compared += check_newest(snapshot, heads)  # the pages it sees were not reused
                journal.count("histories compared", compared)
                journal.count("snapshots read")
            kept = [*kept[-2:], heads] if chance.random() < 0.2 else kept


def compact(path: Path, journal: Journal, chance: random.Random) -> None:
    """Seal, compact, trim, in any order."""
    with Store.open(path) as store:
        while True:
            what = chance.choice(["seals", "compactions", "trims"])
            if what == "seals":
                store.seal()
            elif what == "compactions":
                store.compact(CompactionPolicy(transaction_events=chance.choice([500, 1 << 18])))
            else:
                with store.snapshot() as snapshot:
                    heads = snapshot.head(USERS).version
                store.trim(USERS, np.maximum(heads - KEPT, 0))
            journal.count(what)
            time.sleep(0.1 * chance.random())


def back_up(path: Path, journal: Journal, chance: random.Random) -> None:
    """Copy the store, and see what the copy holds; a copy that is there is a whole one."""
    copy = path.parent / "copy"
    least = 0
    with Store.open(path, readonly=True) as store:
        while True:
            if copy.exists():
                with Store.open(copy) as copied:
                    check_store(copied, least, journal["batches begun"])
                journal.count("backups opened and verified")
                copy.rename(gone := path.parent / "gone")  # its removal may be cut off
                shutil.rmtree(gone)
            shutil.rmtree(path.parent / "gone", ignore_errors=True)
            least = journal["batches acknowledged"]
            store.backup(copy)
            journal.count("backups")
            time.sleep(0.2 * chance.random())


def check_sound(store: Store) -> None:
    """A store verifies."""
    problems = store.verify(isolated=False).problems
    if problems:
        raise SoakError(UNSOUND, str(problems[:5]))


def check_store(store: Store, least: int, most: int) -> None:
    """A store is sound, and holds what was acknowledged and no more than was begun."""
    check_sound(store)
    if not least <= store.sources().get("writer", 0) <= most:
        raise SoakError(LOST, f"sources() says {store.sources()}, batches {least} to {most} were acknowledged to begun")
    with store.snapshot(verify="always") as snapshot:
        heads = snapshot.head(USERS)
        check_heads(heads.version, least, most)
        check_newest(snapshot, heads)


ROLES: dict[str, Callable[[Path, Journal, random.Random], None]] = {
    "writer": write, "reader": read, "compactor": compact, "backup": back_up,
}  # fmt: skip
