"""Which figures answer the report's questions, which compare with others, and which stand in README.md.

Nothing here is a figure: only where figures stand. A bench is compared with others by an entry of :data:`COMPARISONS`,
quoted in README.md by one of :data:`MEASURED`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perf.results import Figure, Pick

Question = Literal["smaller", "read", "peers", "memory", "length"]

QUESTIONS: dict[Question, tuple[str, str]] = {
    "smaller": ("How much smaller?", "bytes stored, theirs over ours"),
    "read": ("How much less is read?", "bytes read, theirs over ours"),
    "peers": ("How fast against each peer?", "our speed over theirs"),
    "memory": ("How far from the memory bound?", "our speed over that of"),
    "length": ("What did length buy?", "over the same of 16 events, by requests that were served more"),
}
"""What the first page answers, in a line each, and what its numbers are."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How we stand against something else.

    Attributes:
        question: of :data:`QUESTIONS`.
        against: against what: a text, with the row's columns by name, ``{column}``, and ``{title}`` of the table up to
            a colon.
        at: under which conditions, likewise.
        pick: the figures.
        ours: whether larger figures are better for us; if ``"smaller"``, one over each is what counts.
        peer: whether the other is something that a user could take instead; bounds of the machine are not.
        first: whether it stands in the first page's line. Where none of a question does, and there are many, the line
            counts them and names the nearest and the farthest.

    """

    question: Question
    against: str
    at: str
    pick: Pick
    ours: Literal["larger", "smaller"] = "larger"
    peer: bool = True
    first: bool = False

    def stand(self, figure: Figure) -> Figure:
        """A figure as what counts: above 1 we are better."""
        return figure if self.ours == "larger" else figure.inverse()


OURS = ("store, lz4", "store, lz4, reused", "store, none")
"""Ways of :mod:`perf.access` that are this store's."""

COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        "smaller", "fat rows, every tenth event an example", "{length} events",
        Pick("fatrows", "MB stored", "x"), first=True,
    ),
    Comparison(
        "smaller", "fat rows, every tenth event an example, sorted by user", "{length} events",
        Pick("fatrows", "MB stored", "sorted x"), first=True,
    ),
    Comparison(
        "smaller", "the same events in Parquet, lz4, sorted by user", "{log}, {store}",
        Pick("footprint", "Bytes an event", "of lz4"), ours="smaller", first=True,
    ),
    Comparison(
        "read", "fat rows, every tenth event an example", "an epoch {order}, {length} events",
        Pick("fatrows", "MB read", "zstd", over="ours"), first=True,
    ),
    Comparison(
        "smaller", "fat rows, few examples a user", "{length} events",
        Pick("storage", "MB stored and written", "x"), first=True,
    ),
    Comparison(
        "smaller", "fat rows, few examples a user, sorted by user", "{length} events",
        Pick("storage", "MB stored and written", "by user x"),
    ),
    Comparison(
        "smaller", "a copy of fat rows for each tenant", "{tenants} tenants",
        Pick("storage", "MB stored by tenants", "own copies x"), first=True,
    ),
    Comparison(
        "smaller", "fat rows that all tenants share", "{tenants} tenants",
        Pick("storage", "MB stored by tenants", "union x"),
    ),
    Comparison(
        "smaller", "fat rows, few examples a user (bytes written)", "{length} events",
        Pick("storage", "MB stored and written", "written, zstd", over="written, ours"),
    ),
    Comparison(
        "read", "a copy of fat rows for each tenant", "{title}, {length} events, {columns} columns",
        Pick("storage", "MB read by a job", "own copy", over="ours"), first=True,
    ),
    Comparison(
        "read", "fat rows that all tenants share", "{title}, {length} events, {columns} columns",
        Pick("storage", "MB read by a job", "union", over="ours"), first=True,
    ),
    Comparison(
        "peers", "arrays in memory", "{events} events, {order}, {values} values, {compression}, new outputs",
        Pick("read", "Against arrays", "new outputs"),
    ),
    Comparison(
        "peers", "{way}", "random users, {events} events, a process of its own",
        Pick("throughput", "random", "x time", without={"way": OURS}),
    ),
    Comparison(
        "peers", "{way}", "examples sorted by user, {events} events, a process of its own",
        Pick("throughput", "by user", "x time", without={"way": OURS}),
    ),
    Comparison(
        "peers", "DuckDB's ASOF join", "{requests} requests", Pick("resolve", "Requests resolved", "over duckdb"),
    ),
    Comparison(
        "peers", "Polars' join_asof", "{requests} requests", Pick("resolve", "Requests resolved", "over polars"),
    ),
    Comparison(
        "peers", "{way}", "feeding a trainer, {events} events",
        Pick("feeders", "Others", "speed over the loader", without={
            "way": ("loader", "loader, 1 worker", "loader, 2 workers"),
        }),
        ours="smaller",
    ),
    Comparison(
        "memory", "a copy of the same bytes", "{events} events, {compression}",
        Pick("read", "Where the time goes", "copy of its bytes"), peer=False,
    ),
)  # fmt: skip
"""Every comparison with others. Figures below 1 are listed under "Where others are better"."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What something changes, told with its interval.

    Attributes:
        question: of :data:`QUESTIONS`.
        what: changed: a text as in a :class:`Comparison`.
        pick: the figures.
        neutral: what says that nothing changed: no difference can be told where it lies in the interval.

    """

    question: Question
    what: str
    pick: Pick
    neutral: float = 0.0


DIFFERENCES: tuple[Difference, ...] = (
    Difference("length", "{log}, {column} at {length}", Pick("length", "Gain of length", ("NE", "HR@10")), neutral=1.0),
)
"""Answers that have an interval."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A line of README.md's table.

    Attributes:
        what: was measured.
        seen: the figures, each with words behind it; ``{at}`` in them is the row's column of that name, of all figures.

    """

    what: str
    seen: tuple[tuple[Pick, str], ...]


