"""Versioned pointers: which prefix of whose history an example may see.

A batch of pointers is three flat columns. It is what an example carries instead of its history, what
``head`` and ``resolve`` give, and what ``read`` takes. Whether the versions exist is the store's to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uihkv.errors import PointerError
from uihkv.userids import UserIds, concat_ids, equal_ids, parse_strings, to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

Int64s = NDArray[np.int64]

PACKED_BYTES = 24
_PACKED = np.dtype("<i8")


def as_int64(values: ArrayLike, name: str) -> Int64s:
    """Flat int64 column from integers that fit.

    Raises:
        PointerError: for another shape or type, or a value that int64 cannot hold.

    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise PointerError(f"{name} has masked values; fill or drop them")
    try:
        array = np.asarray(values)
    except ValueError:
        raise PointerError(f"{name} has rows of unequal shape; a flat array of integers is expected") from None
    except (TypeError, RuntimeError) as error:  # of a tensor of another device, for instance
        raise PointerError(f"{name} is a {type(values).__name__} that is no array here ({error})") from None
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim != 1:
        raise PointerError(f"{name} has shape {array.shape}; a flat array of integers is expected")
    if array.size == 0 and array.dtype.kind in "iuf":
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise PointerError(f"{name} has dtype {array.dtype}; integers are expected")
    if array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
        raise PointerError(f"{name} holds {int(array.max())}, more than int64 can")
    return np.ascontiguousarray(array, dtype=np.int64)


def as_user_ids(values: ArrayLike, name: str) -> UserIds:
    """Flat column of user ids: int64 from integers that fit, or strings from str.

    Raises:
        PointerError: for another shape or type, or a value that int64 cannot hold.

    """
    strings = parse_strings(values, name)
    return as_int64(values, name) if strings is None else strings


