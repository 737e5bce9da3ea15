"""Chunks from events, and columns from chunks: the compiled kernels behind whole-array calls.

``Layouts`` holds the blocks of every schema version of a store, ``Entries`` the chunks and tails of a shard (where
they lie in LMDB's map, and which of their blocks have been verified). :func:`encode` and :func:`decode` check
before a kernel runs and raise after; the kernels do neither.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from uihkv.chunk import MAX_CHUNK_RAW_BYTES, TS_AT, VISIBLE_TIME_AT, BlockLayout
from uihkv.distinct import number_values
from uihkv.errors import CorruptChunkError, FormatError
from uihkv.events import Events
from uihkv.kernels import decode as _decode
from uihkv.kernels import encode as _encode
from uihkv.kernels import status
from uihkv.kernels.ahead import are_in_memory, ask_for_pages, find_blocks
from uihkv.kernels.parts import COUNTERS, are_done, cut_parts, read_parts
from uihkv.kernels.plan import list_bound
from uihkv.readcolumns import ReadColumns
from uihkv.schema import TS, Schema
from uihkv.slabs import address_of, map_memory
from uihkv.threads import Threads

Int64s = NDArray[np.int64]
Array = NDArray[Any]
Verify = Literal["always", "once", "never"]

VERIFY_CODES: dict[str, int] = {
    "never": _decode.VERIFY_NEVER,
    "once": _decode.VERIFY_ONCE,
    "always": _decode.VERIFY_ALWAYS,
}


_LENGTH_BYTES = 4
"""Of a distinct value, in the block of their lengths."""

_LARGE_BYTES = 1 << 18

LOOKED_AT = 16
"""Of how many values it is looked up whether their pages are in memory; that costs a fraction of a microsecond each."""

_KEPT_COLUMNS = 64
"""Choices of columns that are kept: of every model that reads the store."""

_MIN_THREAD_EVENTS = 1 << 14
"""Fewer events are decoded before another thread has woken up."""

_MIN_PART_EVENTS = 1 << 12
_PARTS_A_THREAD = 16
"""A thread waits for the others for as long as a part takes, at most."""


class Layouts:
    """The block layouts of a store's schema versions, as tables that kernels take.

    Attributes:
        schemas: every schema the store has had, oldest first.
        layouts: their layouts.

    """

    __slots__ = (
        "_columns",
        "blocks",
        "elements",
        "kind",
        "layouts",
        "ragged",
        "schemas",
        "width",
    )

    def __init__(self, schemas: Sequence[Schema]) -> None:
        self.schemas = tuple(schemas)
        self.layouts = tuple(BlockLayout.of(schema) for schema in schemas)
        widest = max(layout.blocks for layout in self.layouts)
        self.width = self._table("width", widest)
        self.kind = self._table("kind", widest)
        self.elements = self._table("elements", widest)
        self.blocks = np.array([layout.blocks for layout in self.layouts], np.int64)
        self.ragged = np.array([layout.ragged for layout in self.layouts], np.bool_)
        self._columns: dict[tuple[str, ...], ReadColumns] = {}

    def _table(self, name: str, widest: int) -> Int64s:
        table = np.zeros((len(self.layouts), widest), np.int64)
        for version, layout in enumerate(self.layouts):
            table[version, : layout.blocks] = getattr(layout, name)
        return table

    @property
    def schema(self) -> Schema:
        """The schema in force."""
        return self.schemas[-1]

    def is_ragged(self, name: str) -> bool:
        """Whether the schema in force has lists in a column."""
        return name in self.schema and self.schema[name].ragged

    def first_blocks(self, names: Sequence[str]) -> Int64s:
        """Block where each column begins in each version, -1 where it lacks: int64[versions, names].

        Names are the newest schema's; which columns they are in older ones, their ids say.
        """
        identities = self.schema.identities
        wanted = [identities[name] for name in names]
        return np.array(
            [[layout.first_block.get(column, -1) for column in wanted] for layout in self.layouts], np.int64
        ).reshape(len(self.layouts), len(names))

    def columns(self, names: tuple[str, ...]) -> ReadColumns:
        """What a read of these columns needs to know; worked out when they are first asked for."""
        found = self._columns.get(names)
        if found is None:
            found = ReadColumns.of(self.schema, names, self.first_blocks(names))
            if len(self._columns) < _KEPT_COLUMNS:
                self._columns[names] = found
        return found


class Entries:
    """Chunks and tails of a shard: chunks first, in key order, then one tail a user.

    Attributes:
        address, size: int64[entries], where the value lies; 0 until it is first used.
        user, start, end: int64[entries]; of a tail, ``start`` and ``end`` are -1 until it is opened.
        verified: int64[entries], a bit for each block whose checksum was found right.
        shard: uint16[entries], where the entry is kept.
        first_tail: number of chunks, or of those that there is room for.
        scratch_bytes: most bytes that a block of an opened entry has before LZ4.
        name_of: the id that errors name, of a shard and a user's number; None: the number.

    """

    __slots__ = (
        "address",
        "end",
        "first_tail",
        "name_of",
        "scratch_bytes",
        "shard",
        "size",
        "start",
        "user",
        "verified",
    )

    def __init__(
        self, shard: int | NDArray[np.uint16], chunks: tuple[Int64s, Int64s, Int64s], tail_users: Int64s
    ) -> None:
        user, start, end = chunks
        unknown = np.full(len(tail_users), -1, np.int64)
        self.shard = np.broadcast_to(np.asarray(shard, np.uint16), len(user) + len(tail_users))
        self.first_tail = len(user)
        self.user = np.concatenate([user, tail_users])
        self.start = np.concatenate([start, unknown])
        self.end = np.concatenate([end, unknown])
        self.address = np.zeros(len(self.user), np.int64)
        self.size = np.zeros(len(self.user), np.int64)
        self.verified = np.zeros(len(self.user), np.int64)
        self.scratch_bytes = 0
        self.name_of: Callable[[int, int], int | str] | None = None

    @classmethod
    def reserve(cls, chunks: int, tails: int) -> Entries:
        """Room for so many; what stands there means nothing yet."""
        none = np.empty(0, np.int64)
        entries = cls(0, (none, none, none), none)
        n = chunks + tails
        entries.first_tail = chunks
        entries.shard = np.empty(n, np.uint16)
        entries.user, entries.start, entries.end, entries.address, entries.size = (
            np.empty(n, np.int64) for _ in range(5)
        )
        entries.verified = none
        return entries

    def unopened(self) -> Entries:
        """The same entries, none of them opened; the arrays that say what and where they are are shared."""
        other = copy.copy(self)
        other.address, other.verified = _untouched_zeros(len(self.address))
        other.scratch_bytes = 0
        return other

    def user_of(self, entry: int) -> int | str:
        """Whose an entry is, for messages."""
        shard, user = int(self.shard[entry]), int(self.user[entry])
        return user if self.name_of is None else self.name_of(shard, user)

    def error(self, code: int, entry: int) -> CorruptChunkError | FormatError:
        """The error for a kernel's status code."""
        shard, user = int(self.shard[entry]), self.user_of(entry)
        start, end = int(self.start[entry]), int(self.end[entry])
        if code == status.NEWER:
            return FormatError(
                f"shard {shard:04d}, user {user}: {status.MEANING[code]} than this package reads; install a newer uihkv"
            )
        return CorruptChunkError(status.MEANING[code], shard=shard, user_id=user, start=start, end=end)

    def open(self, wanted: Int64s, layouts: Layouts, verify: int) -> None:
        """Check the headers of entries whose addresses were just filled in.

        Raises:
            CorruptChunkError: for bytes that are no chunk of this user and range.
            FormatError: for a chunk of a newer format.

        """
        code, entry, largest = _decode.open_chunks(
            wanted, self.address, self.size, self.user, self.start, self.end, self.first_tail,
            layouts.width, layouts.kind, layouts.elements, layouts.blocks, layouts.ragged, verify,
        )  # fmt: skip
        if code != status.OK:
            self.address[wanted] = 0  # whoever asks again is told again
            raise self.error(code, entry)
        self.scratch_bytes = max(self.scratch_bytes, int(largest))


