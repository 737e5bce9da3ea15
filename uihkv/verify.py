"""Is the store what it should be? Every byte of it is read, and what is wrong is named.

Of the manifest: it can be read. Of each shard:

1. keys: of the right length and in order; users that belong to the shard; of each user, chunks without gap or overlap,
   and a tail that starts where they end;
2. chunks and tails: header and every block by their checksums, in the schema that they were written by; every value
   decodes; header and key agree;
3. what is derived from the data is true to it: bounds of both clocks, zone maps; visible times ascend along a history;
4. sources: names and offsets can be read; string user ids: each user has a name, and each name a number of its own.

Damage below this, in LMDB's own pages, can kill whoever reads them. So the shards are checked in a process of their
own; when it dies, the shard at fault is a problem like others, and the rest are checked by the next one.

Nothing is derivable from elsewhere but bounds and zones, from their chunk's data: such a chunk can be repaired. All
else is there once, and comes back from a backup only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from uihkv import keys
from uihkv.codec import Entries, Layouts, Slices, decode_fixed, greatest_times
from uihkv.errors import CorruptChunkError, FormatError, UihkvError
from uihkv.kernels.decode import VERIFY_ALWAYS
from uihkv.kernels.select import load_zones
from uihkv.maintenance import Problem, Progress, VerifyReport
from uihkv.manifest import Manifest, read_manifest
from uihkv.readcolumns import column_type
from uihkv.rewrite import ShardAccess, UserParts, schema_versions
from uihkv.schema import TS, VISIBLE_AT, Schema
from uihkv.shard import Shard, read_ragged
from uihkv.sources import NONE, SourceRecord
from uihkv.userids import STRING

Int64s = NDArray[np.int64]

PORTION_EVENTS = 1 << 18
"""About how many events are decoded at a time."""
_PORTION_CHUNKS = 4096
_PROGRAM = "from uihkv.verify import main; main()"


@dataclass(slots=True)
class ShardReport:
    """What was found in one shard."""

    users: int = 0
    events: int = 0
    chunks: int = 0
    sources: int = 0
    problems: list[Problem] = field(default_factory=list)


def verify_store(path: Path, *, isolated: bool = True, progress: Progress | None = None) -> VerifyReport:
    """Check a store; it need not be one that opens.

    Args:
        path: its directory.
        isolated: in a process of their own, which may die of damaged pages; without it, this process may.
        progress: called with shards done and all shards.

    Raises:
        StoreNotFoundError: when nothing is there.

    """
    try:
        manifest = read_manifest(path)
    except FormatError as error:
        return VerifyReport(0, 0, 0, 0, 0, (Problem(str(error)),))
    reports: dict[int, ShardReport] = {}
    for number, report in (_check_isolated if isolated else _check_here)(path, manifest):
        reports[number] = report
        if progress is not None:
            progress(len(reports), manifest.shards)
    ordered = [reports[number] for number in sorted(reports)]
    return VerifyReport(
        shards=manifest.shards,
        users=sum(report.users for report in ordered),
        events=sum(report.events for report in ordered),
        chunks=sum(report.chunks for report in ordered),
        sources=sum(report.sources for report in ordered),
        problems=tuple(problem for report in ordered for problem in report.problems),
    )


# -- a process of its own ---------------------------------------------------------------------------


def _check_here(path: Path, manifest: Manifest) -> Iterator[tuple[int, ShardReport]]:
    for number in range(manifest.shards):
        yield number, check_shard(path, number, manifest)


def _check_isolated(path: Path, manifest: Manifest) -> Iterator[tuple[int, ShardReport]]:
    """As :func:`_check_here`, in one process after the other until all shards are done."""
    left = list(range(manifest.shards))
    while left:
        first = left[0]
        yield from _follow_process(path, left)
        if left and left[0] == first:  # it died before it could begin
            yield left.pop(0), ShardReport(problems=[Problem("the process that checks it does not start", first)])


def _follow_process(path: Path, left: list[int]) -> Iterator[tuple[int, ShardReport]]:
    """Reports of a process that checks shards; takes from ``left`` what it has done, or died of."""
    places = [str(Path(__file__).parent.parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
    command = [sys.executable, "-c", _PROGRAM, str(path), ",".join(map(str, left))]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=environment, text=True) as process,
    ):
        assert process.stdout is not None  # it is a pipe
        begun = None
        try:
            for line in process.stdout:
                told = json.loads(line)
                begun = told["shard"]
                if "users" in told:
                    problems = [Problem(**problem) for problem in told.pop("problems")]
                    left.remove(told.pop("shard"))
                    yield begun, ShardReport(**told, problems=problems)
                    begun = None
        finally:
            process.kill()
        code = process.wait()
        if begun is None:
            return
        left.remove(begun)
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-1:]
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}" + "".join(f" ({one})" for one in last)
        problem = Problem(f"reading it ended the process with {how}: its pages are damaged", begun)
    yield begun, ShardReport(problems=[problem])


def main() -> None:
    """What the process of its own does: ``path`` and shards as arguments; a line of JSON before and after each."""
    path, numbers = Path(sys.argv[1]), [int(number) for number in sys.argv[2].split(",")]
    manifest = read_manifest(path)
    for number in numbers:
        print(json.dumps({"shard": number}), flush=True)
        print(json.dumps({"shard": number, **asdict(check_shard(path, number, manifest))}), flush=True)


# -- one shard --------------------------------------------------------------------------------------


def check_shard(path: Path, number: int, manifest: Manifest) -> ShardReport:
    """Check one shard of a store. Damage in LMDB's pages may end the process."""
    report = ShardReport()
    try:
        shard = Shard(path / "shards" / f"{number:04d}", number)
    except UihkvError as error:
        report.problems.append(Problem(str(error), number))
        return report
    try:
        transaction = shard.begin_read()
        try:
            # What the transaction sees is of no newer schema than the manifest that is there now.
            current = read_manifest(path)
            _Check(shard, transaction, current, report).run()
        finally:
            transaction.abort()
    except (lmdb.Error, UihkvError) as error:
        report.problems.append(Problem(f"its records cannot be read ({error})", number))
    finally:
        shard.close()
    return report