class Pointers:
    """A batch of versioned pointers.

    Args:
        user_id: int64[B], or B strings (kept as a numpy array of ``StringDType``), as the store's ids are; or a single
            id.
        version: int64[B], 0 or more; ``v`` names the first ``v`` events of the history.
        last_ts: int64[B] in the store's time unit, the ``ts`` of event ``version - 1``, by which a read
            proves that it rebuilt the right prefix; None: the read proves nothing. Of version 0 it is 0.

    Raises:
        PointerError: for unequal lengths, other types, or a negative version.

    """

    __slots__ = ("last_ts", "user_id", "version")

    user_id: UserIds
    version: Int64s
    last_ts: Int64s | None

    def __init__(self, user_id: ArrayLike, version: ArrayLike, last_ts: ArrayLike | None = None) -> None:
        self.user_id = as_user_ids(user_id, "user_id")
        self.version = as_int64(version, "version")
        self.last_ts = None if last_ts is None else as_int64(last_ts, "last_ts")
        lengths = {len(self.user_id), len(self.version)}
        if self.last_ts is not None:
            lengths.add(len(self.last_ts))
        if len(lengths) > 1:
            raise PointerError(
                f"pointer columns have unequal lengths: user_id {len(self.user_id)}, version "
                f"{len(self.version)}" + ("" if self.last_ts is None else f", last_ts {len(self.last_ts)}")
            )
        if len(self.version) and int(self.version.min()) < 0:
            at = int(np.argmax(self.version < 0))
            raise PointerError(f"row {at}: version {int(self.version[at])} is negative; versions start at 0")

    def __len__(self) -> int:
        return len(self.user_id)

    def __getitem__(self, rows: Any) -> Pointers:
        """Pointers of these rows: an int, a slice, or an array of indices or booleans."""
        if isinstance(rows, int | np.integer):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of {len(self)} pointers")
            rows = slice(rows, rows + 1 or None)
        some = Pointers.__new__(Pointers)  # rows of what was checked need no check
        some.user_id = np.ascontiguousarray(self.user_id[rows])
        some.version = np.ascontiguousarray(self.version[rows])
        some.last_ts = None if self.last_ts is None else np.ascontiguousarray(self.last_ts[rows])
        if some.version.ndim != 1:
            raise PointerError(f"rows have shape {some.version.shape}; a flat array of indices or booleans is expected")
        return some

    def __add__(self, other: Pointers) -> Pointers:
        return Pointers.concat([self, other])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pointers):
            return NotImplemented
        if (self.last_ts is None) != (other.last_ts is None):
            return False
        same = equal_ids(self.user_id, other.user_id) and np.array_equal(self.version, other.version)
        if self.last_ts is None or other.last_ts is None:
            return same
        return same and np.array_equal(self.last_ts, other.last_ts)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Pointers({len(self)} rows{'' if self.last_ts is not None else ', no last_ts'})"

    @classmethod
    def concat(cls, parts: Iterable[Pointers]) -> Pointers:
        """All rows of all parts, in order. ``last_ts`` is kept if every part has it."""
        parts = list(parts)
        if not parts:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))
        last = [part.last_ts for part in parts if part.last_ts is not None]
        return cls(
            concat_ids([part.user_id for part in parts]),
            np.concatenate([part.version for part in parts]),
            np.concatenate(last) if len(last) == len(parts) else None,
        )

    @classmethod
    def from_arrow(cls, table: pa.Table | pa.RecordBatch) -> Pointers:
        """Pointers from the columns ``user_id``, ``version`` and, if there, ``last_ts``.

        Raises:
            PointerError: for a column that is missing or there twice, nulls, or a type that is not an integer, nor, of
                ``user_id``, a string.

        """
        columns: dict[str, NDArray[Any]] = {}
        for name in ("user_id", "version", "last_ts"):
            if name not in table.schema.names:
                if name == "last_ts":
                    continue
                raise PointerError(
                    f"no column {name!r} among {table.schema.names}; logged or resolved pointers have "
                    "user_id, version and last_ts"
                )
            if table.schema.names.count(name) > 1:
                raise PointerError(
                    f"column {name!r} stands more than once among {table.schema.names}; names are unique"
                )
            column = table.column(name)
            if column.null_count:
                raise PointerError(f"column {name!r} has {column.null_count} nulls; pointers have none")
            strings = parse_strings(column, name) if name == "user_id" else None
            if strings is not None:
                columns[name] = strings
            else:
                columns[name] = column.to_numpy(zero_copy_only=False) if len(column) else np.empty(0, np.int64)
        return cls(columns["user_id"], columns["version"], columns.get("last_ts"))

    def pack(self) -> bytes:
        """24 bytes a pointer, for logs: ``user_id``, ``version`` and ``last_ts`` as little-endian int64, back to back.

        Raises:
            PointerError: without ``last_ts``, or for user ids that are not int64.

        """
        if self.last_ts is None:
            raise PointerError(
                "these pointers have no last_ts, which a packed pointer holds; take them from a snapshot"
            )
        if getattr(self.user_id, "dtype", None) != np.int64:
            raise PointerError("only pointers of int64 user ids pack into 24 bytes; log to_arrow() instead")
        words = np.stack([self.user_id, self.version, self.last_ts], axis=1)
        return words.astype(_PACKED).tobytes()

    @classmethod
    def from_packed(cls, packed: bytes | bytearray | memoryview) -> Pointers:
        """Pointers from what :meth:`pack` gave, one or more of them back to back.

        Raises:
            PointerError: for a length that is not a multiple of 24, or a negative version.

        """
        data = memoryview(packed).cast("B")
        if len(data) % PACKED_BYTES:
            raise PointerError(f"{len(data)} bytes given; packed pointers are {PACKED_BYTES} bytes each")
        words = np.frombuffer(data, _PACKED).reshape(-1, 3).astype(np.int64)
        return cls(words[:, 0].copy(), words[:, 1].copy(), words[:, 2].copy())

    def to_arrow(self) -> pa.Table:
        """Arrow table with ``user_id`` (int64 or large_string), ``version`` and, if known, ``last_ts`` (int64)."""
        import pyarrow as pa

        columns = {"user_id": to_arrow(self.user_id), "version": self.version}
        if self.last_ts is not None:
            columns["last_ts"] = self.last_ts
        return pa.table(columns)
