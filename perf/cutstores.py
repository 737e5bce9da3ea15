"""Operations that are cut off at each of their system calls, and what may be there afterwards.

An operation works in a folder of its own, on a small store in it, or makes one there. What it acknowledges it says. A
:class:`Case` knows what was in the folder before and after; :meth:`Case.judge` opens what a cut has left, compares,
lives it to its end, and says what is not as it must be: one of :data:`FAULTS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uihkv import Column, CompactionPolicy, Projection, Schema, Store, StoreNotFoundError, UihkvError
from uihkv.openstore import Durability
from uihkv.verify import verify_store

SCHEMA = Schema([Column("item_id", "int64"), Column("tags", "int32", ragged=True)])
SURFACE = Column("surface", "uint8", default=7)
USERS = np.arange(8)
SHARDS = 2

LOST, TORN, UNSOUND = "events lost", "torn", "unsound"
HALF, LEFT, STUCK = "published in part", "files left", "stuck"
FAULTS = (LOST, TORN, UNSOUND, HALF, LEFT, STUCK)

Say = Callable[[str], object]
Content = dict[int, tuple[Any, ...]]
"""Of each user: the head, and the bytes of every column of what is left."""
ACKNOWLEDGED = "acknowledged"


def batch(number: int) -> dict[str, Any]:
    """The events of a batch: the same whenever it is asked for."""
    rng = np.random.default_rng(number)
    n = int(rng.integers(40, 80))
    return {
        "user_id": np.append(USERS, rng.choice(USERS, n - len(USERS))),
        "ts": 1000 * number + np.arange(n),
        "item_id": rng.integers(0, 2**40, n),
        "tags": [rng.integers(0, 9, rng.integers(0, 4)).astype(np.int32) for _ in range(n)],
    }


def make_store(path: Path) -> None:
    """Tails, short chunks that compaction merges, pages that were freed."""
    with Store.create(path, SCHEMA, SHARDS, chunk_events=16) as store:
        for number in range(6):
            store.append(batch(number), backfill=True, source="log", offset=number)
            if number in (1, 3):
                store.seal()
        store.trim(USERS[:3], 5)


# -- operations -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that is done to disks.

    Attributes:
        run: does it, or what is left of it, in a folder; says when it is acknowledged.
        durable: whether what was acknowledged survives a power cut.

    """

    run: Callable[[Path, Say], None]
    durable: bool = True


def _on_store(work: Callable[[Store, Path], object], durability: Durability = "sync") -> Callable[[Path, Say], None]:
    def run(folder: Path, say: Say) -> None:
        with Store.open(folder / "store", durability=durability) as store:
            work(store, folder)
            say(ACKNOWLEDGED)

    return run


def _unless_made(make: Callable[[Path], None]) -> Callable[[Path, Say], None]:
    def run(folder: Path, say: Say) -> None:
        if not (folder / "made").exists():
            make(folder / "made")
        say(ACKNOWLEDGED)

    return run


def _append(store: Store, folder: Path) -> None:
    store.append(batch(6), backfill=True, source="log", offset=6)


def _add_column(store: Store, folder: Path) -> None:
    if SURFACE.name not in store.schema:
        store.add_column(SURFACE)


def _back_up(store: Store, folder: Path) -> None:
    if not (folder / "made").exists():
        store.backup(folder / "made")


def _copy(store: Store, folder: Path) -> None:
    if not (folder / "made").exists():
        store.compact(copy_to=folder / "made")


def _build(path: Path) -> None:
    with Store.build(path, SCHEMA, SHARDS, chunk_events=16) as store:
        store.append(batch(1), backfill=True)


def _assemble(path: Path) -> None:
    rows = batch(1)
    with Store.assemble(path, SCHEMA, SHARDS, chunk_events=16) as assembly:
        for number in range(SHARDS):
            with Store.build_shard(assembly, number) as store:
                mine = np.flatnonzero(store.shard_of(rows["user_id"]) == number)
                some = {name: [column[row] for row in mine] for name, column in rows.items()}
                store.append({**some, "user_id": rows["user_id"][mine], "ts": rows["ts"][mine],
                              "item_id": rows["item_id"][mine]}, backfill=True)  # fmt: skip


