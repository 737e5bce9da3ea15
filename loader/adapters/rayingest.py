"""Event files, or a dataset of Ray Data, into a new store, by Ray tasks: first a task a file, then a task a shard.

A *file's task* reads it once, checks every value as :mod:`uihkv.ingest` does, and splits each batch of rows by the
shards of their users into Ray's object store, which carries them to other machines and spills to disk what memory does
not hold. A *shard's task* takes its rows in the order of files and rows, writes them to scratch files, and ingests
these into the shard alone, which it builds aside (:meth:`uihkv.Store.build_shard`). The store appears under its path
when all shards are there, at once; before, and after any failure, there is nothing.

No task starts a shard before every file was seen to be good. A task whose process or machine dies is run again by Ray,
and stores nothing twice: what it had built goes with it.

A *dataset* is taken block by block as it is made, in its order: a block is written to a scratch file by the task that
then reads it as a file's task does. So whatever Ray Data reads, maps and joins can become a store.

Files and the store's path must mean the same on every machine. Seen on one machine only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from loader.adapters.rayactors import END_WAIT_S, fetch
from loader.workers.wire import hear_error, pack, tell_error, unpack
from uihkv import Schema, SchemaError, Store, keys
from uihkv.formats import Format, check_format, list_files
from uihkv.ingest import BATCH_ROWS, IngestResult, ingest
from uihkv.matching import EventFile, RowBatch, match_files

_VISIBLE, _ORDER = "visible at", "order by"
"""Columns beside the store's: no identifiers, which its own are."""


@dataclass(frozen=True, slots=True)
class _Split:
    """How a file is split.

    Attributes:
        path: the file.
        schema, shards: of the store.
        format, visible_at, order_by, rename, batch_rows: as of :func:`build_store`.

    """

    path: Path
    schema: Schema
    shards: int
    format: str | None
    visible_at: str | None
    order_by: str | None
    rename: Mapping[str, str]
    batch_rows: int


