"""An ingest shared among processes, each of which owns some shards; one process owns all of them.

A :class:`Share` reads all files and keeps the rows of its shards. By rows it appends them batch by batch. By user it
groups them on disk, waits until every share has seen that all of its rows are good, and then stores bucket after
bucket: nothing is written before everything was checked.

Processes are spawned, never forked, and owned by :func:`work_together`: they end with it, whatever happens, and end by
themselves when it is killed. An error of one reaches the caller as itself; one that dies without a word is an
IngestError.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from uihkv import keys
from uihkv.appending import AppendResult
from uihkv.errors import IngestError
from uihkv.grouping import BucketPlan, BucketWriter, bucket_path, load_bucket, writing_to
from uihkv.matching import EventFile, RowBatch, remaining
from uihkv.store import Store

Stage = Literal["check", "group", "write"]
Tell = Callable[[Stage, int, int, Path], None]
"""Stage, rows more of this share, rows of all files that it has gone through, and the file at hand."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be stored.

    Attributes:
        store: where to.
        files: the files, in order.
        batch_rows: rows an append.
        done: rows that are there already.
        source: under whose name.

    """

    store: Store
    files: tuple[EventFile, ...]
    batch_rows: int
    done: int
    source: str | None

    def batches(self) -> Iterator[tuple[EventFile, int, RowBatch]]:
        """The batches that are left: a file, the rows of those before it, and a batch of it."""
        unit = self.store.schema.time_unit
        for file, start, first_row in remaining(self.files, self.done):
            for batch in file.read(unit, self.batch_rows, first_row):
                yield file, start, batch


@dataclass(frozen=True, slots=True)
class Grouping:
    """How rows are grouped by user.

    Attributes:
        plan: the buckets.
        places: of each shard, how far it is: its own offset of the job.
        job: the name under which shards keep their place, None: they keep none.
        folder: for the buckets' files.

    """

    plan: BucketPlan
    places: tuple[int, ...]
    job: str | None
    folder: Path

    ALL_DONE: ClassVar[int] = 1 << 62
    _BUCKET: ClassVar[int] = 1 << 32

    @classmethod
    def place(cls, bucket: int, pieces: int, last: bool) -> int:
        """A shard's place after so many pieces of a bucket: rising from piece to piece, and past the bucket's last."""
        return (bucket + 1) * cls._BUCKET if last else bucket * cls._BUCKET + pieces

    def first_bucket(self, shard: int) -> int:
        """The first bucket that is not done in a shard."""
        return max(
            min(self.places[shard] // self._BUCKET, int(self.plan.first[shard + 1])), int(self.plan.first[shard])
        )


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one process.

    Attributes:
        number: which one.
        work: what is to be stored.
        owned: bool[shards]: those that are its own.
        grouping: how rows are grouped by user; None: they are stored by rows.

    """

    number: int
    work: Work
    owned: tuple[bool, ...]
    grouping: Grouping | None

    def run(self, tell: Tell, checked: Callable[[], None]) -> dict[str, int]:
        """Do it: what was appended and lifted.

        Args:
            tell: called after each batch.
            checked: called when all rows were seen to be good, before the first is stored; returns when those of all
                shares were.

        """
        counts = {"appended": 0, "lifted": 0}

        def count(result: AppendResult) -> None:
            counts["appended"] += result.appended
            counts["lifted"] += result.lifted

        if self.grouping is None:
            self._store_by_rows(tell, count)
        else:
            self._store_by_user(self.grouping, tell, checked, count)
        return counts

    def _store_by_rows(self, tell: Tell, count: Callable[[AppendResult], None]) -> None:
        work = self.work
        store, schema = work.store, work.store.schema
        owned = np.array(self.owned)
        for file, start, batch in work.batches():
            events = batch.parse(schema)
            mine = np.flatnonzero(owned[keys.shard_of(events.user_id, store.shards)])
            if len(mine):
                offset = None if work.source is None else start + batch.end
                count(store.append_parsed(schema, events.take(mine), source=work.source, offset=offset))
            tell("write", len(mine), start + batch.end, file.source.path)

    def _store_by_user(
        self, grouping: Grouping, tell: Tell, checked: Callable[[], None], count: Callable[[AppendResult], None]
    ) -> None:
        work, plan = self.work, grouping.plan
        store, schema = work.store, work.store.schema
        owned = np.array(self.owned)
        folder = grouping.folder / f"{self.number:04d}"
        with writing_to(folder):
            folder.mkdir()
        first = np.array([grouping.first_bucket(shard) for shard in range(plan.shards)])
        writer = BucketWriter(folder)
        before = 0
        for file, start, batch in work.batches():
            events, order = batch.parse(schema), batch.parse_order(file.order_by)
            shard = keys.shard_of(events.user_id, store.shards)
            mine = np.flatnonzero(owned[shard])
            bucket = plan.buckets_of(events.user_id[mine], shard[mine])
            fresh = bucket >= first[shard[mine]]
            before += len(mine) - int(fresh.sum())
            if fresh.any():
                rows = mine[fresh]
                writer.add(events.take(rows), bucket[fresh], order[rows] if len(order) else order)
            tell("group", len(mine), start + batch.end, file.source.path)
        writer.close()
        checked()
        total = sum(file.source.rows for file in work.files)
        ended = None if work.source is None else (work.source, total)
        tell("write", before, total, store.path)
        for number in sorted(writer.rows):
            pieces = load_bucket(bucket_path(folder, number), writer.rows[number], work.batch_rows)
            events, done = next(pieces), 0
            while True:
                after = next(pieces, None)
                done += 1
                place = None if grouping.job is None else Grouping.place(number, done, after is None)
                count(store.append_parsed(schema, events, source=grouping.job, offset=place, ended=ended))
                tell("write", len(events), total, store.path)
                if after is None:
                    break
                events = after