OPERATIONS: dict[str, Operation] = {
    "append": Operation(_on_store(_append)),
    "append, relaxed": Operation(_on_store(_append, "relaxed"), durable=False),
    "seal": Operation(_on_store(lambda store, _: store.seal())),
    "compaction": Operation(_on_store(lambda store, _: store.compact(CompactionPolicy(transaction_events=60)))),
    "trim": Operation(_on_store(lambda store, _: store.trim(USERS, 20))),
    "change of schema": Operation(_on_store(_add_column)),
    "backup": Operation(_on_store(_back_up)),
    "compacted copy": Operation(_on_store(_copy)),
    "create": Operation(_unless_made(lambda path: Store.create(path, SCHEMA, SHARDS).close())),
    "build": Operation(_unless_made(_build)),
    "assembly": Operation(_unless_made(_assemble)),
}
ON_STORE = ("append", "append, relaxed", "seal", "compaction", "trim", "change of schema", "backup", "compacted copy")
"""Those that have a store to begin with."""


def folder_of(name: str) -> str:
    """The folder in which an operation works."""
    return name.replace(",", "").replace(" ", "-")


def prepare(root: Path) -> None:
    """A folder for each operation, in the root."""
    root.mkdir(parents=True)
    make_store(root / "whole")
    for name in OPERATIONS:
        (folder := root / folder_of(name)).mkdir()
        if name in ON_STORE:
            shutil.copytree(root / "whole", folder / "store")
    shutil.rmtree(root / "whole")


# -- what may be there ------------------------------------------------------------------------------


def content_of(path: Path) -> Content | None:
    """What a store holds; None: nothing is there."""
    try:
        store = Store.open(path)
    except StoreNotFoundError:
        return None
    with store, store.snapshot(verify="always") as snapshot:
        heads = snapshot.head(USERS)
        names = ("ts", *store.schema.names)
        found = snapshot.read(heads, Projection(list(names)), on_trimmed="truncate")
        content: Content = {}
        for row, (user, head) in enumerate(zip(USERS.tolist(), heads.version.tolist(), strict=True)):
            low, high = found.offsets[row : row + 2].tolist()
            columns = []
            for name in names:
                values, inner = found.values(name), found.element_offsets(name)
                if inner is not None:
                    columns.append(
                        (np.diff(inner[low : high + 1]).tobytes(), values[inner[low] : inner[high]].tobytes())
                    )
                else:
                    columns.append((values[low:high].tobytes(), b""))
            content[user] = (head, high - low, names, *columns)
    return content


@dataclass(frozen=True, slots=True)
class Case:
    """An operation, and what was in its folder before and after."""

    name: str
    operation: Operation
    store: tuple[Content | None, Content | None]
    made: tuple[Content | None, Content | None]

    @classmethod
    def of(cls, name: str, before: Path, after: Path) -> Case:
        """Of the operation's folder before it and after it."""
        store = content_of(before / "store"), content_of(after / "store")
        return cls(name, OPERATIONS[name], store, (None, content_of(after / "made")))

    def judge(self, folder: Path, acknowledged: bool) -> str | None:
        """What is wrong with what a cut has left in a folder; ``acknowledged``: and must therefore be there."""
        for place, (before, after) in (("store", self.store), ("made", self.made)):
            fault = self._judge_store(folder / place, before, after, acknowledged)
            if fault:
                return fault
        try:
            self.operation.run(folder, lambda _: None)
        except UihkvError:
            return STUCK
        for place, (_, after) in (("store", self.store), ("made", self.made)):
            fault = self._judge_store(folder / place, after, after, True)
            if fault:
                return fault
        if {path.name for path in folder.iterdir()} - {"store", "made"}:
            return LEFT
        return None

    def _judge_store(self, path: Path, before: Content | None, after: Content | None, acknowledged: bool) -> str | None:
        try:
            found = content_of(path)
        except UihkvError:
            return TORN if before is not None else HALF
        if found is None or before is None or after is None:
            if found == after or (found == before and not acknowledged):
                return self._verify(path) if found is not None else None
            return LOST if found is None else HALF
        for user, one in found.items():
            least, most = before[user], after[user]
            if one == most or (one == least and not acknowledged):
                continue
            return LOST if one == least or one[0] < least[0] else TORN
        return self._verify(path)

    @staticmethod
    def _verify(path: Path) -> str | None:
        return UNSOUND if verify_store(path, isolated=False).problems else None
