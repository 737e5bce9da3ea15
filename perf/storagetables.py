"""The tables of :mod:`perf.storage`: what was measured, and the laws that are fitted to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perf.fatrows import PAPER_READ, PAPER_WRITE
from perf.fits import Linear, Power
from perf.harness import Chart, Curve
from perf.report import Cell
from perf.workloads import COLUMN_SETS, Log

LENGTHS = (256, 1024, 4096, 16_384, 65_536)
EXAMPLE = ("user_id", "label")
CODECS = ("zstd", "lz4")
ARRIVING, SORTED = "arriving", "by user"
STATES = LIVE, COMPACTED = "ours", "ours, compacted"
SWEPT_A_USER = (2, 4, 8, 16)
A_USER = SWEPT_A_USER[-1]
"""Examples a user."""
SWEPT_LENGTH = 4096
APPEND_A_USER, RARE_A_USER = 16, 160
"""Events of each user that an append has, about; the second where appends are rare."""
MORE_A_USER = (64, 250, 500)
"""Examples a user for which the law is evaluated."""
GROUP_EVENTS = 1 << 17
"""Of a row group: 9 MB of raw columns."""
TENANTS = (
    (4096, 20), (1024, 5), (256, 2), (16_384, 5), (1024, 20), (65_536, 2), (4096, 5), (256, 20),
    (16_384, 2), (4096, 2), (65_536, 5), (1024, 2), (16_384, 20), (256, 5), (65_536, 20),
)  # fmt: skip
"""Lengths and numbers of columns, in the order in which tenants come."""
SWEPT_TENANTS = (1, 2, 4, 8, 15)

Key = tuple[str, str, int]
"""Codec, order, length."""


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured, bytes where nothing else is said, and the tables of it.

    Attributes:
        fat: stored by each column of a fat-row file of 20 columns.
        fat_written: for such a file.
        jobs: read of such a file, by order, length and number of columns.
        ours: read of the store and the slim file by the same jobs, by state before these.
        swept, slims: stored of fat rows (zstd, arriving, ``SWEPT_LENGTH``) and of slim files, by examples a user.
        store: stored, by state.
        store_written, rarely_written, compacting: for the store, for one with rare appends, and by compaction.
        slim_written: for the slim file of the jobs.
        events, users: events a user, and users.
        copied: events that an example copies on average, by length.

    """

    fat: dict[Key, dict[str, int]]
    fat_written: dict[Key, int]
    jobs: dict[tuple[str, int, int], int]
    ours: dict[tuple[str, str, int, int], int]
    swept: dict[int, int]
    slims: dict[int, int]
    store: dict[str, int]
    store_written: int
    rarely_written: int
    compacting: int
    slim_written: int
    events: float
    users: int
    copied: dict[int, float]

    @property
    def slim_bytes(self) -> int:
        """Of the slim file of the jobs."""
        return self.slims[A_USER]

    @property
    def by_examples(self) -> Linear:
        """The law of ``swept``."""
        return Linear.fit({"a": 1.0, "b": list(self.swept)}, list(self.swept.values()))

    @property
    def slim_by_examples(self) -> Linear:
        """The law of ``slims``."""
        return Linear.fit({"a": 1.0, "b": list(self.slims)}, list(self.slims.values()))

    @property
    def stored_bytes(self) -> int:
        """Of the store and the slim file."""
        return self.store[LIVE] + self.slim_bytes

    @property
    def written_bytes(self) -> int:
        """For both."""
        return self.store_written + self.slim_written

    def fat_bytes(self, length: int, count: int, codec: str = CODECS[0], order: str = ARRIVING) -> int:
        """Of a fat-row data set with these columns."""
        parts = self.fat[codec, order, length]
        names = ("", *EXAMPLE, *COLUMN_SETS[count])
        return sum(parts[name] for name in names)

    def stored(self) -> list[dict[str, Cell]]:
        """Stored and written, by length."""
        rows: list[dict[str, Cell]] = []
        for length in LENGTHS:
            row: dict[str, Cell] = {"length": length, "events copied": self.copied[length]}
            for codec in CODECS:
                for order in (ARRIVING, SORTED):
                    row[f"{codec}, {order}"] = self.fat_bytes(length, 20, codec, order) / 1e6
            fat_written = self.fat_written[CODECS[0], ARRIVING, length]
            rows.append({
                **row, **{state: (size + self.slim_bytes) / 1e6 for state, size in self.store.items()},
                "x": self.fat_bytes(length, 20) / self.stored_bytes,
                "by user x": self.fat_bytes(length, 20, order=SORTED) / self.stored_bytes,
                "written, zstd": fat_written / 1e6, "written, ours": self.written_bytes / 1e6,
                "change": _change(self.written_bytes, fat_written),
            })  # fmt: skip
        return rows

    def read(self, order: str) -> list[dict[str, Cell]]:
        """Read by each job, in one order."""
        rows: list[dict[str, Cell]] = []
        for length in LENGTHS:
            for count in COLUMN_SETS:
                own, union = self.jobs[order, length, count], self.jobs[order, LENGTHS[-1], count]
                live, compacted = (self.ours[state, order, length, count] for state in STATES)
                rows.append({
                    "length": length, "columns": count, "own copy": own / 1e6, "union": union / 1e6,
                    LIVE: live / 1e6, "over own copy": _change(live, own), "over union": _change(live, union),
                    COMPACTED: compacted / 1e6, "that over own copy": _change(compacted, own),
                    "that over union": _change(compacted, union),
                })  # fmt: skip
        return rows

    def tenants(self) -> list[dict[str, Cell]]:
        """Stored by more and more tenants."""
        rows: list[dict[str, Cell]] = []
        for count, (copies, union) in self._by_tenants().items():
            rows.append({
                "tenants": count, "own copies": copies / 1e6, "union": union / 1e6, "ours": self.stored_bytes / 1e6,
                "own copies x": copies / self.stored_bytes, "union x": union / self.stored_bytes,
            })  # fmt: skip
        return rows

    def _by_tenants(self) -> dict[int, tuple[int, int]]:
        """Bytes of own copies, and of the union, of the first so many tenants."""
        found = {}
        for count in SWEPT_TENANTS:
            some = TENANTS[:count]
            widest = max(columns for _, columns in some)
            union = self.fat_bytes(max(length for length, _ in some), widest)
            found[count] = sum(self.fat_bytes(*tenant) for tenant in some), union
        return found

    def growth(self) -> list[dict[str, Cell]]:
        """Laws: what grows, of which way, with what."""
        lengths, a_user, tenants = list(LENGTHS), list(self.swept), self._by_tenants()
        laws: list[tuple[str, str, str, list[float], list[float]]] = []
        for codec in CODECS:
            for order in (ARRIVING, SORTED):
                stored = [self.fat_bytes(length, 20, codec, order) / 1e6 for length in LENGTHS]
                laws.append(("stored", f"{codec}, {order}", "length", [float(x) for x in lengths], stored))
                laws.append(("stored", f"{codec}, {order}", "events copied", list(self.copied.values()), stored))
        for order in (ARRIVING, SORTED):
            jobs = {"own copy": [self.jobs[order, length, 20] / 1e6 for length in LENGTHS]}
            jobs |= {state: [self.ours[state, order, length, 20] / 1e6 for length in LENGTHS] for state in STATES}
            for name, read in jobs.items():
                laws.append(("read by a job", f"{name}, {order}", "length", [float(x) for x in lengths], read))
                laws.append(("read by a job", f"{name}, {order}", "events copied", list(self.copied.values()), read))
        many = [float(count) for count in a_user]
        laws.append(("stored", "zstd, arriving", "examples a user", many, [self.swept[c] / 1e6 for c in a_user]))
        ours = [(self.store[LIVE] + self.slims[count]) / 1e6 for count in a_user]
        laws.append(("stored", "ours", "examples a user", many, ours))
        some = [float(count) for count in tenants]
        laws.append(("stored", "own copies", "tenants", some, [copies / 1e6 for copies, _ in tenants.values()]))
        laws.append(("stored", "union", "tenants", some, [union / 1e6 for _, union in tenants.values()]))
        rows: list[dict[str, Cell]] = []
        for what, way, along, x, y in laws:
            power, line = Power.fit(x, y), Linear.fit({"a": 1.0, "b": x}, y)
            a, b = line.coefficients.tolist()
            rows.append({
                "MB": what, "way": way, "grows with": along, "exponent": power.exponent,
                "off by at most": power.residual, "a": a, "b": b, "a + b·x off by": line.residual,
            })  # fmt: skip
        for what, way, along in (
            ("stored", "ours", "length"), ("stored", "ours", "tenants"), ("read by a job", "union", "length"),
        ):  # fmt: skip
            rows.append({
                "MB": what, "way": way, "grows with": along, "exponent": 0.0, "off by at most": 0.0,
                "a": None, "b": 0.0, "a + b·x off by": 0.0,
            })  # fmt: skip
        return rows

    def written(self) -> list[dict[str, Cell]]:
        """Bytes written with more and more examples a user; of fat rows as measured, else by their law."""
        rows: list[dict[str, Cell]] = []
        for count in (*self.swept, *MORE_A_USER):
            fat = self.swept.get(count) or float(self.by_examples.at({"a": 1.0, "b": count}))
            slim = self.slims.get(count) or float(self.slim_by_examples.at({"a": 1.0, "b": count}))
            often, rarely = self.store_written + slim, self.rarely_written + slim
            rows.append({
                "examples a user": count, "events an example": self.events / count,
                "by": "measured" if count in self.swept else "law", "fat rows": fat / 1e6,
                f"ours, {APPEND_A_USER} events an append": often / 1e6, "change": _change(often, fat),
                f"ours, {RARE_A_USER} events an append": rarely / 1e6, "that change": _change(rarely, fat),
            })  # fmt: skip
        return rows

    def _examples_for(self, size: float, share: float) -> float:
        """Examples a user with which ours, of so many bytes without them, are this share of fat rows, by the laws."""
        (a, b), (c, d) = self.by_examples.coefficients.tolist(), self.slim_by_examples.coefficients.tolist()
        return max(0.0, float((size + c - share * a) / (share * b - d)))

    def crossing(self) -> str:
        """From how many examples a user on ours is smaller, by the laws, as a sentence."""
        fewest = [self._examples_for(size, 1.0) for size in (self.store[LIVE], self.store_written)]
        stored, written = fewest
        return (
            f"by the law of fat rows in zstd at {SWEPT_LENGTH:,} events and 20 columns, ours stores less from "
            f"{stored:.1f} examples a user on, and writes less from {written:.1f} on; with fewer, fat rows are "
            "the smaller ones"
        )

    def lost(self) -> list[str]:
        """Where fat rows are read less than ours, as sentences."""
        notes = []
        for order in (ARRIVING, SORTED):
            for name, length_of in (("a copy of its own", None), ("the union", LENGTHS[-1])):
                worse = {
                    (length, count): ours / self.jobs[order, length_of or length, count] - 1
                    for (state, other, length, count), ours in self.ours.items()
                    if (state, other) == (LIVE, order) and ours > self.jobs[order, length_of or length, count]
                }
                jobs = len(LENGTHS) * len(COLUMN_SETS)
                if worse:
                    length, count = max(worse, key=lambda job: worse[job])
                    notes.append(
                        f"fat rows are better: {order}, {len(worse)} of {jobs} tenants read less of {name} than of the "
                        f"store, by {worse[length, count]:.0%} of it at most ({length:,} events, {count} columns)"
                    )
        return notes

    def paper(self) -> list[dict[str, Cell]]:
        """Its figures and ours."""
        low, high = PAPER_READ
        rows: list[dict[str, Cell]] = []
        for count, size in ((APPEND_A_USER, self.store_written), (RARE_A_USER, self.rarely_written)):
            every_tenth = self.events / 10
            slim = float(self.slim_by_examples.at({"a": 1.0, "b": every_tenth}))
            fat = float(self.by_examples.at({"a": 1.0, "b": every_tenth}))
            needed = self._examples_for(size, 1 + PAPER_WRITE / 100)
            rows.append({
                "quantity": f"primary bytes written, {SWEPT_LENGTH:,} events, {count} a user an append, an example "
                "for every tenth event (law)",
                "paper": f"{PAPER_WRITE} %", "ours": _change(size + slim, fat),
            })  # fmt: skip
            rows.append({
                "quantity": "the same, with one example for so many events: the paper's figure",
                "paper": f"{PAPER_WRITE} %", "ours": f"{self.events / needed:,.0f}",
            })  # fmt: skip
        for order in (ARRIVING, SORTED):
            for name, length_of in (("own copy", None), ("union", LENGTHS[-1])):
                changes = [
                    100 * (ours / self.jobs[order, length_of or length, count] - 1)
                    for (state, other, length, count), ours in self.ours.items()
                    if (state, other) == (LIVE, order)
                ]
                rows.append({
                    "quantity": f"bytes read by a job over its {name}, {order}", "paper": f"{low:.0f} to {high:.0f} %",
                    "ours": f"{max(changes):+.1f} to {min(changes):+.1f} %",
                })  # fmt: skip
        rows.append({
            "quantity": "bytes stored when 4,096 events become 65,536", "paper": "4 K to 64 K within the same means",
            "ours": f"fat rows x{self.fat_bytes(65_536, 20) / self.fat_bytes(4096, 20):.2f}, ours x1.00",
        })  # fmt: skip
        theirs = self.jobs[ARRIVING, 65_536, 20] / self.jobs[ARRIVING, 4096, 20]
        mine = self.ours[LIVE, ARRIVING, 65_536, 20] / self.ours[LIVE, ARRIVING, 4096, 20]
        over = self.ours[LIVE, ARRIVING, 65_536, 20] / self.jobs[ARRIVING, 4096, 20]
        rows.append({
            "quantity": "bytes read by a job of 20 columns when 4,096 events become 65,536", "paper": "",
            "ours": f"fat rows x{theirs:.2f}, ours x{mine:.2f}; ours at 65,536 over fat rows at 4,096: x{over:.2f}",
        })  # fmt: skip
        return rows

    def charts(self) -> list[Chart]:
        """Stored by length and by tenants; read by length of own copy, union and store."""
        lengths = list(LENGTHS)
        fat = [
            Curve(f"fat rows, {codec}, {order}", lengths, [self.fat_bytes(n, 20, codec, order) / 1e6 for n in lengths])
            for codec in CODECS
            for order in (ARRIVING, SORTED)
        ]
        tenants = self._by_tenants()
        counts = [float(count) for count in tenants]
        copies, unions = [c / 1e6 for c, _ in tenants.values()], [u / 1e6 for _, u in tenants.values()]
        stored = self.stored_bytes / 1e6
        reads = []
        for order in (ARRIVING, SORTED):
            curves = []
            for count in (2, 20):
                jobs = {n: self.jobs[order, n, count] / 1e6 for n in lengths}
                curves.append(Curve(f"own copy, {count} columns", lengths, list(jobs.values())))
                curves.append(Curve(f"union, {count} columns", lengths, [jobs[lengths[-1]]] * len(lengths)))
                for state in STATES:
                    mine = [self.ours[state, order, n, count] / 1e6 for n in lengths]
                    curves.append(Curve(f"{state}, {count} columns", lengths, mine))
            title = f"Read by a job, {order}"
            reads.append(Chart(title, "events an example at most", "MB", curves, log_x=True, log_y=True))
        return [
            Chart("Stored, 20 columns", "events an example at most", "MB", [
                *fat, Curve("store + slim", lengths, [stored] * len(lengths)),
            ], log_x=True, log_y=True),
            Chart("Stored by tenants", "tenants", "MB", [
                Curve("own copies", counts, copies), Curve("union", counts, unions),
                Curve("store + slim", counts, [stored] * len(counts)),
            ], log_y=True),
            *reads,
        ]  # fmt: skip

    def facts(self, log: Log, what: str) -> dict[str, Any]:
        """Everything measured."""
        return {
            "what": what, "events": len(log), "raw_bytes": len(log) * log.event_bytes,
            "store_bytes": self.store, "store_written": self.store_written,
            "rarely_written": self.rarely_written, "compaction_written": self.compacting,
            "slim_bytes": self.slim_bytes, "slim_written": self.slim_written,
            "slim_bytes_by_examples_a_user": self.slims,
            "fat_columns": {", ".join(map(str, key)): parts for key, parts in self.fat.items()},
            "fat_written": {", ".join(map(str, key)): size for key, size in self.fat_written.items()},
            "fat_bytes_by_examples_a_user": self.swept,
            "job_read_parquet": {", ".join(map(str, key)): size for key, size in self.jobs.items()},
            "job_read_ours": {", ".join(map(str, key)): size for key, size in self.ours.items()},
            "tenants": TENANTS, "events_copied_an_example": self.copied,
        }  # fmt: skip


def _change(ours: float, theirs: float) -> str:
    return f"{100 * (ours / theirs - 1):+.1f} %"
