"""Which examples of a stream may be read now? Those whose pointers the store has caught up with, and no others.

A streamed example may name a version that this process does not see yet. It is never read short. It waits, in its
place, up to ``deadline_s`` from its arrival; the examples behind it wait too, and nothing more is taken from the feed.
Past the deadline one of three:

- ``"raise"``: the stream ends with :class:`NotVisibleYetError`;
- ``"skip"``: it is left out, and counted;
- ``"hold"``: it is put aside, at most ``hold_max`` of them, and the stream goes on; it comes in as soon as it is
  visible, behind what passed it meanwhile. Where for ``deadline_s`` the store catches up with none of those put aside,
  while there is no room for more or after the feed's end, the stream ends with the error.

Admitted rows are cut into batches of ``batch_size``; a smaller one is given after ``linger_s``, and at the end.

One task runs this, in the loader's loop; looking into the store is done in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loader.freshness import FreshnessMeter
from loader.progress import Progress
from loader.rows import ExampleRows, RowParser
from uihkv import NotVisibleYetError, Pointers

Late = Literal["raise", "skip", "hold"]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """What :class:`Admission` is told; see the module."""

    batch_size: int
    drop_last: bool
    deadline_s: float
    late: Late
    hold_max: int
    poll_s: float
    linger_s: float | None


class Admission:
    """Batches of admitted rows, from a feed.

    Args:
        feed: batches of examples; closed at the end, if it can be.
        parser: of its batches.
        visible: tells for each pointer whether the store, as fresh as it can be, has its version: bool[n].
        rules: sizes and deadlines.
        meter: counts.
        progress: keeps which rows are done with.

    """

    def __init__(
        self,
        feed: AsyncIterator[Any],
        parser: RowParser,
        visible: Callable[[Pointers], Awaitable[Bools]],
        rules: AdmissionRules,
        meter: FreshnessMeter,
        progress: Progress,
    ) -> None:
        self._feed = feed
        self._parser = parser
        self._visible = visible
        self._rules = rules
        self._meter = meter
        self._progress = progress
        self._ready: list[ExampleRows] = []
        self._ready_rows = 0
        self._ready_since_s = 0.0
        self._pending: ExampleRows | None = None
        self._held: ExampleRows | None = None
        self._stuck_since_s: float | None = None
        self._counted = 0
        self._ended = False

    async def batches(self) -> AsyncGenerator[ExampleRows]:
        """Batches of ``batch_size`` rows, the last maybe smaller.

        Raises:
            NotVisibleYetError: for examples past their deadline, as the rules say.
            SchemaError, PointerError: for batches of the feed that cannot be parsed.
            BaseException: what the feed raised.

        """
        pull: asyncio.Future[Any] | None = None
        try:
            while True:
                while self._ready_rows >= self._rules.batch_size or (self._ready_rows and self._linger_s() <= 0):
                    yield self._cut()
                idle = self._ended and self._pending is None and self._held is None
                if idle:
                    break
                if not self._ended and self._pending is None and pull is None:
                    pull = asyncio.ensure_future(_next_of(self._feed))
                await self._wait(pull)
                if pull is not None and pull.done():
                    batch = pull.result()
                    pull = None
                    if batch is None:
                        self._ended = True
                        self._stuck_since_s = time.monotonic()
                    else:
                        self._pending = self._parse(batch)
                        self._counted = 0
                if self._pending is not None or self._held is not None:
                    await self._advance()
            if self._ready_rows and not self._rules.drop_last:
                yield self._cut()
        finally:
            if pull is not None:
                pull.cancel()
                await asyncio.gather(pull, return_exceptions=True)
            close = getattr(self._feed, "aclose", None)
            if close is not None:
                await close()

    def _parse(self, batch: Any) -> ExampleRows | None:
        """Its rows, without those that an earlier run was done with."""
        rows = self._parser.parse(batch, time.monotonic())
        self._progress.came(self._parser.parsed)
        return None if rows is None else _rest(rows, ~self._progress.is_done(rows.number))

    def _linger_s(self) -> float:
        """Seconds until what is ready is given as it is."""
        if self._rules.linger_s is None:
            return np.inf
        return self._ready_since_s + self._rules.linger_s - time.monotonic()

    async def _wait(self, pull: asyncio.Future[Any] | None) -> None:
        """Until the feed has given a batch, or it is time to look again."""
        wait_s = np.inf
        if self._held is not None or (self._pending is not None and self._counted):
            wait_s = self._rules.poll_s
        elif self._pending is not None:
            wait_s = 0.0
        if self._ready_rows:
            wait_s = min(wait_s, max(self._linger_s(), 0.0))
        timeout = None if wait_s == np.inf else float(wait_s)
        if pull is not None:
            await asyncio.wait([pull], timeout=timeout)
        elif timeout:
            await asyncio.sleep(timeout)

    async def _advance(self) -> None:
        """Look which rows that wait are visible now, and let them in by the rules."""
        if self._held is not None:
            seen = await self._visible(self._held.pointers)
            if seen.any():
                self._admit(self._held[seen])
                self._held = _rest(self._held, ~seen)
                self._stuck_since_s = time.monotonic() if self._ended else None
            elif self._ended:
                self._check_stuck("after the end of the stream")
        if self._pending is None:
            return
        seen = await self._visible(self._pending.pointers)
        late = int(np.count_nonzero(~seen))
        if late and not self._counted:
            self._counted = late
            self._meter.add(waited=late)
        if not late:
            self._admit(self._pending)
            self._pending = None
            return
        if time.monotonic() - float(self._pending.arrived_s[0]) < self._rules.deadline_s:
            first = int(np.argmin(seen))  # those before it go; the others keep their place behind it
            if first:
                self._admit(self._pending[:first])
                self._pending = self._pending[first:]
            return
        self._pass_by(self._pending, seen)

    def _pass_by(self, pending: ExampleRows, seen: Bools) -> None:
        """The deadline of these rows is over: those not seen do not hold the others up any longer."""
        late = pending[~seen]
        if self._rules.late == "raise":
            raise _not_visible(late, f"within {self._rules.deadline_s:g} s")
        if self._rules.late == "skip":
            self._meter.add(skipped=len(late))
            self._progress.done(late.number)
        else:
            held = 0 if self._held is None else len(self._held)
            if held + len(late) > self._rules.hold_max:
                if self._stuck_since_s is None:
                    self._stuck_since_s = time.monotonic()
                self._check_stuck(f"and {held} of at most {self._rules.hold_max} examples are held back already")
                return
            self._meter.add(held=len(late))
            self._held = late if self._held is None else ExampleRows.concat([self._held, late])
        if seen.any():
            self._admit(pending[seen])
        self._pending = None
        if not self._ended:
            self._stuck_since_s = None

    def _check_stuck(self, why: str) -> None:
        since = self._stuck_since_s
        if since is not None and time.monotonic() - since >= self._rules.deadline_s:
            waiting = self._held if self._held is not None else self._pending
            assert waiting is not None  # something is stuck
            raise _not_visible(waiting, why)

    def _admit(self, rows: ExampleRows) -> None:
        if not self._ready_rows:
            self._ready_since_s = time.monotonic()
        self._ready.append(rows)
        self._ready_rows += len(rows)

    def _cut(self) -> ExampleRows:
        """The oldest ``batch_size`` rows that are ready, or all."""
        whole = ExampleRows.concat(self._ready)
        batch, rest = whole[: self._rules.batch_size], whole[self._rules.batch_size :]
        self._ready = [rest] if len(rest) else []
        self._ready_rows = len(rest)
        self._ready_since_s = time.monotonic()
        return batch


async def _next_of(feed: AsyncIterator[Any]) -> Any:
    """The feed's next batch; None: it has ended."""
    return await anext(feed, None)


def _rest(rows: ExampleRows, kept: Bools) -> ExampleRows | None:
    return rows[kept] if kept.any() else None


def _not_visible(rows: ExampleRows, why: str) -> NotVisibleYetError:
    pointers = rows.pointers
    return NotVisibleYetError(
        f"{len(rows)} examples name versions that the store did not reach {why}, the first version "
        f"{int(pointers.version[0])} of user {pointers.user_id[0]}, which arrived "
        f"{time.monotonic() - float(rows.arrived_s[0]):.1f} s ago; see that its writer runs and commits, give it a "
        "longer deadline_s, or choose late='skip' or 'hold'"
    )
