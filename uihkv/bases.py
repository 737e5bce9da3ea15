"""What of a prefix is gone? Reads and resolutions against histories that ``trim`` has cut.

A user's *base* is the first version that he still has: where his first chunk starts, or his tail if he has no chunk.
There is no second record of it. Events below the base are gone; versions keep their meaning.

- A read needs the events of its window. Where one of them is below the base, the read raises, or is cut to what is
  left (``on_trimmed``). A version at or below a base above 0 names only events that are gone, ``last_ts`` included:
  it proves nothing, and its sequence is empty where it does not raise.
- With conditions or an age limit nobody knows which of the events that are gone would have passed: the read needs
  them where it has found fewer than ``max_len``. An age limit is reached, and they are not needed, where the oldest
  kept event became visible before the limit: those before it became visible no later, and an event does not
  become visible before it happens.
- A moment is resolved by the kept events, whose visible times ascend. Where none of them was visible, the version is at
  most the base and no longer known.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from uihkv.directory import SnapshotDirectory
from uihkv.errors import SchemaError, TrimmedError
from uihkv.kernels.bases import cut_to_bases, find_bases
from uihkv.pointers import Pointers
from uihkv.selection import Windows

Int64s = NDArray[np.int64]
OnTrimmed = Literal["raise", "truncate"]


def check_on_trimmed(given: object) -> None:
    """Refuse what is no policy.

    Raises:
        SchemaError: for anything else than ``"raise"`` and ``"truncate"``.

    """
    if given not in ("raise", "truncate"):
        raise SchemaError(f"on_trimmed is {given!r}; 'raise' or 'truncate' is expected")


def bases_of(directory: SnapshotDirectory, row: Int64s) -> Int64s:
    """First version that each row still has, 0 for row -1: int64[n]; the rows' tails are open."""
    base = np.empty(len(row), np.int64)
    find_bases(row, directory.chunks_of, directory.entries.start, directory.entries.first_tail, base)
    return base


def cut_prefixes(
    directory: SnapshotDirectory, prefix: Windows, pointers: Pointers, on_trimmed: OnTrimmed, whole: bool
) -> Windows:
    """The windows without what is gone; cut in place.

    Args:
        directory: of the snapshot; the rows' tails are open.
        prefix: a window a pointer, all of which is needed; or
        whole: whole prefixes, of which it will show how much is needed: only those wholly gone are refused.
        pointers: for messages.
        on_trimmed: whether what is gone is an error.

    Raises:
        TrimmedError: where events are needed that are gone.

    """
    entries = directory.entries
    cut, gone = cut_to_bases(
        prefix.row, prefix.low, prefix.high, directory.chunks_of, entries.start, entries.first_tail, prefix.offsets
    )
    refused = gone if whole else cut
    if refused >= 0 and on_trimmed == "raise":
        raise trimmed_error(directory, prefix.row, pointers, refused)
    return prefix


def find_incomplete(
    prefix: Windows, chosen: Windows, max_len: int | None, oldest_ts: Int64s | None, oldest_visible: Int64s
) -> int:
    """First pointer whose choice may lack events that are gone; -1: none.

    Args:
        prefix: the kept events of each pointer's prefix.
        chosen: what conditions and age left of them.
        max_len: most events of each.
        oldest_ts: int64[pointers], least accepted ``ts``; None: any.
        oldest_visible: int64[pointers], visible time of the oldest kept event, where the prefix begins past 0.

    """
    lacking = prefix.low > 0
    if max_len is not None:
        lacking &= np.diff(chosen.offsets) < max_len
    if oldest_ts is not None:
        lacking &= oldest_visible >= oldest_ts
    return int(np.argmax(lacking)) if lacking.any() else -1


def trimmed_error(directory: SnapshotDirectory, row: Int64s, pointers: Pointers, at: int) -> TrimmedError:
    """The error for a pointer whose events are gone."""
    base = int(bases_of(directory, row[at : at + 1])[0])
    return TrimmedError(
        f"row {at}: the events of user {pointers.user_id[at]} below version {base} are trimmed, and the read of "
        f"version {int(pointers.version[at])} needs some of them; read with on_trimmed='truncate' for what is left, "
        "ask for fewer events (max_len), or leave the example out"
    )
