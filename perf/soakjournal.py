"""What the store of a soak must hold, and how a process that sees something else knows.

Events are a function of user and version, and heads one of how far each writer is, so that whatever a reader gets can
be checked without a copy of the data. Two kinds of users:

- *batched* ones: batch ``k`` appends two events to every user ``u`` with ``(u + k) % 4 == 0``;
- *filed* ones: file ``n`` brings two events of each, and is ingested in batches that end anywhere in it.

The journal is a small file outside the store, mapped by all: what was begun, what was acknowledged, how often each
thing was done, a row for each process and durability. What a process wrote into it stays when it is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv import Column, Pointers, Projection, Schema, Snapshot, Store

Int64s = NDArray[np.int64]

SCHEMA = Schema([Column("item_id", "int64"), Column("kind", "uint8")])
USERS = np.arange(240)
FILED = 1_000 + np.arange(48)
EVERYONE = np.concatenate([USERS, FILED])
SHARDS = 3
READ = 256
"""Newest events of a history that must always be whole."""
KEPT = 400
"""Newest events that a trim leaves."""
FILES_A_SOURCE = 8
DURABILITIES = ("sync", "relaxed")

SINGLE = ("batches begun", "batches acknowledged", "files begun", "files acknowledged", "seconds to hold")
"""What one process alone sets; the others are counted by all, in a row for each process and durability."""
ACTS = {
    "writer": ("appends acknowledged", "events acknowledged"),
    "ingester": ("files ingested", "file rows acknowledged"),
    "reader": ("snapshots read", "histories compared"),
    "holder": ("reads in held snapshots", "snapshots held to the end"),
    "compactor": ("seals", "compactions"),
    "trimmer": ("trims",),
    "backup": ("backups", "backups opened and verified"),
    "loader": ("batches trained on", "passes whole, each example once", "deaths of workers told"),
}
"""What each process of a soak does."""
SLOTS = (*SINGLE, *(act for acts in ACTS.values() for act in acts))
ROWS = 64

LOST, TWICE, WRONG = "acknowledged events lost", "events there twice or torn", "wrong sequences"
UNSOUND, HUNG, OTHER = "problems in verifications", "processes that hung", "processes that failed otherwise"
FINDINGS = (LOST, TWICE, WRONG, UNSOUND, HUNG, OTHER)


class SoakError(AssertionError):
    """The store is not what the journal says; ``kind``: one of :data:`FINDINGS`."""

    def __init__(self, kind: str, words: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {words}")


class Journal:
    """Counts in a file that is mapped by all processes: int64[ROWS, SLOTS].

    Args:
        path: of the file.
        member: which process counts.
        durability: of its handle.

    """

    def __init__(self, path: Path, member: int = 0, durability: str = DURABILITIES[0]) -> None:
        if not path.exists():
            np.zeros((ROWS, len(SLOTS)), np.int64).tofile(path)
        self._counts = np.memmap(path, np.int64, "r+", shape=(ROWS, len(SLOTS)))
        self._row = 1 + len(DURABILITIES) * member + DURABILITIES.index(durability)

    def __getitem__(self, name: str) -> int:
        return int(self._counts[:, SLOTS.index(name)].sum())

    def __setitem__(self, name: str, value: int) -> None:
        """Set what one process alone sets: one word, written at once."""
        self._counts[0, SLOTS.index(name)] = value

    def count(self, name: str, more: int = 1) -> None:
        """Note that something was done so often."""
        self._counts[self._row, SLOTS.index(name)] += more

    def of(self, name: str, members: list[int], durability: str) -> int:
        """How often these processes did it at a durability."""
        rows = [1 + len(DURABILITIES) * member + DURABILITIES.index(durability) for member in members]
        return int(self._counts[rows, SLOTS.index(name)].sum())

    def done_by(self, member: int) -> int:
        """A number that grows with whatever the process does."""
        begin = 1 + len(DURABILITIES) * member
        return int(self._counts[begin : begin + len(DURABILITIES)].sum())


def heads_after(batches: int) -> Int64s:
    """The head of every batched user after so many batches: int64[USERS]."""
    heads: Int64s = 2 * ((USERS + batches) // 4 - USERS // 4)
    return heads


def batch(number: int) -> dict[str, Any]:
    """The events of a batch."""
    some = USERS[(USERS + number) % 4 == 0]
    user = np.repeat(some, 2)
    version = np.repeat(heads_after(number - 1)[some], 2) + np.tile([0, 1], len(some))
    return {"user_id": user, "ts": version, **values_of(user, version)}


def file_rows(number: int) -> dict[str, Any]:
    """The events of a file: two of every filed user, in some order, and a column that tells it."""
    rng = np.random.default_rng(number)
    user = np.concatenate([rng.permutation(FILED), rng.permutation(FILED)])
    version = 2 * number + np.repeat([0, 1], len(FILED))
    place = len(user) * number + np.arange(len(user))
    return {"user_id": user, "ts": version, "place": place, **values_of(user, version)}


def source_of_file(number: int) -> str:
    """The source under whose name a file is ingested."""
    return f"files {number // FILES_A_SOURCE}"


def values_of(user: Int64s, version: Int64s) -> dict[str, NDArray[Any]]:
    """What a user's event of this version holds."""
    return {"item_id": (user << 32) + version, "kind": (version % 5).astype(np.uint8)}


