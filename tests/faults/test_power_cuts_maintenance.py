"""A life of appends, seals, compactions, trims, changes of schema, builds and copies, cut off at any of its moments.

One real run is recorded (:mod:`perf.powercut`). What each of many moments may have left on the disk is opened,
verified, compared with a plain model of what was acknowledged, and lived to its end. ``UIHKV_CUTS`` sets how many
moments of each kind.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perf.powercut import Step, can_trace, cut, record, said
from tests.model import Model
from uihkv import Column, CompactionPolicy, Projection, Schema, Store, StoreNotFoundError

pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace, and a system that lets it trace")

SCHEMA = Schema([Column("item_id", "int64"), Column("tags", "int32", ragged=True)])
SURFACE = Column("surface", "uint8", default=7)
USERS = 6
CUTS = int(os.environ.get("UIHKV_CUTS", "18"))

LIFE = [
    "append", "append", "seal", "append", "append", "add_column", "append", "seal", "append", "compact", "trim",
    "append", "backup", "append", "seal", "append", "compact_copy", "append", "drop_column", "append", "build", "trim",
    "seal", "compact", "append", "backup",
]  # fmt: skip


def batch(number: int) -> dict[str, Any]:
    """The events of a batch: the same whenever it is asked for."""
    rng = np.random.default_rng(number)
    n = int(rng.integers(20, 60))
    return {
        "user_id": rng.integers(0, USERS, n),
        "ts": 1000 * number + np.arange(n),
        "item_id": rng.integers(0, 2**40, n),
        "tags": [rng.integers(0, 9, rng.integers(0, 4)).astype(np.int32) for _ in range(n)],
    }


def borders(model: Model, number: int) -> tuple[list[int], list[int]]:
    """Users to trim, and up to which version."""
    users = [user for user in range(USERS) if (user + number) % 2]
    return users, [model.head(user) * 2 // 3 for user in users]


def live(model: Model, number: int) -> None:
    """One step of the life, of the model."""
    match LIFE[number]:
        case "append":
            model.append(batch(number), backfill=True)
        case "trim":
            for user, before in zip(*borders(model, number), strict=True):
                model.trim(user, before)
        case "add_column":
            model.add_column(SURFACE)
        case "drop_column":
            model.drop_column("tags")


def states() -> list[Model]:
    """The model before the first step, and after each."""
    model = Model(SCHEMA)
    found = [copy.deepcopy(model)]
    for number in range(len(LIFE)):
        live(model, number)
        found.append(copy.deepcopy(model))
    return found


def do(store: Store, there: Path, number: int, before: Model) -> None:
    """One step of the life; doing it again changes nothing."""
    match LIFE[number]:
        case "append":
            rows = {
                name: column for name, column in batch(number).items() if name in ("user_id", "ts", *store.schema.names)
            }
            store.append(rows, backfill=True, source="life", offset=number)
        case "seal":
            store.seal()
        case "compact":
            store.compact(CompactionPolicy(transaction_events=40))
        case "trim":
            store.trim(*borders(before, number))
        case "add_column" if "surface" not in store.schema:
            store.add_column(SURFACE)
        case "drop_column" if "tags" in store.schema:
            store.drop_column("tags")
        case "backup" if not made_at(there, number).exists():
            store.backup(made_at(there, number))
        case "compact_copy" if not made_at(there, number).exists():
            store.compact(copy_to=made_at(there, number))
        case "build" if not made_at(there, number).exists():
            with Store.build(made_at(there, number), SCHEMA, shards=2, chunk_events=16) as built:
                built.append(batch(number), backfill=True)


def made_at(there: Path, number: int) -> Path:
    """Where a step puts another store."""
    return there / "made" / f"{LIFE[number]}-{number}"


PROGRAM = """
import os, sys
from pathlib import Path
from tests.faults.test_power_cuts_maintenance import LIFE, do, states
from uihkv import Store
there, before = Path(sys.argv[1]), states()
with Store.open(there / "store") as store:
    for number in range(len(LIFE)):
        do(store, there, number, before[number])
        os.write(1, b"%d\\n" % number)