class _Check:
    """The checks of one shard in one read transaction."""

    def __init__(self, shard: Shard, transaction: Any, manifest: Manifest, report: ShardReport) -> None:
        self.shard = shard
        self.transaction = transaction
        self.manifest = manifest
        self.report = report
        self.layouts = Layouts(manifest.schemas)

    def run(self) -> None:
        databases = self.shard.databases(self.transaction)
        chunk_keys = self._keys(databases[b"chunks"], keys.CHUNK_KEY_BYTES, "chunks")
        tail_keys = self._keys(databases[b"tails"], keys.TAIL_KEY_BYTES, "tails")
        self.users = keys.parse_tail_keys(tail_keys)
        self.entries = Entries(self.shard.number, keys.parse_chunk_keys(chunk_keys), self.users)
        self.entries.name_of = lambda _, user: self.shard.names.name_of(self.transaction, user)
        self.chunks = np.arange(self.entries.first_tail)
        self.tails = np.arange(self.entries.first_tail, len(self.entries.user))
        self._check_users()
        n = len(self.entries.user)
        self.sound = np.zeros(n, np.bool_)
        self.first_visible, self.last_visible = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._open_all()
        self._check_ranges()
        self._decode_all()
        self._check_order()
        self._check_sources(databases[b"sources"])
        if self.manifest.schema.user_id == STRING:
            for fault in self.shard.names.find_faults(self.transaction, self.users):
                self.tell(fault)
        report, entries = self.report, self.entries
        report.users, report.chunks = len(self.users), len(self.chunks)
        report.events = int((entries.end - entries.start)[self.sound].sum())

    def tell(self, what: str, entry: int | None = None, *, repairable: bool = False) -> None:
        """Note a problem, of a chunk or tail or of the shard."""
        number = self.shard.number
        if entry is None:
            self.report.problems.append(Problem(what, number))
            return
        entries = self.entries
        user, start, end = entries.user_of(entry), int(entries.start[entry]), int(entries.end[entry])
        known = end >= 0
        self.report.problems.append(
            Problem(what, number, user, start if known else None, end if known else None, repairable)
        )

    def tell_each(self, what: str, wrong: Iterable[Any], *, repairable: bool = False) -> None:
        """Note a problem of several entries."""
        for entry in wrong:
            self.tell(what, int(entry), repairable=repairable)

    # -- keys -------------------------------------------------------------------------------------------

    def _keys(self, database: Any, width: int, name: str) -> list[bytes]:
        """Keys of the right length, in order. No more than LMDB counts are read: damaged pages may go in circles."""
        count = int(self.transaction.stat(database)["entries"])
        with self.transaction.cursor(db=database) as cursor:
            found = [bytes(key) for key in islice(cursor.iternext(values=False), count + 1)]
        if len(found) != count:
            self.tell(f"{name} holds {'more' if len(found) > count else 'fewer'} records than LMDB counts, {count}")
        kept = [key for key in found if len(key) == width]
        if len(kept) != len(found):
            self.tell(f"{len(found) - len(kept)} keys of {name} are not of {width} bytes")
        if any(one >= other for one, other in pairwise(kept)):
            self.tell(f"the keys of {name} are not in order")
            kept = sorted(set(kept))
        return kept

    def _check_users(self) -> None:
        entries = self.entries
        elsewhere = keys.shard_of(entries.user, self.manifest.shards) != self.shard.number
        self.tell_each("its user belongs to another shard", np.flatnonzero(elsewhere))
        alone = ~np.isin(entries.user[self.chunks], self.users)
        self.tell_each("its user has no tail, which would tell his head", self.chunks[alone])

    def _check_ranges(self) -> None:
        """Chunks of a user follow each other, and his tail follows them."""
        entries = self.entries
        user, start, end = (part[self.chunks] for part in (entries.user, entries.start, entries.end))
        self.tell_each("its key names a range that cannot be", self.chunks[(start < 0) | (start >= end)])
        same = user[1:] == user[:-1]
        follows = start[1:] == end[:-1]
        for at in np.flatnonzero(same & ~follows).tolist():
            low, high = int(end[at]), int(start[at + 1])
            what = (
                f"events [{low}, {high}) before it are missing" if low < high else f"the chunk before it ends at {low}"
            )
            self.tell(what, at + 1)
        last = np.searchsorted(user, self.users, "right") - 1
        for row in np.flatnonzero((last >= 0) & self.sound[self.tails]).tolist():
            chunk, tail = int(last[row]), int(self.tails[row])
            if user[chunk] == self.users[row] and entries.start[tail] != end[chunk]:
                self.tell(f"the tail starts at {int(entries.start[tail])}, the chunks end at {int(end[chunk])}", tail)

    # -- values -----------------------------------------------------------------------------------------

    def _open_all(self) -> None:
        """Headers, one by one where several are wrong."""

        def open_some(wanted: Int64s) -> None:
            self.entries.address[wanted] = 0
            self.shard.find_values(self.transaction, self.entries, wanted)
            gone = wanted[self.entries.address[wanted] == 0]
            if len(gone):
                raise CorruptChunkError(
                    "the record is listed but not found", shard=self.shard.number, user_id=0, start=0, end=0
                )
            self.entries.open(wanted, self.layouts, VERIFY_ALWAYS)
            self.sound[wanted] = True

        n = len(self.entries.user)
        for first in range(0, n, _PORTION_CHUNKS):
            self._halve(np.arange(first, min(first + _PORTION_CHUNKS, n)), open_some)

    def _halve(self, wanted: Int64s, action: Callable[[Int64s], None]) -> None:
        """Do something with entries; where it fails, with halves of them, until those at fault are found."""
        try:
            action(wanted)
        except (CorruptChunkError, FormatError) as error:
            if len(wanted) == 1:
                self.sound[wanted] = False
                self.tell(error.what if isinstance(error, CorruptChunkError) else str(error), int(wanted[0]))
                return
            middle = len(wanted) // 2
            self._halve(wanted[:middle], action)
            self._halve(wanted[middle:], action)

    def _decode_all(self) -> None:
        """Every block of every chunk, by the schema that it was written in."""
        sound = np.flatnonzero(self.sound)
        version = schema_versions(self.entries, sound)
        for number in np.unique(version).tolist():
            layouts = Layouts(self.manifest.schemas[: number + 1])
            mine = sound[version == number]
            events = np.cumsum((self.entries.end - self.entries.start)[mine])
            cuts = np.flatnonzero(np.diff(events // PORTION_EVENTS)) + 1
            for some in np.split(mine, cuts):
                for first in range(0, len(some), _PORTION_CHUNKS):
                    part = some[first : first + _PORTION_CHUNKS]
                    self._halve(part, partial(self._decode, layouts))

    def _decode(self, layouts: Layouts, wanted: Int64s) -> None:
        entries, schema = self.entries, layouts.schema
        empty = entries.end[wanted] == entries.start[wanted]
        self.first_visible[wanted] = self.last_visible[wanted] = greatest_times(entries, layouts, wanted, VISIBLE_AT)
        wanted = wanted[~empty]
        if not len(wanted):
            return
        count = (entries.end - entries.start)[wanted]
        row = np.cumsum(count) - count
        n = int(count.sum())
        slices = Slices(wanted, np.zeros_like(wanted), count, row)
        fixed: dict[str, NDArray[Any]] = {}
        for name in schema.readable:
            if name in (TS, VISIBLE_AT) or not schema[name].varying:
                dtype, shape = column_type(schema, name)
                fixed[name] = np.empty((n, *shape), dtype)
        decode_fixed(entries, layouts, slices, fixed, VERIFY_ALWAYS)
        for column in schema.columns:
            if column.varying:
                read_ragged([(entries, slices)], layouts, column.name, n, VERIFY_ALWAYS)
        visible = fixed[VISIBLE_AT]
        self.first_visible[wanted], self.last_visible[wanted] = visible[row], visible[row + count - 1]
        falls = np.flatnonzero(visible[1:] < visible[:-1]) + 1
        inside = np.setdiff1d(falls, row)
        self.tell_each("its visible times fall", wanted[np.unique(np.searchsorted(row, inside, "right") - 1)])
        for clock in (TS, VISIBLE_AT):
            told = greatest_times(entries, layouts, wanted, clock)
            wrong = wanted[np.maximum.reduceat(fixed[clock], row) != told]
            self.tell_each(f"the greatest {clock} in its header is not that of its events", wrong, repairable=True)
        for name, values in fixed.items():
            wrong = self._untrue_zones(layouts, name, values, wanted, row)
            self.tell_each(f"the zone of column {name!r} is not true to its values", wrong, repairable=True)

    def _untrue_zones(self, layouts: Layouts, name: str, values: Any, wanted: Int64s, row: Int64s) -> Any:
        """Entries whose zone would let a filter skip a value that is there."""
        if not _has_zones(layouts.schema, name):
            return wanted[:0]
        zone, known = np.zeros((3, len(wanted)), np.int64), np.empty(len(wanted), np.bool_)
        load_zones(self.entries.address, wanted, layouts.first_blocks([name])[:, 0], zone, known)
        if not known.any():
            return wanted[:0]
        wide: type[Any] = np.float64 if values.dtype.kind == "f" else np.int64
        if values.dtype == np.uint64:
            wide = np.uint64
        each = int(np.prod(values.shape[1:]))
        flat, begin = values.reshape(-1).astype(wide), row * each
        low, high = zone[0].view(wide), zone[1].view(wide)
        if values.dtype.kind == "f":
            least = np.minimum.reduceat(np.where(np.isnan(flat), np.inf, flat), begin)
            greatest = np.maximum.reduceat(np.where(np.isnan(flat), -np.inf, flat), begin)
            numbers = least <= greatest
            wrong = known & numbers & ((least < low) | (greatest > high))
            return wanted[wrong]
        least, greatest = np.minimum.reduceat(flat, begin), np.maximum.reduceat(flat, begin)
        wrong = (least < low) | (greatest > high)
        size = np.diff(np.append(begin, len(flat)))
        told = ~wrong & (zone[2] != -1)
        away = np.where(np.repeat(told, size), flat - np.repeat(low, size), 0).astype(np.uint64)
        bit = np.left_shift(np.uint64(1), np.minimum(away, np.uint64(63)))
        there = np.bitwise_or.reduceat(bit, begin)
        wrong = known & (wrong | (told & ((there & ~zone[2].view(np.uint64)) != 0)))
        return wanted[wrong]

    def _check_order(self) -> None:
        """Visible times ascend from one chunk to the next, and to the tail."""
        chunks = len(self.chunks)
        tail_of = chunks + np.searchsorted(self.users, self.entries.user[self.chunks])
        following = np.append(self.chunks[1:], chunks)
        is_last = np.append(self.entries.user[self.chunks][1:] != self.entries.user[self.chunks][:-1], True)[:chunks]
        following = np.where(is_last, tail_of, following[:chunks])
        there = following < len(self.entries.user)
        before, after = self.chunks[there], following[there]
        falls = self.sound[before] & self.sound[after] & (self.first_visible[after] < self.last_visible[before])
        self.tell_each("it became visible before the events before it", after[falls])

    def _check_sources(self, database: Any) -> None:
        with self.transaction.cursor(db=database) as cursor:
            for key, value in cursor:
                self.report.sources += 1
                try:
                    name = bytes(key).decode()
                    record = SourceRecord.unpack(value)
                except (UnicodeDecodeError, ValueError, IndexError) as error:
                    self.tell(f"the source {bytes(key)!r} cannot be read ({error})")
                    continue
                words = len(record.rests_on)
                if record.own < NONE or record.claim < NONE or words not in (0, self.manifest.shards):
                    self.tell(f"the source {name!r} has a record that cannot be")


def _has_zones(schema: Schema, name: str) -> bool:
    """Whether filters look at zones of a column."""
    return name in (TS, VISIBLE_AT) or schema[name].dtype == schema[name].numpy_dtype.name


# -- repair -----------------------------------------------------------------------------------------


def repair_chunks(access: ShardAccess, problems: Sequence[Problem]) -> list[Problem]:
    """Write chunks anew from their data, whose bounds or zones are not true to it; which problems that ends."""
    repaired = []
    places = {problem.place for problem in problems if problem.repairable}
    for number, user, start, end in sorted(places, key=str):
        if number is None or user is None:
            continue
        with access.writing(number) as view:
            kept_as = view.shard.names.number_of(view.transaction, user) if isinstance(user, str) else user
            parts = UserParts(view, np.array([kept_as], np.int64))
            parts.open(np.arange(len(parts.entries.user)))
            entries = parts.entries
            found = np.flatnonzero((entries.start == start) & (entries.end == end) & (entries.end > entries.start))
            if len(found) != 1:
                continue
            count = (entries.end - entries.start)[found]
            written = parts.encode(
                parts.decode(found, np.zeros_like(found)), count, entries.start[found], entries.user[found],
                parts.greatest_visible(found),
            )  # fmt: skip
            owner, sealed = entries.user[found], bool(found[0] < entries.first_tail)
            gone = (owner, entries.start[found], entries.end[found])
            nothing = (owner[:0], owner[:0], owner[:0])
            placed = [(owner[written.group], written)] if sealed else [(owner, written)]
            view.shard.rewrite(
                view.transaction, owner, gone if sealed else nothing, placed if sealed else (), () if sealed else placed
            )
        place = (number, user, start, end)
        repaired += [one for one in problems if one.repairable and one.place == place]
    return repaired
