"""Where a stream's examples come from: batches of rows as they arrive, from a pipe, a socket or a growing folder.

A feed is an async iterator of Arrow tables or record batches. The ones here read where reading blocks, in a thread of
their own, and can be interrupted there: it waits for its file and for a wake-up at once. They read only when they are
asked for the next batch, so a slow trainer holds back whoever writes.

Anything else that is an async iterator of mappings of arrays, Arrow tables or record batches is a feed as well, as is
an ``asyncio.Queue`` of them; None in the queue ends the stream.
"""

from __future__ import annotations

import asyncio
import io
import operator
import os
import select
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.ipc
import pyarrow.json
import pyarrow.parquet as pq

from loader.errors import SettingError, StateError
from loader.pipeline import THREAD_NAME
from uihkv import SchemaError

_READ_BYTES = 1 << 18


class _Interrupted(Exception):  # noqa: N818 - asked for, no fault
    """The feed was closed while it waited."""


class _Waiting(io.RawIOBase):
    """A descriptor's bytes; a read waits for them or for :meth:`wake`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._woken, self._waker = os.pipe()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN | select.POLLHUP)
        self._poll.register(self._woken, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            ready = [descriptor for descriptor, _ in self._poll.poll()]
            if self._woken in ready:
                raise _Interrupted
            with suppress(BlockingIOError):
                return os.readv(self._descriptor, [buffer])

    def wake(self) -> None:
        """Let the read that waits, and all later ones, raise."""
        with suppress(OSError):
            os.write(self._waker, b"x")

    def close(self) -> None:
        if not self.closed:
            os.close(self._woken)
            os.close(self._waker)
        super().close()


class _BlockingFeed(AsyncIterator[Any]):
    """Batches of a blocking iterator over a descriptor, made one at a time in a thread.

    Args:
        stream: a path, which is opened and closed again; or a descriptor, or anything with ``fileno``, unbuffered,
            which stays the caller's to close.

    """

    def __init__(self, stream: Any) -> None:
        if isinstance(stream, bool) or not (isinstance(stream, int | str | os.PathLike) or hasattr(stream, "fileno")):
            raise SettingError(f"{stream!r} given as stream; a path, a descriptor or an object with fileno is expected")
        self._stream = stream
        self._raw: _Waiting | None = None
        self._opened: int | None = None
        self._batches: Iterator[Any] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    @abstractmethod
    def _read(self, raw: _Waiting) -> Iterator[Any]:
        """Batches from the bytes."""

    def _open(self) -> int:
        stream = self._stream
        if isinstance(stream, str | os.PathLike):
            self._opened = os.open(stream, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe may have no writer yet
            return self._opened
        return stream if isinstance(stream, int) else int(stream.fileno())

    def _next(self) -> Any:
        if self._batches is None:
            self._raw = _Waiting(self._open())
            if self._closed:
                self._raw.wake()
            self._batches = self._read(self._raw)
        try:
            return next(self._batches, None)
        except _Interrupted:
            return None

    async def __anext__(self) -> Any:
        if self._closed:
            raise StopAsyncIteration
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, f"{THREAD_NAME}-feed")
        batch = await asyncio.wrap_future(self._pool.submit(self._next))
        if batch is None:
            await self.aclose()
            raise StopAsyncIteration
        return batch

    async def aclose(self) -> None:
        """Stop reading; a read that waits ends. Closing twice is no error."""
        self._closed = True
        if self._raw is not None:
            self._raw.wake()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()  # at once: the read that waited has been woken
        if self._raw is not None:
            self._raw.close()
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class JsonLines(_BlockingFeed):
    """One example a line, as a JSON object.

    Args:
        stream: where lines come from, see :class:`_BlockingFeed`; such as ``sys.stdin``, a socket, or ``"pipe"``.
        schema: an Arrow schema of the columns; None: types are those of the first lines that arrive, so a number that
            may have a fraction needs one in them.

    """

    def __init__(self, stream: Any, schema: pa.Schema | None = None) -> None:
        super().__init__(stream)
        self._schema = schema

    def _read(self, raw: _Waiting) -> Iterator[Any]:
        rest = b""
        while True:
            part = raw.read(_READ_BYTES)
            if not part:
                break
            whole, newline, after = part.rpartition(b"\n")
            if not newline:
                rest += part
                continue
            yield from self._parse(rest + whole)
            rest = after
        yield from self._parse(rest)

    def _parse(self, lines: bytes) -> Iterator[Any]:
        if not lines.strip():
            return
        options = None
        whole = pyarrow.json.ReadOptions(block_size=len(lines))  # a line longer than a block is refused
        if self._schema is not None:
            options = pyarrow.json.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="error")
        try:
            table = pyarrow.json.read_json(io.BytesIO(lines), whole, options)
            if self._schema is None:
                self._schema = table.schema
            yield table.select(self._schema.names).cast(self._schema)
        except (pa.ArrowException, KeyError) as error:
            raise SchemaError(f"lines are not JSON objects of the columns expected ({error})") from error


class ArrowStream(_BlockingFeed):
    """Record batches of one Arrow IPC stream (not the file format).

    Args:
        stream: where bytes come from, see :class:`_BlockingFeed`.

    """

    def _read(self, raw: _Waiting) -> Iterator[Any]:
        # Arrow wants all the bytes that it asks for; a buffered reader waits for them.
        with io.BufferedReader(raw, _READ_BYTES) as buffered:
            try:
                yield from pyarrow.ipc.open_stream(pa.PythonFile(buffered, mode="r"))
            except _Interrupted:
                raise
            except (pa.ArrowException, OSError) as error:
                raise SchemaError(f"the stream is not an Arrow IPC stream, or was cut short ({error})") from error


class ParquetFolder(AsyncIterator[Any]):
    """Parquet files as they appear in a folder: those that are new, by name, each once; it can resume.

    A file is read when it is listed, so it must appear whole: write it under a name that begins with ``.`` or ``_``, or
    elsewhere on the file system, and rename it.

    Args:
        folder: which need not exist yet.
        poll_s: seconds between two looks when there was nothing new.
        until: name of a file in the folder that ends the stream, once all files that were there with it are read.
        batch_rows: rows of a batch, at most.

    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        poll_s: float = 0.2,
        until: str | None = "_SUCCESS",
        batch_rows: int = 8192,
    ) -> None:
        self._read: set[str] = set()
        self._reading, self._rows = "", 0
        self._batches = self._follow(Path(folder), float(poll_s), until, batch_rows)

    async def __anext__(self) -> Any:
        return await anext(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Its place behind the newest batch: ``read``, names of whole files; ``reading`` and ``rows``: one in part."""
        return {"read": sorted(self._read), "reading": self._reading, "rows": self._rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there; before the first batch.

        Raises:
            StateError: for something else.

        """
        try:
            read, reading, rows = set(state["read"]), str(state["reading"]), operator.index(state["rows"])
        except (KeyError, TypeError) as error:
            raise StateError(f"{state!r:.80} is no place in a folder; give what state_dict() returned") from error
        self._read, self._reading, self._rows = read, reading, rows

    async def aclose(self) -> None:
        """Stop looking."""
        await self._batches.aclose()

    async def _follow(self, folder: Path, poll_s: float, until: str | None, batch_rows: int) -> AsyncGenerator[Any]:
        loop = asyncio.get_running_loop()
        while True:
            last = until is not None and (folder / until).exists()
            names = {path.name for path in folder.glob("*.parquet") if path.name[0] not in "._"} - self._read
            for name in sorted(names, key=lambda name: (name != self._reading, name)):  # the one in part goes first
                passed = self._rows if name == self._reading else 0
                self._reading = name
                try:
                    with pq.ParquetFile(folder / name) as file:
                        batches = file.iter_batches(batch_rows)
                        while (batch := await loop.run_in_executor(None, next, batches, None)) is not None:
                            passed, batch = passed - min(passed, len(batch)), batch.slice(min(passed, len(batch)))
                            self._rows += len(batch)
                            yield batch
                except (pa.ArrowException, OSError) as error:
                    raise SchemaError(f"{folder / name} cannot be read as Parquet ({error})") from error
                self._read.add(name)
                self._reading, self._rows = "", 0
            if last:
                return
            if not names:
                await asyncio.sleep(poll_s)


async def queue_batches(queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    """What a queue is given, until None."""
    while (batch := await queue.get()) is not None:
        yield batch