def _untouched_zeros(n: int) -> Int64s:
    """int64[2, n] of zeros; large ones are not filled, which took a millisecond for each snapshot."""
    size = 2 * n * np.dtype(np.int64).itemsize
    if size < _LARGE_BYTES:
        return np.zeros((2, n), np.int64)
    return map_memory(size).view(np.int64).reshape(2, n)


@dataclass(frozen=True, slots=True)
class Slices:
    """Windows of chunks and where they go: the plan of a read, sorted by entry.

    Attributes:
        entry: int64[slices].
        first, last: int64[slices], events ``[first, last)`` of the entry.
        out: int64[slices], position of the first of them among the output's events.

    """

    entry: Int64s
    first: Int64s
    last: Int64s
    out: Int64s

    def by_entry(self) -> Slices:
        """The same slices, those of one entry together."""
        order = np.argsort(self.entry, kind="stable")
        return Slices(self.entry[order], self.first[order], self.last[order], self.out[order])


def decode_fixed(
    entries: Entries,
    layouts: Layouts,
    slices: Slices,
    outputs: dict[str, Array],
    verify: int,
    threads: Threads | None = None,
    address: Int64s | None = None,
) -> tuple[int, int]:
    """Decode columns without lists into outputs ``[N, *shape]``, C-contiguous, in the schema's types.

    With threads, each takes whole chunks, some thousand events at a time. ``address``: int64[outputs], where they
    lie, if that is known.

    Returns:
        chunks that the slices touch, and the stored bytes of the columns' blocks in them.

    Raises:
        CorruptChunkError: where a checksum fails or a block does not decompress.

    """
    columns = layouts.columns(tuple(outputs))
    if address is None:
        address = np.array([address_of(array) for array in outputs.values()], np.int64)
    events = len(next(iter(outputs.values()))) if outputs else 0
    return _run(
        entries, slices, layouts, columns.first, address, columns.width, columns.elements, columns.default, verify,
        events, threads,
    )  # fmt: skip


