"""Bytes, pages and processor time of a store as functions of its users, events, examples, tenants and shards.

Every law is a sum of a few terms with fitted coefficients (:class:`perf.fits.Linear`), and the terms are worked out
from a :class:`Config` and its log alone, without a store:

- stored: events, users, shards;
- written by live appends: events, commits, *touches* (users that an append meets, each of whose tails is rewritten) and
  the pages of LMDB's leaves that these lie in; both times how full tails come to be, as those of short histories are
  small, and large ones have pages of their own;
- processor time of appends: events, touches, commits;
- chunks and tails: users, events, and events among a user's first 512, as short histories are cut otherwise;
- read by a tenant, for each set of columns: examples, chunks that they touch, and the events of these.

How many events an example covers is the mean of ``min(length, version)``, every version of a history being as likely.
A window of ``n`` events touches ``n / K + 1`` chunks of ``K`` events, which have ``n + K``; what ``K`` is, the law of
chunks and tails says. How many different pages ``t`` touches meet of ``P``: ``P·(1 - exp(-t / P))``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perf.fits import Linear
from perf.workloads import COLUMN_SETS, TWENTY_COLUMNS, Log, Workload, make_log
from uihkv import keys

Floats = NDArray[np.float64]

LIVE, COMPACTED = "live", "compacted"
STATES = (LIVE, COMPACTED)
READ = ("bytes read", "pages read", "chunks read", "read cpu s")
"""What a tenant's job takes; each an example."""
SHORT = 512
PAGE_EVENTS = 150
"""Events of a tail that fills a page, about."""
PAGES_A_USER = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Pages of tails a user that are tried: tails lie together in LMDB's leaves."""


@dataclass(frozen=True, slots=True)
class Config:
    """A store to be built.

    Attributes:
        users, events: how many, and events a user (of heavy tails about the mean).
        shards: LMDB environments.
        append_events: events of one append.
        heavy: whether lengths are heavy-tailed, else all are equal.

    """

    users: int
    events: int
    shards: int
    append_events: int
    heavy: bool = False

    def make_log(self, seed: int) -> Log:
        """Its log, user by user."""
        bounds = (1, 16 * self.events) if self.heavy else (self.events, self.events)
        return make_log(
            Workload(
                users=self.users, mean_length=self.events, shortest=bounds[0], longest=bounds[1], schema=TWENTY_COLUMNS
            ),
            seed,
        )

    def text(self) -> str:
        """For a table."""
        tail = "heavy tail" if self.heavy else "equal"
        return f"{self.users:,} x {self.events:,} {tail}, {self.shards} shards, appends of {self.append_events:,}"


def covered_events(lengths: NDArray[np.int64], most: int) -> float:
    """Events that an example covers: the mean of ``min(most, version)`` over users and their versions."""
    history = lengths.astype(np.float64)
    short = np.minimum(history, most)
    # versions 1 .. short cover themselves, the others ``most``
    return float(((short * (short + 1) / 2 + (history - short) * most) / history).mean())


@dataclass(frozen=True, slots=True)
class Terms:
    """What the laws are sums of, for one store.

    Attributes:
        events, users, shards: how many there are.
        commits: of all shards.
        touches: different users in each commit, summed.
        lengths: int64[users], of the histories.

    """

    events: float
    users: float
    shards: float
    commits: float
    touches: float
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, config: Config, log: Log) -> Terms:
        """Count them in the log."""
        arriving = log.in_arrival_order()
        append = np.arange(len(log)) // config.append_events
        shard = keys.shard_of(arriving.user_id, config.shards)
        row = np.searchsorted(log.users, arriving.user_id)
        touches = len(np.unique(append * len(log.users) + row))
        commits = len(np.unique(append * config.shards + shard))
        return cls(len(log), len(log.users), config.shards, commits, touches, log.lengths)

    @property
    def fullness(self) -> float:
        """How full tails come to be: 1 where histories are longer than a page's events."""
        return float(np.minimum(self.lengths, PAGE_EVENTS).mean()) / PAGE_EVENTS

    def touched_pages(self, pages_a_user: float) -> float:
        """Pages that hold the touched tails, commit by commit."""
        pages = pages_a_user * self.users / self.shards
        return self.commits * pages * -float(np.expm1(-self.touches / self.commits / pages))

    def writing(self, pages_a_user: float) -> dict[str, float]:
        """Terms of what live appends write."""
        return {
            "events": self.events, "touches": self.fullness * self.touches,
            "pages": self.touched_pages(pages_a_user * self.fullness), "commits": self.commits,
        }  # fmt: skip

    def appending(self) -> dict[str, float]:
        """Terms of their processor time."""
        return {"events": self.events, "touches": self.touches, "commits": self.commits}

    def storing(self) -> dict[str, float]:
        """Terms of what is stored."""
        return {"events": self.events, "users": self.users, "shards": self.shards}

    def counting(self) -> dict[str, float]:
        """Terms of how many chunks and tails there are."""
        short = float(np.minimum(self.lengths, SHORT).mean())
        return {"users": self.users, "short": short * self.users, "events": self.events}

    def reading(self, length: int, chunk_events: float) -> dict[str, float]:
        """Terms of what a tenant's example takes, where chunks have so many events on average."""
        covered = covered_events(self.lengths, length)
        fetched = min(covered + chunk_events, float(self.lengths.mean()))
        return {"examples": 1.0, "chunks": covered / chunk_events + 1, "fetched": fetched}


