"""What does a store from a stranger do to whoever opens it?

A small store's files are damaged, region by region: bytes flipped, pages zeroed, swapped and laid over others, files
cut and grown. Each is then opened, read by pointers that were taken before, listed, appended to, sealed and verified,
in a process of its own with an alarm and a limit on its memory. Each ends as one of :data:`OUTCOMES`. The first three
are what is promised of the manifest and of values; of LMDB's own pages, which LMDB trusts, a process may also die.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perf.harness import Report, Section, Settings, run_bench
from perf.report import Cell
from uihkv import Column, Pointers, Projection, Schema, Store, UihkvError

SAME, REFUSED, LESS = "as written", "named error", "other heads, pointers refused or as written"
DIED, HUNG, UNNAMED, WRONG = "died by a signal", "hung", "an error without a name of ours", "a wrong sequence"
OUTCOMES = (SAME, REFUSED, LESS, DIED, HUNG, UNNAMED, WRONG)
REGIONS = ("manifest", "lock", "meta", "branch", "leaf", "overflow", "any page")
PAGE = 4096
LIMIT_S = 20
LIMIT_BYTES = 2 << 30
USERS = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """A case that ended as it must not.

    Attributes:
        case: its number.
        region: of the file.
        damage: what was done.
        outcome: of :data:`OUTCOMES`.
        words: what the process said.

    """

    case: int
    region: str
    damage: str
    outcome: str
    words: str


def ids_of(kind: str) -> NDArray[Any]:
    """The user ids of a store of either kind."""
    return np.arange(USERS) if kind == "int64" else np.array([f"user {number}" for number in range(USERS)])


def batch(first: int, events: int, seed: int, kind: str) -> dict[str, Any]:
    """Events of every user; of the last one ten times as many."""
    rng = np.random.default_rng(seed)
    count = np.full(USERS, events)
    count[-1] *= 10
    user = np.repeat(np.arange(USERS), count)
    n = len(user)
    return {
        "user_id": ids_of(kind)[user], "ts": first + np.arange(n), "item_id": rng.integers(0, 2**60, n),
        "tags": [rng.integers(0, 9, rng.integers(0, 4)).astype(np.int32) for _ in range(n)],
        "word": [*rng.choice(["", "one", "word"], n - 3).tolist(), *(rng.bytes(4000).hex() for _ in range(3))],
    }  # fmt: skip


def make_store(path: Path, kind: str) -> None:
    """A small store with all kinds of pages, two schemas, a source, and few pages that are free."""
    columns = [Column("item_id", "int64"), Column("tags", "int32", ragged=True), Column("word", "string")]
    with Store.create(
        first := path.parent / "first", Schema(columns, user_id=kind), shards=1, chunk_events=512
    ) as store:
        for number in range(5):
            store.append(batch(10_000 * number, 60, number, kind), backfill=True, source="log", offset=number)
        store.add_column(Column("surface", "uint8", default=3))
        store.append(batch(90_000, 7, 9, kind), backfill=True, source="log", offset=9)
        store.seal()
        store.trim(ids_of(kind)[:4], 100)
        store.backup(path)
    shutil.rmtree(first)
    with Store.open(path) as store:
        store.append(batch(95_000, 7, 10, kind), backfill=True, source="log", offset=10)


def read_all(store: Store, pointers: Pointers) -> list[Any]:
    """What pointers give, value by value; None in place of a user whose read is refused."""
    out: list[Any] = []
    with store.snapshot() as snapshot:
        for index in range(len(pointers)):
            try:
                found = snapshot.read(pointers[index : index + 1], Projection())
            except UihkvError:
                out.append(None)
                continue
            columns: list[Any] = [found.lengths.tolist()]
            for name in found.columns:
                inner = found.element_offsets(name)
                columns.append((found.values(name).tobytes(), None if inner is None else inner.tobytes()))
            out.append(columns)
    return out


def take_pointers(store: Store) -> Pointers:
    """Heads and older versions of every user, with their ``last_ts``."""
    with store.snapshot() as snapshot:
        heads = snapshot.head(ids_of(store.schema.user_id))
        middle = Pointers(heads.user_id, heads.version - 5)
        users, versions = (
            np.concatenate([heads.user_id, middle.user_id]),
            np.concatenate([heads.version, middle.version]),
        )
        last = [int(snapshot.read(Pointers([u], [v]), Projection(["ts"], max_len=1)).values("ts")[0])
                for u, v in zip(users.tolist(), versions.tolist(), strict=True)]  # fmt: skip
    return Pointers(users, versions, last)


# -- damage -----------------------------------------------------------------------------------------


def regions_of(data: bytes) -> dict[str, list[int]]:
    """Pages of a data file by kind."""
    found: dict[str, list[int]] = {region: [] for region in REGIONS}
    number = 0
    while number < len(data) // PAGE:
        page = data[number * PAGE : (number + 1) * PAGE]
        flags, own = int.from_bytes(page[10:12], "little"), int.from_bytes(page[:8], "little")
        kind = {1: "branch", 2: "leaf", 4: "overflow", 8: "meta"}.get(flags & 0x1F, "any page")
        kind = kind if own == number else "any page"
        length = int.from_bytes(page[12:16], "little") if kind == "overflow" else 1
        found[kind] += range(number, number + max(1, length))
        number += max(1, length)
    return found


def damage(store: Path, region: str, chance: random.Random) -> str:
    """Damage a region of a store; what was done."""
    if region in ("manifest", "lock"):
        path = store / "manifest.msgpack" if region == "manifest" else store / "shards/0000/lock.mdb"
        data = bytearray(path.read_bytes())
        begin, end = 0, len(data)
        pages: list[int] = []
    else:
        path = store / "shards/0000/data.mdb"
        data = bytearray(path.read_bytes())
        all_of = {**regions_of(bytes(data)), "any page": list(range(len(data) // PAGE))}
        pages = [page for page in all_of[region] if (page + 1) * PAGE <= len(data)]
        page = chance.choice(pages)
        begin, end = page * PAGE, (page + 1) * PAGE
    how = chance.choice(["flip", "flip", "flip", "header", "zero", "swap", "over", "cut", "grow", "noise"])
    if end - begin < 2:
        how = "grow"
    if how == "flip":
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(begin, end)] ^= 1 << chance.randrange(8)
    elif how == "header":
        for at in range(begin, min(end, begin + 64)):
            if chance.random() < 0.1:
                data[at] = chance.randrange(256)
    elif how == "zero":
        data[begin:end] = bytes(end - begin)
    elif how == "noise":
        low = chance.randrange(begin, end)
        high = min(end, low + chance.randint(1, 512))
        data[low:high] = chance.randbytes(high - low)
    elif how in ("swap", "over") and pages:
        other = chance.randrange(len(data) // PAGE) * PAGE
        mine, theirs = data[begin:end], data[other : other + PAGE]
        data[begin:end] = theirs
        if how == "swap":
            data[other : other + PAGE] = mine
    elif how in ("swap", "over"):
        middle = (begin + end) // 2
        data[begin:end] = data[middle:end] + data[begin:middle]
    elif how == "cut":
        del data[chance.randrange(begin, end) :]
    else:
        data += chance.randbytes(chance.choice([1, PAGE, 10 * PAGE]))
    path.write_bytes(data)
    return f"{how} at {begin}"


# -- cases ------------------------------------------------------------------------------------------


def use(path: Path, pointers: Pointers, expected: list[Any]) -> str:
    """Do all that one does with a store; how it ended."""
    refused = False
    with Store.open(path, durability="relaxed") as store:
        before = take_heads(store)
        for work in _works(store):
            try:
                work()
            except UihkvError:
                refused = True
        found = read_all(store, pointers)
        for mine, theirs in zip(found, expected, strict=True):
            if mine is None:
                refused |= theirs is not None  # else what was trimmed
            elif mine != theirs:
                return WRONG
    return REFUSED if refused else SAME if before == pointers.version[:USERS].tolist() else LESS


def take_heads(store: Store) -> list[int]:
    """Heads of all users."""
    with store.snapshot() as snapshot:
        heads: list[int] = snapshot.head(ids_of(store.schema.user_id)).version.tolist()
        return heads


def _works(store: Store) -> Iterator[Callable[[], object]]:
    yield store.sources
    yield lambda: store.stats(details=True)
    yield lambda: store.verify(isolated=False)
    yield lambda: store.append(
        {**batch(99_000, 2, 11, store.schema.user_id), "surface": np.zeros(2 * USERS + 18, np.uint8)}, backfill=True
    )
    yield store.seal
    yield store.compact


def run_case(path: Path, pointers: Pointers, expected: list[Any], said: Path) -> tuple[str, str]:
    """Use a damaged store in a process of its own: how that ended, and what it said."""
    process = os.fork()
    if not process:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT_S)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
            outcome = use(path, pointers, expected)
        except UihkvError as error:
            said.write_text(str(error))
            outcome = REFUSED
        except BaseException:
            said.write_text(traceback.format_exc())
            outcome = UNNAMED
        os._exit(10 + OUTCOMES.index(outcome))
    status = os.waitpid(process, 0)[1]
    words = said.read_text() if said.exists() else ""
    said.unlink(missing_ok=True)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return (HUNG if number == signal.SIGALRM else DIED), signal.Signals(number).name
    code = os.WEXITSTATUS(status) - 10
    return (OUTCOMES[code], words) if 0 <= code < len(OUTCOMES) else (DIED, f"status {code + 10}")


def attack(count: int, seed: int, scratch: Path, kind: str = "int64") -> tuple[dict[str, Counter[str]], list[Finding]]:
    """Damage so many stores; outcomes by region, and the cases that must not be."""
    whole = scratch / "whole"
    make_store(whole, kind)
    shutil.copytree(whole, scratch / "used")  # compiles all there is to compile
    with Store.open(whole) as store:
        pointers = take_pointers(store)
        expected = read_all(store, pointers)
    if use(scratch / "used", pointers, expected) != SAME:
        raise RuntimeError("an undamaged store does not read as it was written")
    counts: dict[str, Counter[str]] = {region: Counter() for region in REGIONS}
    findings = []
    for case in range(count):
        chance = random.Random(f"{seed}-{case}")
        region = REGIONS[case % len(REGIONS)]
        path = scratch / "case"
        shutil.copytree(whole, path)
        done = damage(path, region, chance)
        outcome, words = run_case(path, pointers, expected, scratch / "said")
        counts[region][outcome] += 1
        trusted = region not in ("manifest", "lock")
        if outcome in (HUNG, UNNAMED, WRONG) or (outcome == DIED and not trusted):
            findings.append(Finding(case, region, done, outcome, words))
        shutil.rmtree(path)
    return counts, findings


def measure(settings: Settings) -> Report:
    """Damage stores and count what came of it."""
    count = settings.pick(240, 70_000)
    counts: dict[str, Counter[str]] = {region: Counter() for region in REGIONS}
    findings: list[Finding] = []
    for kind in ("int64", "string"):
        (settings.scratch / kind).mkdir()
        some, found = attack(count // 2, settings.seed, settings.scratch / kind, kind)
        findings += found
        for region, outcomes in some.items():
            counts[region].update(outcomes)
    rows: list[dict[str, Cell]] = [
        {"region": region, **{outcome: outcomes[outcome] for outcome in OUTCOMES}}
        for region, outcomes in counts.items()
    ]
    bad: list[dict[str, Cell]] = [
        {
            "case": one.case,
            "region": one.region,
            "damage": one.damage,
            "outcome": one.outcome,
            "words": one.words[-300:],
        }
        for one in findings
    ]
    sections = [Section(f"{count:,} damaged stores, opened and used", rows)]
    return Report(
        sections=[*sections, *([Section("What must not be", bad)] if bad else [])],
        facts={"outcomes": {region: dict(outcomes) for region, outcomes in counts.items()}, "findings": len(findings)},
    )


def main() -> None:
    """The bench; a finding is status 1."""
    found: list[int] = []

    def run(settings: Settings) -> Report:
        report = measure(settings)
        found.append(report.facts["findings"])
        return report

    run_bench("hostile", __doc__, run)
    sys.exit(1 if any(found) else 0)


if __name__ == "__main__":
    main()