def build_store(
    path: str | PathLike[str],
    schema: Schema,
    files: str | PathLike[str] | Iterable[str | PathLike[str]] | Any,
    *,
    shards: int = 16,
    chunk_events: int = 1024,
    compression: str = "lz4",
    format: str | None = None,
    visible_at: str | None = None,
    order_by: str | None = None,
    rename: Mapping[str, str] | None = None,
    batch_rows: int = BATCH_ROWS,
    scratch: str | PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> IngestResult:
    """Make a store of event files, the same as ``Store.build`` and :func:`uihkv.ingest.ingest` make.

    Args:
        path: where nothing is yet, or an empty directory; seen by all machines.
        schema, shards, chunk_events, compression: as ``Store.build``.
        files: as :func:`uihkv.ingest.ingest`; seen by all machines. Or a ``ray.data.Dataset`` of events, whose rows
            are in arrival order, or put in order by ``order_by``; of its tensor columns only flat ones are taken.
        format, visible_at, order_by, rename: as :func:`uihkv.ingest.ingest`.
        batch_rows: rows that are read, checked and split at once; also of an append.
        scratch: folder on each machine where a shard is built and then copied from; None: beside the store.
        options: Ray's options of the tasks (``num_cpus``, ``resources``, ``memory``).

    Raises:
        FormatError, SchemaError: as :func:`uihkv.ingest.ingest`.
        StoreExistsError: when something is at the path, at the beginning or the end.
        WorkerError: when Ray has given up a task.

    """
    if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or batch_rows < 1:
        raise SchemaError(f"batch_rows is {batch_rows!r}; a whole number of 1 or more is expected")
    check_format(format)
    named = dict(rename or {})
    of_task = {"max_retries": 3, **(options or {})}
    with Store.assemble(path, schema, shards, chunk_events=chunk_events, compression=compression) as assembly:
        place = str(assembly.absolute())
        common = (schema, shards, format, visible_at, order_by, named, batch_rows)
        running: Iterable[Any]
        if is_dataset(files):
            split = ray.remote(split_block).options(**of_task, num_returns="streaming")
            place_of = "." if scratch is None else str(scratch)
            its = (_Split(Path(place_of) / f"block {number}", *common) for number in count())
            running = (split.remote(next(its), block) for block in _blocks(files))
        else:
            known: Format | None = format  # type: ignore[assignment]
            paths = list_files(files, known)
            match_files(schema, paths, format=known, visible_at=visible_at, order_by=order_by, rename=named)
            split = ray.remote(split_file).options(**of_task, num_returns="streaming")
            running = [split.remote(_Split(its.absolute(), *common)) for its in paths]
        pieces: list[list[Any]] = [[] for _ in range(shards)]
        told: list[dict[str, Any]] = []
        running = list(running)
        with _stopped_on_error(running):
            for task in running:
                *found, status = list(task)
                told.append(_check(fetch([status])[0]))
                for number in range(shards):
                    pieces[number].append(found[number::shards])
        build = ray.remote(build_shard).options(**of_task)
        given = (visible_at is not None, order_by is not None, batch_rows, scratch)
        built = _finish([build.remote(place, number, pieces[number], *given) for number in range(shards)])
    appended, lifted = (sum(its[name] for its in built) for name in ("appended", "lifted"))
    ignored = sorted({name for its in told for name in its["ignored"]})
    return IngestResult(len(told), sum(its["rows"] for its in told), appended, 0, lifted, tuple(ignored))


def is_dataset(given: Any) -> bool:
    """Whether something is a dataset of Ray Data, told without importing it for those who give files."""
    return any(kind.__module__.startswith("ray.data.") for kind in type(given).__mro__)


def _blocks(dataset: Any) -> Iterator[Any]:
    """References to the blocks of a dataset, in its order, as they are made."""
    options = dataset.context.execution_options
    kept, options.preserve_order = options.preserve_order, True
    try:
        for bundle in dataset.iter_internal_ref_bundles():
            yield from bundle.block_refs
    finally:
        options.preserve_order = kept


def split_block(split: _Split, block: Any) -> Iterator[Any]:
    """A block's task: as :func:`split_file`, of a file that it writes for itself."""
    from ray.data.block import BlockAccessor

    try:
        table = BlockAccessor.for_block(block).to_arrow()
        columns = {name: _plain_column(table.column(name)) for name in table.column_names}
        folder = None if split.path.parent == Path() else split.path.parent
        with tempfile.TemporaryDirectory(dir=folder) as made:
            path = Path(made) / split.path.name
            with pa.ipc.new_file(str(path), pa.schema([(name, its.type) for name, its in columns.items()])) as writer:
                writer.write_table(pa.table(columns))
            yield from split_file(replace(split, path=path, format="arrow"))
    except Exception as error:
        yield pack({"error": tell_error(error)})


def _plain_column(column: Any) -> Any:
    """A column without Ray's tensor type: flat tensors are lists."""
    if isinstance(column.type, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        kind = column.type.storage_type
        if pa.types.is_struct(kind):  # of other lengths in each row
            chunks = [chunk.field("data") for chunk in chunks]
            kind = kind.field("data").type
        return pa.chunked_array(chunks, kind)
    return column


def split_file(split: _Split) -> Iterator[Any]:
    """A file's task: of each batch a piece for every shard, in order; last what became of it."""
    try:
        known: Format | None = split.format  # type: ignore[assignment]
        (file,), ignored = match_files(
            split.schema, [split.path], format=known, visible_at=split.visible_at, order_by=split.order_by,
            rename=split.rename,
        )  # fmt: skip
        for batch in file.read(split.schema.time_unit, split.batch_rows):
            yield from _split_batch(split.schema, file, batch, split.shards)
        yield pack({"rows": file.source.rows, "ignored": list(ignored)})
    except Exception as error:
        yield pack({"error": tell_error(error)})


def build_shard(
    assembly: str,
    number: int,
    pieces: Sequence[Sequence[Any]],
    visible: bool,
    ordered: bool,
    batch_rows: int,
    scratch: str | PathLike[str] | None,
) -> bytes:
    """A shard's task: what became of its rows."""
    try:
        with (
            Store.build_shard(assembly, number, scratch) as store,
            tempfile.TemporaryDirectory(dir=store.path) as folder,
        ):
            files = _gather(pieces, Path(folder))
            if not files:
                return pack({"appended": 0, "lifted": 0})
            result = ingest(
                store, files, format="arrow", visible_at=_VISIBLE if visible else None,
                order_by=_ORDER if ordered else None, batch_rows=batch_rows,
            )  # fmt: skip
            return pack({"appended": result.appended, "lifted": result.lifted})
    except Exception as error:
        return pack({"error": tell_error(error)})


def _split_batch(schema: Schema, file: EventFile, batch: RowBatch, shards: int) -> Iterator[NDArray[np.uint8]]:
    """Checked rows of each shard, as an Arrow stream; nothing for a shard that has none."""
    events = batch.parse(schema)
    batch.parse_order(file.order_by)
    columns = dict(batch.data)
    if batch.visible is not None:
        columns[_VISIBLE] = batch.visible
    if batch.order is not None:
        columns[_ORDER] = batch.order
    table = pa.table(columns)
    shard = keys.shard_of(events.user_id, shards)
    table = table.take(pa.array(np.argsort(shard, kind="stable")))
    edges = np.concatenate([[0], np.cumsum(np.bincount(shard, minlength=shards))])
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        sink = pa.BufferOutputStream()
        if high > low:
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.slice(low, high - low))
        yield np.frombuffer(sink.getvalue(), np.uint8)


def _gather(pieces: Sequence[Sequence[Any]], folder: Path) -> list[Path]:
    """Write a shard's rows as a scratch file for each file, one piece at a time; those of files that have rows of it.

    Files stay apart, since their columns may be of different types.
    """
    gathered: list[Path] = []
    for number, its in enumerate(pieces):
        with ExitStack() as stack:
            writer: Any = None
            for piece in its:
                data = fetch([piece])[0]
                if not len(data):
                    continue
                reader = stack.enter_context(pa.ipc.open_stream(pa.py_buffer(data)))
                if writer is None:
                    gathered.append(folder / f"{number:06d}.arrow")
                    writer = stack.enter_context(pa.ipc.new_stream(str(gathered[-1]), reader.schema))
                for rows in reader:
                    writer.write_batch(rows)
    return gathered


def _finish(tasks: Sequence[Any]) -> list[dict[str, Any]]:
    """What tasks say; when one has failed, the others end before this does: nothing is written any more."""
    left = list(tasks)
    try:
        with _stopped_on_error(tasks):
            while left:
                done, left = ray.wait(left)
                _check(fetch(done)[0])
    except BaseException:
        ray.wait(list(tasks), num_returns=len(tasks), timeout=END_WAIT_S)
        raise
    return [_check(told) for told in fetch(tasks)]


@contextmanager
def _stopped_on_error(tasks: Sequence[Any]) -> Iterator[None]:
    """Stop tasks when what is made of them is left by an error."""
    try:
        yield
    except BaseException:
        for task in tasks:
            ray.cancel(task, force=True)
        raise


def _check(told: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = unpack(told)
    if "error" in answer:
        raise hear_error(answer["error"])
    return answer