@dataclass(frozen=True, slots=True)
class Measured:
    """What one store was found to take.

    Attributes:
        stored, entries: bytes of its files (compacted, of pages in use), and its chunks and tails, by state.
        written, append_cpu_s: bytes of write calls and processor seconds of all appends.
        read: by state, length, number of columns and name in ``READ``, an example.

    """

    stored: dict[str, float]
    entries: dict[str, float]
    written: float
    append_cpu_s: float
    read: dict[tuple[str, int, int], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Model:
    """The fitted laws.

    Attributes:
        stored, entries: by state.
        written, append_cpu_s: of live appends.
        pages_a_user: that fit ``written`` best.
        read: by state, number of columns and name in ``READ``.

    """

    stored: dict[str, Linear]
    entries: dict[str, Linear]
    written: Linear
    append_cpu_s: Linear
    pages_a_user: float
    read: dict[tuple[str, int, str], Linear]

    @classmethod
    def fit(cls, found: list[tuple[Terms, Measured]]) -> Model:
        """Fit every law to measured stores."""
        terms = [term for term, _ in found]
        storing = _columns([term.storing() for term in terms])
        stored = {s: Linear.fit(storing, [m.stored[s] for _, m in found]) for s in STATES}
        counting = _columns([term.counting() for term in terms])
        entries = {s: Linear.fit(counting, [m.entries[s] for _, m in found]) for s in STATES}
        written = {
            pages: Linear.fit(_columns([term.writing(pages) for term in terms]), [m.written for _, m in found])
            for pages in PAGES_A_USER
        }
        pages = min(written, key=lambda one: written[one].residual)
        append = Linear.fit(_columns([term.appending() for term in terms]), [m.append_cpu_s for _, m in found])
        read = {}
        for state in STATES:
            for count in COLUMN_SETS:
                points = [(t, m, k) for t, m in found for k in m.read if (k[0], k[2]) == (state, count)]
                sizes = [term.events / float(entries[state].at(term.counting())) for term, _, _ in points]
                reading = _columns(
                    [term.reading(key[1], size) for (term, _, key), size in zip(points, sizes, strict=True)]
                )
                for name in READ:
                    read[state, count, name] = Linear.fit(reading, [m.read[key][name] for _, m, key in points])
        return cls(stored, entries, written[pages], append, pages, read)

    def chunks(self, state: str, terms: Terms) -> float:
        """Chunks of a store, its tails not counted."""
        return max(0.0, float(self.entries[state].at(terms.counting())) - terms.users)

    def reading(self, state: str, terms: Terms, length: int) -> dict[str, float]:
        """Terms of what an example takes of a store in this state."""
        return terms.reading(length, terms.events / float(self.entries[state].at(terms.counting())))

    def errors(self, terms: Terms, measured: Measured) -> list[tuple[str, float]]:
        """Relative errors of every prediction for one store, by quantity."""
        found = [
            (f"bytes stored, {state}", _off(self.stored[state], terms.storing(), measured.stored[state]))
            for state in STATES
        ]
        found += [
            (f"chunks and tails, {state}", _off(self.entries[state], terms.counting(), measured.entries[state]))
            for state in STATES
        ]
        found.append(("bytes written", _off(self.written, terms.writing(self.pages_a_user), measured.written)))
        found.append(("append cpu s", _off(self.append_cpu_s, terms.appending(), measured.append_cpu_s)))
        for (state, length, count), values in measured.read.items():
            for name in READ:
                law = self.read[state, count, name]
                found.append((f"{name}, {state}", _off(law, self.reading(state, terms, length), values[name])))
        return found

    def describe(self) -> dict[str, object]:
        """Every coefficient."""
        return {
            "stored": {state: law.describe() for state, law in self.stored.items()},
            "entries": {state: law.describe() for state, law in self.entries.items()},
            "written": self.written.describe(), "pages_a_user": self.pages_a_user,
            "append_cpu_s": self.append_cpu_s.describe(),
            "read": {f"{s}, {count} columns, {name}": law.describe() for (s, count, name), law in self.read.items()},
        }  # fmt: skip


def _columns(rows: list[dict[str, float]]) -> dict[str, Floats]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _off(law: Linear, terms: dict[str, float], measured: float) -> float:
    return float(law.at(terms) / measured - 1)