def _run(
    entries: Entries, slices: Slices, layouts: Layouts, block: Int64s, address: Int64s, width: Int64s,
    elements: Int64s, default: Int64s, verify: int, events: int = 0, threads: Threads | None = None,
) -> tuple[int, int]:  # fmt: skip
    numbers = (
        entries.address, entries.user, entries.verified, slices.entry, slices.first, slices.last, slices.out,
        layouts.width, layouts.kind, layouts.elements, block, address, width, elements, default, verify,
    )  # fmt: skip
    scratch_bytes = max(entries.scratch_bytes, 1)
    if threads is None or events < 2 * _MIN_THREAD_EVENTS:
        code, entry, chunks, stored = _decode.read_blocks(*numbers, np.empty(scratch_bytes, np.uint8))
        if code != status.OK:
            raise entries.error(code, entry)
        return chunks, stored
    part_events = max(_MIN_PART_EVENTS, events // (threads.count * _PARTS_A_THREAD))
    bounds = cut_parts(slices.entry, slices.first, slices.last, part_events)
    outcome = np.empty((len(bounds) - 1, 4), np.int64)
    counters = np.zeros(COUNTERS, np.int64)
    threads.share(
        [
            partial(read_parts, *numbers, np.empty(scratch_bytes, np.uint8), bounds, outcome, counters)
            for _ in range(min(threads.count, len(outcome)))
        ],
        lambda: are_done(counters, len(outcome)),
    )
    failed = np.flatnonzero(outcome[:, 0] != status.OK)
    if len(failed):
        raise entries.error(int(outcome[failed[0], 0]), int(outcome[failed[0], 1]))
    return int(outcome[:, 2].sum()), int(outcome[:, 3].sum())


def measure_slices(entries: Entries, layouts: Layouts, slices: Slices, names: Sequence[str]) -> tuple[int, int]:
    """Chunks that slices, sorted by entry, touch, and the stored bytes of these columns' blocks in them."""
    chunks, size = _decode.measure_blocks(
        entries.address, slices.entry, layouts.width, layouts.elements, layouts.kind,
        layouts.columns(tuple(names)).blocks,
    )  # fmt: skip
    return int(chunks), int(size)


def ask_for_blocks(
    entries: Entries, layouts: Layouts, slices: Slices, names: Sequence[str], always: bool = False
) -> int:
    """Ask the system for the pages of these columns' blocks, before they are read; bytes asked for.

    Args:
        entries, layouts, names: as for :func:`decode_fixed`.
        slices: sorted by entry.
        always: also when a few of the pages, looked at first, are in memory.

    """
    blocks = layouts.columns(tuple(names)).blocks

    def find(entry: Int64s) -> tuple[Int64s, Int64s]:
        begin, end = np.empty((2, len(entry), blocks.shape[1]), np.int64)
        find_blocks(entries.address, entry, layouts.width, layouts.elements, layouts.kind, blocks, begin, end)
        return begin.ravel(), end.ravel()

    if not always:
        begin, _ = find(slices.entry[:: len(slices.entry) // LOOKED_AT + 1])
        columns = blocks.shape[1]
        if are_in_memory(begin[:: columns + 1 if len(begin) > columns else 1]):  # of each, another column's
            return 0
    return _ask_for(*find(slices.entry))


def ask_for_values(entries: Entries, wanted: Int64s, address: Int64s, whole: bool, always: bool = False) -> int:
    """Ask for the first pages of values, which hold their headers, or for all of them; bytes asked for.

    Args:
        entries: whose sizes are known.
        wanted: int64[n], entries.
        address: int64[n], where they lie.
        whole: everything will be read.
        always: also when a few of the pages, looked at first, are in memory.

    """
    if not always and are_in_memory(address[:: len(address) // LOOKED_AT + 1]):
        return 0
    size = entries.size[wanted]
    return _ask_for(address, address + (size if whole else np.minimum(size, 1)))


def _ask_for(begin: Int64s, end: Int64s) -> int:
    order = np.argsort(begin)
    return int(ask_for_pages(begin[order], end[order]))


def greatest_times(entries: Entries, layouts: Layouts, wanted: Int64s, name: str) -> Int64s:
    """The greatest ``ts`` or ``visible_at`` of each wanted, opened entry: int64[n]."""
    words = np.empty(len(wanted), np.int64)
    block, field = (0, TS_AT) if name == TS else (1, VISIBLE_TIME_AT)
    _decode.greatest_times(
        entries.address, wanted, block, field + 8, layouts.width, layouts.elements, layouts.kind, words
    )
    return words


def decode_list_lengths(
    entries: Entries, layouts: Layouts, slices: Slices, name: str, lengths: Int64s, verify: int
) -> None:
    """Decode the lengths of a ragged column's lists into int64[N].

    Raises:
        CorruptChunkError: where a checksum fails, a block does not decompress, or lengths cannot be.

    """
    one = np.ones(1, np.int64)
    block = layouts.first_blocks([name])
    _run(
        entries, slices, layouts, block,
        np.array([address_of(lengths)], np.int64), 8 * one, one, 0 * one, verify,
    )  # fmt: skip
    bound = list_bound(entries.address, slices.entry, block[:, 0])
    count = slices.last - slices.first
    mine = lengths[np.repeat(slices.out - np.cumsum(count) + count, count) + np.arange(int(count.sum()))]
    if len(mine) and (int(mine.min()) < 0 or int(mine.max()) > bound or int(mine.sum()) > bound):
        raise entries.error(status.LISTS, int(slices.entry[0]))


def decode_list_elements(
    entries: Entries, layouts: Layouts, slices: Slices, name: str, offsets: Int64s, values: Array, verify: int
) -> None:
    """Decode the elements of a ragged column, whose lists begin at ``offsets``: int64[N+1], into ``values``.

    Raises:
        CorruptChunkError: where a checksum fails, a block does not decompress, or lengths do not add up.

    """
    if not len(slices.entry):
        return
    longest = int((entries.end[slices.entry] - entries.start[slices.entry]).max())
    code, entry = _decode.read_lists(
        entries.address, entries.user, entries.verified,
        slices.entry, slices.first, slices.last, slices.out,
        layouts.width, layouts.kind, layouts.elements,
        layouts.first_blocks([name])[:, 0], offsets, address_of(values), values.dtype.itemsize,
        verify, np.empty(max(entries.scratch_bytes, 1), np.uint8), np.empty(max(longest, 1), np.int64),
    )  # fmt: skip
    if code != status.OK:
        raise entries.error(code, entry)


@dataclass(frozen=True, slots=True)
class EncodedChunks:
    """Chunks back to back in one buffer.

    Attributes:
        buffer: uint8, the bytes of all chunks.
        end: int64[chunks], where each ends.
        group: int64[chunks], the group whose events it holds.
        start: int64[chunks], version before its first event.
        count: int64[chunks], its events.

    """

    buffer: NDArray[np.uint8]
    end: Int64s
    group: Int64s
    start: Int64s
    count: Int64s

    def __len__(self) -> int:
        return len(self.end)

    def choose(self, kept: NDArray[np.bool_]) -> EncodedChunks:
        """Some of the chunks: bool[chunks]."""
        if kept.all():
            return self
        size = np.diff(self.end, prepend=0)
        buffer = self.buffer[np.repeat(kept, size)]
        return EncodedChunks(buffer, np.cumsum(size[kept]), self.group[kept], self.start[kept], self.count[kept])


def encode(
    layouts: Layouts, events: Events, group_row: Int64s, group_count: Int64s, group_start: Int64s,
    group_user: Int64s, group_visible: Int64s, chunk_events: int, compress: bool, page_bytes: int = 0,
) -> EncodedChunks:  # fmt: skip
    """Encode groups of consecutive rows, one user each, into as few chunks as their limits allow.

    Args:
        layouts: the store's; the newest schema is written.
        events: rows, sorted by group.
        group_row, group_count: int64[groups], the rows of each group; none gives one empty chunk.
        group_start: int64[groups], the version before the group's first event.
        group_user: int64[groups].
        group_visible: int64[groups], greatest visible time, for groups without events.
        chunk_events: most events a chunk.
        compress: whether bits and LZ4 are tried.
        page_bytes: of the file; chunks are then cut where they fill pages, except of schemas with ragged columns. 0:
            chunks are of ``chunk_events``, whatever their size.

    """
    version = len(layouts.schemas) - 1
    layout = layouts.layouts[version]
    event_bytes = np.empty(0, np.int64)
    if layout.ragged:
        event_bytes = np.full(len(events), layout.event_bytes, np.int64)
        for name, offsets in events.lists.items():
            event_bytes += np.diff(offsets) * events.columns[name].dtype.itemsize
            if layouts.schema[name].coded:
                event_bytes += _LENGTH_BYTES
    else:
        chunk_events = min(chunk_events, max(1, MAX_CHUNK_RAW_BYTES // layout.event_bytes))
    groups = len(group_row)
    most = int(group_count.max(initial=0))
    scratch = min(chunk_events, most) * int(layout.elements.max())
    if not layout.ragged:
        raw_bytes = len(events) * layout.event_bytes
        room = groups + len(events) // chunk_events + (2 * raw_bytes // page_bytes if page_bytes else 0) + 1
        end, group, row, count = np.empty((4, room), np.int64)
        slack = min(chunk_events, most) * layout.event_bytes  # for an attempt at a chunk too many
        out = np.empty(raw_bytes + slack + (room + 2) * _head_room(layout), np.uint8)
        data, lists, sources = _blocks_of(layouts.schema, layout, events, group_row, group_count)
        n = _encode.encode_groups(
            group_row, group_count, group_start, group_user, group_visible, chunk_events, page_bytes,
            data, lists, layout.width, layout.kind, layout.elements, layout.event_bytes,
            version, compress, np.empty(max(scratch, 1), np.int64), np.empty(8 * scratch + 16, np.uint8),
            out, end, group, row, count,
        )  # fmt: skip
        del sources  # kept the addresses in ``data`` alive until here
        group, row, count = group[:n], row[:n], count[:n]
        start = group_start[group] + row - group_row[group]
        return EncodedChunks(out[: end[n - 1] if n else 0], end[:n], group, start, count)
    room = groups + len(events)
    segment = np.empty((3, room), np.int64)
    n = _encode.cut_segments(
        group_row, group_count, event_bytes, layout.event_bytes, chunk_events, MAX_CHUNK_RAW_BYTES,
        segment[0], segment[1], segment[2],
    )  # fmt: skip
    group, row, count = (np.ascontiguousarray(part[:n]) for part in segment)
    start = group_start[group] + row - group_row[group]
    data, lists, sources = _blocks_of(layouts.schema, layout, events, row, count)
    size = event_bytes.sum()
    out = np.empty(int(size) + n * _head_room(layout), np.uint8)
    largest = _largest_block(layout, events, row, count)
    end = np.empty(n, np.int64)
    written = _encode.encode_chunks(
        row, count, start, group_user[group], group_visible[group],
        data, lists, layout.width, layout.kind, layout.elements, layout.event_bytes, layout.ragged,
        version, compress, np.empty(largest, np.int64), np.empty(8 * largest + 16, np.uint8),
        out, end,
    )  # fmt: skip
    del sources  # kept the addresses in ``data`` alive until here
    return EncodedChunks(out[:written], end, group, start, count)


def _head_room(layout: BlockLayout) -> int:
    """More bytes than any header, and a block's own in the worst case, of one chunk."""
    return 64 + 72 * layout.blocks


def _blocks_of(
    schema: Schema, layout: BlockLayout, events: Events, row: Int64s, count: Int64s
) -> tuple[Int64s, Int64s, list[Array]]:
    """Addresses of each block's elements and lists, and the arrays that own them.

    Args:
        schema, layout: what is written.
        events: the rows.
        row, count: int64[chunks], the rows of each chunk, whose distinct values are numbered on their own.

    """
    sources: list[Array] = []

    def keep(array: Array) -> int:
        sources.append(np.ascontiguousarray(array))
        return address_of(sources[-1])

    data: list[int] = [keep(events.ts), keep(events.visible_at)]
    lists: list[int] = [0, 0]
    for column in schema.columns:
        values = events.columns[column.name]
        if column.coded:
            coded = number_values(values, events.lists[column.name], row, count)
            data += [keep(coded.code), keep(coded.length), keep(coded.values)]
            lists += [0, keep(coded.value_before), keep(coded.byte_before)]
        elif column.ragged:
            offsets = events.lists[column.name]
            data += [keep(np.diff(offsets).astype(np.uint32)), keep(values)]
            lists += [0, keep(offsets)]
        else:
            data.append(keep(values))
            lists.append(0)
    assert len(data) == layout.blocks  # BlockLayout.of and this loop stand in one order
    return np.array(data, np.int64), np.array(lists, np.int64), sources


def _largest_block(layout: BlockLayout, events: Events, row: Int64s, count: Int64s) -> int:
    """Most elements that a block of these chunks has; at least 1."""
    fixed = int(count.max(initial=0)) * int(layout.elements.max())
    ragged = (int((offsets[row + count] - offsets[row]).max(initial=0)) for offsets in events.lists.values())
    return max(1, fixed, *ragged)