"""

Content = dict[int, tuple[int, list[tuple[Any, ...]]]]
"""Of each user who has a history: its head, and the events that are left."""


def content(store: Store) -> Content:
    names = ["ts", *store.schema.names]
    with store.snapshot(verify="always") as snapshot:
        heads = snapshot.head(np.arange(USERS))
        found = snapshot.read(heads, Projection(names), on_trimmed="truncate")
    columns = []
    for name in names:
        values, inner = found.values(name).tolist(), found.element_offsets(name)
        bounds = None if inner is None else inner.tolist()
        columns.append(values if bounds is None else [values[low:high] for low, high in pairwise(bounds)])
    events = list(zip(*columns, strict=True))
    offsets = found.offsets.tolist()
    rows = {user: (int(heads.version[user]), events[offsets[user] : offsets[user + 1]]) for user in range(USERS)}
    return {user: row for user, row in rows.items() if row[0]}


def expected(model: Model) -> Content:
    names = ["ts", *model.schema.names]
    rows: Content = {}
    for user, history in model.histories.items():
        events = [tuple(_plain(event.get(name)) for name in names) for event in history[model.base(user) :]]
        rows[user] = (len(history), events)
    return rows


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def check(store: Store, before: Model, after: Model, name: str) -> None:
    """Each user has what he had before a step, or after it; and the step is seen whole where it must be."""
    assert store.verify(isolated=False).problems == ()
    found, least, most = content(store), expected(before), expected(after)
    schemas = {tuple(model.schema.names): model for model in (before, after)}
    if name in ("add_column", "drop_column"):
        assert found == expected(schemas[tuple(store.schema.names)])
        return
    assert store.schema.names == before.schema.names
    for user in range(USERS):
        assert found.get(user) in (least.get(user), most.get(user))


def check_made(there: Path, models: list[Model], acknowledged: int) -> None:
    """What steps put under other paths is there whole, or not at all where nobody was told of it."""
    for number in [number for number in range(len(LIFE)) if LIFE[number] in ("backup", "compact_copy", "build")]:
        path = made_at(there, number)
        try:
            with Store.open(path) as made:
                assert number <= acknowledged
                built = Model(SCHEMA)
                built.append(batch(number), backfill=True)
                assert content(made) == expected(built if LIFE[number] == "build" else models[number])
        except StoreNotFoundError:
            assert number >= acknowledged


Recording = tuple[Path, Path, list[Step]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The files before a life, where it was lived, and what it did to the disk."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "there").mkdir()
    Store.create(folder / "there" / "store", SCHEMA, shards=2, chunk_events=16).close()
    shutil.copytree(folder / "there", folder / "before")
    steps = record(PROGRAM, [str(folder / "there")], folder / "traces")
    assert said(steps, float("inf")) == [str(number) for number in range(len(LIFE))]
    models = states()
    with Store.open(folder / "there" / "store") as store:
        assert content(store) == expected(models[-1])
    check_made(folder / "there", models, len(LIFE))
    return folder / "before", folder / "there", steps


def moments(steps: list[Step], where: Path, count: int, rng: random.Random) -> Iterator[tuple[float, str]]:
    """Moments of all kinds of steps alike: before, in the midst of, and after a system call that changes the disk."""
    mine = [step for step in steps if step.path.startswith(str(where))]
    done = [step.end for step in steps if step.call == "say"]
    of_kind: dict[str, list[Step]] = {}
    for step in mine:
        number = sum(end <= step.begin for end in done)
        if number < len(LIFE):
            of_kind.setdefault(LIFE[number], []).append(step)
    assert set(of_kind) == set(LIFE)
    for index in range(count):
        kind = sorted(of_kind)[index % len(of_kind)]
        step = rng.choice(of_kind[kind])
        yield rng.choice([step.begin, step.end, (step.begin + step.end) / 2]), kind


@pytest.mark.parametrize("power", ["cut", "stays"])
def test_whenever_a_life_is_cut_off(recorded: Recording, tmp_path: Path, power: str) -> None:
    before, where, steps = recorded
    rng = random.Random(11)
    models = states()
    for index, (moment, kind) in enumerate(moments(steps, where, CUTS, rng)):
        there = tmp_path / f"{index}"
        cut(before, where, steps, moment, there, rng if power == "cut" else None)
        acknowledged = len(said(steps, moment))
        assert LIFE[acknowledged] == kind or moment >= steps[-1].begin or LIFE[acknowledged - 1] == kind
        check_made(there, models, acknowledged)
        with Store.open(there / "store") as store:
            at = min(acknowledged, len(LIFE) - 1)
            check(store, models[at], models[at + 1], LIFE[at])
            for number in range(at, len(LIFE)):
                do(store, there, number, models[number])
            assert content(store) == expected(models[-1])
            assert store.verify(isolated=False).problems == ()
        check_made(there, models, len(LIFE))
        shutil.rmtree(there)


def test_directories_made_on_the_way_to_a_copy_are_flushed_too(recorded: Recording) -> None:
    """The last flush of a publication is not enough: the entry of each new directory is in the one above."""
    _, where, steps = recorded
    first = LIFE.index("backup")
    done = [step for step in steps if step.call == "say"]
    mine = [step for step in steps if done[first - 1].end <= step.begin <= done[first].begin]
    made = next(step for step in mine if step.call == "mkdir" and step.path == str(where / "made"))
    flushed = [step.path for step in mine if step.call == "sync" and step.begin >= made.end]
    assert str(where) in flushed