def _read(order: str, compression: str, values: str = "zipf") -> Pick:
    return Pick("read", "Against arrays", "new outputs", {"order": order, "values": values, "compression": compression})


def _shared(order: str) -> Pick:
    return Pick("storage", f"MB read by a job, zstd, {order}", "union", {"columns": 20}, over="ours")


SOAKED = ""  # its title begins with the minutes that it took
BESIDE = ("a loader, workers 0", "a loader, workers 1")
LOST = ("acknowledged events lost", "events there twice or torn", "wrong sequences")

MEASURED: tuple[Measured, ...] = (
    Measured(
        "bytes on disk over Parquet with LZ4 sorted by user, a synthetic log",
        ((Pick("footprint", "Bytes an event", "of lz4", {"log": "synthetic"}), "{store}"),),
    ),
    Measured(
        "the same over raw columns", ((Pick("footprint", "Bytes an event", "of raw", {"log": "synthetic"}), "{store}"),)
    ),
    Measured(
        "bytes on disk over Parquet with LZ4 sorted by user, real logs (thousands of users with two events)",
        ((Pick("footprint", "Bytes an event", "of lz4", {"log": ("git", "ansible")}), "{log}, {store}"),),
    ),
    Measured(
        "appends in bulk, unsorted, one process, M events/s",
        ((Pick("ingest", "Bulk", "M events/s"), "{events a history} events a user"),),
    ),
    Measured(
        "single events in durable groups of 1,000, events/s",
        ((Pick("ingest", "Single", "events/s"), "shards: {shards}"),),
    ),
    Measured(
        "bytes stored, fat rows (zstd, as they arrive) over store and slim examples; every tenth event an example",
        ((Pick("fatrows", "MB stored", "x"), "{length} events"),),
    ),
    Measured(
        "bytes read by an epoch, fat rows over store and slim examples, in order of arrival",
        ((Pick("fatrows", "MB read", "zstd", {"order": "arriving"}, over="ours"), "{length} events"),),
    ),
    Measured(
        "bytes stored for tenants of different lengths, a fat-row copy for each over store and slim examples",
        ((Pick("storage", "MB stored by tenants", "own copies x"), "{tenants} tenants"),),
    ),
    Measured(
        "bytes read by a job of 20 columns out of fat rows that all tenants share, over store and slim examples",
        (
            (_shared("arriving"), "{length} events, as they arrive"),
            (_shared("by user"), "{length} events, sorted by user"),
        ),
    ),
    Measured(
        "HR@10 of the same small model and budget over that at 16 events, for requests that were served more",
        ((Pick("length", "Gain of length", "HR@10"), "{log}, {length} events"),),
    ),
    Measured(
        "normalised entropy that a join on event time fakes offline (below 0: it looks better than it is)",
        ((Pick("length", "", "inflation", {"metric": "NE", "join": "ts <"}), "{title}"),),
    ),
    Measured(
        "served against trained on, with late and duplicate events, killed writers and compaction: examples",
        (
            (
                Pick("protocol", "drawn", "differ", {"rebuilt by": "logged pointer, streamed"}),
                "differ, by logged pointers",
            ),
            (
                Pick("protocol", "drawn", "leak", {"rebuilt by": "point in time on ts"}),
                "of {of} leak, joined on event time",
            ),
        ),
    ),
    Measured(
        "processes on one store, killed at random moments",
        (
            (Pick("soak", "How often each was killed", "SIGKILLs", {"process": "all"}), "kills"),
            (Pick("soak", SOAKED, "times", {"what": "histories compared"}), "{what}"),
            (Pick("soak", "What was lost", "found", {"what": LOST}), "{what}"),
        ),
    ),
    Measured(
        "reads of random users over slices of arrays in memory, without LZ4 (above 1: faster)",
        ((_read("random", "none"), "{events} events"),),
    ),
    Measured("the same with LZ4", ((_read("random", "lz4"), "{events} events"),)),
    Measured(
        "the same with LZ4, clustered (16 examples of each user)", ((_read("clustered", "lz4"), "{events} events"),)
    ),
    Measured(
        "reads with LZ4 over fat rows in Parquet at random",
        ((Pick("read", "Against others", "times ours", {"way": "Parquet, random"}), "{events} events"),),
    ),
    Measured(
        "clustered reads whose examples share their windows, with LZ4, over slices of arrays",
        ((Pick("read", "Clustered", "lz4, shared windows"), "{events} events"),),
    ),
    Measured(
        "the same by two threads over one, by the clock",
        ((Pick("read", "One thread and two", "two over one", {"order": "random", "compression": "lz4"}),
          "{events} events"),),
    ),
    Measured(
        "time of a batch in what else would be taken, over the store's (random users, 1,024 events, a process each)",
        ((Pick("throughput", "random", "x time", {"events": 1024}, {"way": OURS}), "{way}"),),
    ),
    Measured(
        "batches a second of the loader over those of bare reads, one core's",
        ((Pick("loader", "Delivery", "loader of bare"), "{batch} of {length} events"),),
    ),
    Measured(
        "time that a step waits that takes 1.25 times the loader's own, %, with one worker",
        ((Pick("loader", "Share of the time", "wait %", {"pages": "warm", "workers": 1}),
          "{batch} of {length} events"),),
    ),
    Measured(
        "time of a computing step beside the loader over the step by itself, two cores",
        ((Pick("loader", "Interference", "over the step by itself", {"beside": BESIDE}),
          "{beside}, {layers} layers"),),
    ),
)  # fmt: skip
"""README.md's table, line by line."""