# -- checks -----------------------------------------------------------------------------------------


def check_heads(heads: Int64s, least: int, most: int) -> None:
    """Heads of batched users lie between two batches, each batch whole."""
    if (heads < heads_after(least)).any():
        raise SoakError(LOST, f"batch {least} was acknowledged, heads are {heads.tolist()}")
    if (heads > heads_after(most)).any() or (heads % 2).any():
        raise SoakError(TWICE, f"batch {most} was begun, heads are {heads.tolist()}")


def check_filed_heads(heads: Int64s, least: int, most: int) -> None:
    """Heads of filed users lie between two files."""
    if (heads < 2 * least).any():
        raise SoakError(LOST, f"{least} files were acknowledged, heads are {heads.tolist()}")
    if (heads > 2 * most).any():
        raise SoakError(TWICE, f"{most} files were begun, heads are {heads.tolist()}")


def check_newest(snapshot: Snapshot, heads: Pointers) -> int:
    """The newest events of every history, each by what it must be; how many histories."""
    found = snapshot.read(heads, Projection(["item_id", "kind"], max_len=READ))
    length = np.minimum(heads.version, READ)
    if not np.array_equal(found.lengths, length):
        raise SoakError(WRONG, f"histories of {found.lengths.tolist()} events were read, {length.tolist()} are there")
    check_values(found, np.asarray(heads.user_id), heads.version)
    return len(heads)


def check_old(snapshot: Snapshot, pointers: Pointers) -> int:
    """Pointers that were taken long ago still give their prefix, or what a trim has left of it."""
    found = snapshot.read(pointers, Projection(["item_id", "kind"], max_len=READ), on_trimmed="truncate")
    check_values(found, np.asarray(pointers.user_id), pointers.version)
    return len(pointers)


def check_values(found: Any, users: Int64s, versions: Int64s) -> None:
    """Histories are the newest events below their versions, however many."""
    columns = {name: found.values(name) for name in ("item_id", "kind")}
    check_columns(columns, found.offsets, users, versions)


def check_columns(columns: dict[str, NDArray[Any]], offsets: Int64s, users: Int64s, versions: Int64s) -> None:
    """As :func:`check_values`, of columns and int64[B+1] offsets."""
    lengths = np.diff(offsets)
    user = np.repeat(users, lengths)
    version = np.arange(len(user)) - np.repeat(offsets[1:] - versions, lengths)
    for name, values in values_of(user, version).items():
        if not np.array_equal(columns[name], values):
            raise SoakError(WRONG, f"column {name!r} is not what was appended")


def check_sound(store: Store) -> None:
    """A store verifies."""
    problems = store.verify(isolated=False).problems
    if problems:
        raise SoakError(UNSOUND, str(problems[:5]))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the writers are: what was acknowledged, or what was begun."""

    batches: int
    files: int

    @classmethod
    def acknowledged(cls, journal: Journal) -> Progress:
        """What is there at least from now on."""
        return cls(journal["batches acknowledged"], journal["files acknowledged"])

    @classmethod
    def begun(cls, journal: Journal) -> Progress:
        """What was there at most until now."""
        return cls(journal["batches begun"], journal["files begun"])


def check_view(snapshot: Snapshot, least: Progress, journal: Journal) -> Pointers:
    """A snapshot holds what was acknowledged before it was taken, and nothing that was not begun; its heads."""
    heads = snapshot.head(EVERYONE)
    most = Progress.begun(journal)
    check_heads(heads.version[: len(USERS)], least.batches, most.batches)
    check_filed_heads(heads.version[len(USERS) :], least.files, most.files)
    return heads


def check_store(store: Store, least: Progress, journal: Journal) -> None:
    """A store is sound, and holds what was acknowledged and no more than was begun."""
    check_sound(store)
    with store.snapshot(verify="always") as snapshot:
        check_newest(snapshot, check_view(snapshot, least, journal))
    batches, most = store.sources().get("writer", 0), journal["batches begun"]
    if not least.batches <= batches <= most:
        raise SoakError(LOST, f"batches {least.batches} to {most} were acknowledged to begun, sources() says {batches}")
