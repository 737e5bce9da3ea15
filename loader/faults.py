"""Which example of a batch is at fault, when a read of the batch raises.

Only the store knows why a pointer does not fit, so the batch is read again by halves. That costs nothing where nothing
is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from uihkv import CorruptChunkError, NotVisibleYetError, PointerError, Projection, TrimmedError

if TYPE_CHECKING:
    from loader.reading import Request
    from uihkv import Snapshot

_OF_ONE_EXAMPLE = (PointerError, CorruptChunkError, TrimmedError, NotVisibleYetError)
"""Errors of the store that one pointer causes."""


def name_example(
    error: Exception,
    snapshot: Snapshot,
    request: Request,
    tenants: Mapping[str, Projection],
    on_trimmed: Literal["raise", "truncate"],
) -> None:
    """Add a note to an error of a read that says which example, user and tenant it comes from, if it is of one."""
    if not isinstance(error, _OF_ONE_EXAMPLE):
        return
    kind = type(error)
    for tenant, projection in tenants.items():

        def fails(rows: slice, projection: Projection = projection) -> bool:
            pointers, as_of = request.pointers[rows], None if request.as_of is None else request.as_of[rows]
            inline = None if request.inline is None else request.inline[rows]
            try:
                snapshot.read(
                    pointers, projection, as_of=as_of, epoch=request.epoch, on_trimmed=on_trimmed, inline=inline
                )
            except kind:
                return True
            return False

        row = find_failing_row(len(request.pointers), fails)
        if row is not None:
            error.add_note(
                f"at example {int(request.indices[row])} (row {row} of the batch): user "
                f"{request.pointers.user_id[row]}, version {int(request.pointers.version[row])}; tenant {tenant!r}"
            )
            return


def find_failing_row(rows: int, fails: Callable[[slice], bool]) -> int | None:
    """First row for which ``fails`` is true of that row alone, by halving; None: no row fails alone."""
    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        if fails(slice(low, middle)):
            high = middle
        else:
            low = middle
    return low if rows and fails(slice(low, high)) else None