def work_together(
    work: Work,
    processes: int,
    grouping: Grouping | None,
    report: Callable[[Stage, int, Path], None],
    claim: Callable[[int], None],
) -> dict[str, int]:
    """Share the work among processes; 1 is this one.

    Args:
        work: what is to be stored.
        processes: how many shares.
        grouping: how rows are grouped by user; None: they are stored by rows.
        report: called with a stage, rows more, and the file at hand.
        claim: called with rows that all shares have gone through, now and then.

    Raises:
        IngestError: when a process died.
        UihkvError: what any of them raised.

    """
    shards = range(work.store.shards)
    shares = [
        Share(number, work, tuple(shard % processes == number for shard in shards), grouping)
        for number in range(processes)
    ]
    if processes == 1:
        return shares[0].run(lambda stage, rows, _, file: report(stage, rows, file), lambda: None)
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, Any] = {}
    try:
        for share in shares:
            here, there = context.Pipe()
            process = context.Process(
                target=_run_share, args=(share, there), name=f"ingest-{share.number}", daemon=True
            )
            process.start()
            there.close()
            running[here] = process
        return _listen(running, report, claim if grouping is None else lambda _: None)
    finally:
        for connection, process in running.items():
            process.terminate()
            process.join()
            connection.close()


def _listen(
    running: dict[Connection, Any], report: Callable[[Stage, int, Path], None], claim: Callable[[int], None]
) -> dict[str, int]:
    """Take what processes say until all have ended."""
    counts = {"appended": 0, "lifted": 0}
    gone_through = dict.fromkeys(running, 0)
    claimed, waiting, left = 0, 0, set(running)
    while left:
        for connection in wait(list(left)):
            assert isinstance(connection, Connection)
            try:
                kind, said = connection.recv()
            except (EOFError, ConnectionResetError):
                process = running[connection]
                process.join()
                raise IngestError(
                    f"process {process.name} of the ingest died (exit status {process.exitcode}); run it again with "
                    "the same source, which completes it and stores nothing twice"
                ) from None
            if kind == "rows":
                stage, rows, reached, file = said
                report(stage, rows, file)
                gone_through[connection] = reached
            elif kind == "checked":
                waiting += 1
                if waiting == len(running):
                    for other in running:
                        with suppress(BrokenPipeError):  # it died: its end of the pipe says so
                            other.send(None)
            elif kind == "error":
                raise said
            else:
                left.discard(connection)
                counts = {name: value + said[name] for name, value in counts.items()}
        reached = min(gone_through.values())
        if reached > claimed:
            claim(reached)
            claimed = reached
    return counts


def _run_share(share: Share, connection: Connection) -> None:
    """What a process does. When the one that listens is gone, so is this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all: the owner ends the others

    def checked() -> None:
        connection.send(("checked", None))
        connection.recv()

    try:
        with share.work.store:
            counts = share.run(lambda *said: connection.send(("rows", said)), checked)
        connection.send(("done", counts))
    except (BrokenPipeError, EOFError):
        return
    except BaseException as error:
        connection.send(("error", _portable(error)))


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return IngestError(f"a process of the ingest failed: {type(error).__name__}: {error}")
    return error
