"""What do many models on one data set cost in bytes, as fat rows and as pointers, and how does that grow?

A log of twenty columns (68 raw bytes an event) with histories to 65,536 events arrives live; every user has as many
examples, drawn over his history. Fifteen tenants want its newest 256 to 65,536 events in 2, 5 or 20 columns, and get
them in one of three ways:

- *own copies*: a fat-row data set a tenant, with just its length and its columns;
- *union*: one fat-row data set with the greatest length and all columns. Of that a tenant reads only its columns, but
  every event of them: a list in Parquet cannot be read in part;
- *ours*: one store, and one file of slim examples for all.

Parquet with zstd and with lz4, rows as they arrive and sorted by user (which takes a sort of all of them). Bytes
written are those of write calls, of a job in Parquet read calls, each in a process of its own; of the store the stored
blocks that batches touched, and the slim file; as it was appended, and compacted.

Few users stand for very many here. So a row group has so few rows that those of one user seldom meet in it before the
sort, a batch in order of arrival a third as many examples as there are users, so that it shares few blocks, and an
append about sixteen events a user, so that it rewrites nearly every tail (and, to show what that costs, ten times as
many). A batch by user has as many examples as a user has.

With so few examples fat rows are cheap to write. What both write with more examples a user, up to one for every tenth
event, is worked out by the law that is fitted to a few.

Growth is given as the exponent of a power of the length, the examples a user or the tenants, and as a + b·x, each with
the greatest relative difference to a point. One tenant's own copy, and what many copies store, are summed from the
column chunks of files that were written; the jobs' reads are all done. What one run costs in five columns, length by
length, is :mod:`perf.fatrows`'.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perf.fatfiles import (
    append_live,
    column_bytes,
    in_child,
    load_kernels,
    read_parquet,
    read_store,
    size_of,
    write_fat,
    write_slim,
)
from perf.harness import Counters, Report, Section, Settings, run_bench
from perf.storagetables import (
    A_USER,
    APPEND_A_USER,
    ARRIVING,
    CODECS,
    COMPACTED,
    EXAMPLE,
    GROUP_EVENTS,
    LENGTHS,
    LIVE,
    RARE_A_USER,
    SORTED,
    STATES,
    SWEPT_A_USER,
    SWEPT_LENGTH,
    Found,
    Key,
)
from perf.workloads import COLUMN_SETS, TWENTY_COLUMNS, Log, Workload, make_log
from uihkv import Store


def measure(settings: Settings) -> Report:
    """Write all forms, read all jobs, fit the growth."""
    users = settings.pick(40, 2_000)
    workload = Workload(users=users, mean_length=5_000, schema=TWENTY_COLUMNS)
    log = make_log(workload, settings.seed)
    batch = {ARRIVING: max(8, users // 3), SORTED: A_USER}
    drawn = {count: _draw_examples(log, count, settings.seed) for count in SWEPT_A_USER}
    path, slim, fat_path = (settings.scratch / name for name in ("store", "slim.parquet", "fat.parquet"))

    load_kernels(settings.scratch, log)
    store_written = in_child(append_live, path, log, APPEND_A_USER * users)
    stored = {LIVE: size_of(path)}
    rarely_written = in_child(append_live, path.with_name("rare"), log, RARE_A_USER * users)
    slims = {count: in_child(write_slim, slim, log, examples[ARRIVING]) for count, examples in drawn.items()}
    slim_read = in_child(read_parquet, slim)

    fat: dict[Key, dict[str, int]] = {}
    written: dict[Key, int] = {}
    jobs: dict[tuple[str, int, int], int] = {}
    for codec in CODECS:
        for order, rows in drawn[A_USER].items():
            for length in LENGTHS:
                written[codec, order, length] = in_child(write_fat, fat_path, log, rows, length, codec, GROUP_EVENTS)
                fat[codec, order, length] = column_bytes(fat_path)
                if codec == CODECS[0]:
                    for count, names in COLUMN_SETS.items():
                        jobs[order, length, count] = in_child(read_parquet, fat_path, [*EXAMPLE, *names])
    ours: dict[tuple[str, str, int, int], int] = {}
    for state in STATES:
        if state == COMPACTED:
            compacting, stored[state] = in_child(_compact, path)
        for order, rows in drawn[A_USER].items():
            for length in LENGTHS:
                for count, names in COLUMN_SETS.items():
                    read = in_child(read_store, path, log, rows, length, batch[order], names)
                    ours[state, order, length, count] = slim_read + read
    swept = {}
    for count, examples in drawn.items():
        in_child(write_fat, fat_path, log, examples[ARRIVING], SWEPT_LENGTH, CODECS[0], GROUP_EVENTS)
        swept[count] = sum(column_bytes(fat_path).values())

    found = Found(
        fat=fat, fat_written=written, jobs=jobs, ours=ours, swept=swept,
        slims={count: size for count, (_, size) in slims.items()}, store=stored, store_written=store_written,
        rarely_written=rarely_written, compacting=compacting, slim_written=slims[A_USER][0],
        events=len(log) / users, users=users,
        copied={length: float(_windows(log, drawn[A_USER][SORTED], length).mean()) for length in LENGTHS},
    )  # fmt: skip
    what = f"{len(log):,} events, {users:,} users, {A_USER * users:,} examples, {log.event_bytes} raw bytes an event"
    laws = found.growth()
    return Report(
        sections=[
            Section(f"MB stored and written, 20 columns ({what})", found.stored()),
            *(Section(f"MB read by a job, zstd, {order}", found.read(order)) for order in drawn[A_USER]),
            Section(f"MB written by examples a user, {SWEPT_LENGTH:,} events, 20 columns, zstd", found.written()),
            Section("MB stored by tenants, zstd, as they arrive", found.tenants()),
            Section("Growth", laws),
            Section("Beside the paper", found.paper()),
        ],
        charts=found.charts(),
        notes=[
            f"the store was appended live, {APPEND_A_USER * users:,} events an append: the bytes written are "
            f"{store_written / stored[LIVE]:.1f} times those that stay, and compaction writes "
            f"{compacting / 1e6:.1f} MB more; compacted, pages in use are what counts as stored",
            found.crossing(),
            *found.lost(),
            "comparable with the paper: the same examples both ways, histories as they stood, bytes of write and of "
            "read; not comparable: its rows hold other features beside the histories, and its production logs, "
            "examples a user, encodings and blocks of reading are its own",
            "compaction makes chunks long: whoever reads a few hundred events of users who do not meet in a batch "
            "reads more of them than before it",
            "sorted by user, zstd finds the copies of a history in its window, which is the best that fat rows can do; "
            "the sort of all rows for it is not counted",
        ],
        facts=found.facts(log, what),
    )


def _draw_examples(log: Log, count: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of so many events of each user, in order of arrival and by user; fewer of a user draw from the more."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(len(log.users)), log.lengths)
    shuffled = np.lexsort((rng.random(len(log)), user))
    place = np.arange(len(log)) - log.offsets[user]
    rows = np.sort(shuffled[place < count])
    arriving = rows[np.argsort(log.visible_at[rows], kind="stable")]
    return {ARRIVING: arriving, SORTED: rows}


def _compact(path: Path) -> tuple[int, int]:
    """Compact a store; bytes written, and bytes of pages that are in use (a file keeps those that were freed)."""
    before = Counters.now()
    with Store.open(path) as store:
        store.compact()
        return (Counters.now() - before).wchar, store.stats().used_bytes


def _windows(log: Log, rows: np.ndarray, length: int) -> np.ndarray:
    """Events that each example copies."""
    user = np.searchsorted(log.offsets, rows, "right") - 1
    return np.asarray(np.minimum(rows - log.offsets[user], length))


if __name__ == "__main__":
    run_bench("storage", __doc__, measure)
