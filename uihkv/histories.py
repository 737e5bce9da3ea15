"""A batch of histories as flat columns.

Sequences of different lengths lie back to back in one array per column, with offsets that say where each
begins: the layout of jagged tensors. A :class:`Histories` is plain data in memory of its own; it outlives the
snapshot it was read from.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from uihkv.dtypes import BFLOAT16, CODED, STRING, bfloat16_to_float32, float32_to_bfloat16
from uihkv.errors import SchemaError

if TYPE_CHECKING:
    import pyarrow as pa

Values = NDArray[Any]
Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReadCost:
    """What a read has cost.

    Attributes:
        events: in the output.
        chunks_considered: chunks and tails that the plan looked at, once for each pointer that needs them.
        chunks_skipped: of these, ruled out by their zones or time bounds: nothing of them was decoded.
        chunks_read: different chunks and tails from which the output was decoded.
        bytes_read: of the stored blocks that the output's columns have in these.
        bytes_decoded: of the output's columns.

    """

    events: int
    chunks_considered: int
    chunks_skipped: int
    chunks_read: int
    bytes_read: int
    bytes_decoded: int


class Histories:
    """The sequences of B pointers, N events in all, oldest first.

    Attributes:
        offsets: int64[B+1]; the events of row ``b`` are ``[offsets[b], offsets[b+1])``.

    ``histories["item_id"]`` gives ``(values, offsets)`` with ``values: [N, *shape]``. A ragged column gives
    ``(values, offsets, element_offsets)``: ``values`` are the elements of all lists, and event ``n`` holds
    ``values[element_offsets[n]:element_offsets[n+1]]`` (``element_offsets: int64[N+1]``). So does a ``bytes`` or
    ``string`` column, with uint8 values; :meth:`strings` gives it as an Arrow array. A ``bfloat16`` column is the
    uint16 of its bits: ``torch.from_numpy(values).view(torch.bfloat16)``.

    """

    __slots__ = ("_columns", "_cost", "_dtypes", "_element_offsets", "_slab", "offsets")

    offsets: Int64s

    def __init__(
        self,
        offsets: Int64s,
        columns: Mapping[str, Values],
        element_offsets: Mapping[str, Int64s] | None = None,
        slab: NDArray[np.uint8] | None = None,
        cost: ReadCost | None = None,
        dtypes: Mapping[str, str] | None = None,
    ) -> None:
        self.offsets = offsets
        self._columns = dict(columns)
        self._element_offsets = dict(element_offsets or {})
        self._slab = slab
        self._cost = cost
        self._dtypes = dict(dtypes or {})

    def take_slab(self) -> NDArray[np.uint8] | None:
        """The memory that the columns lie in, for the next read to use; these histories are then empty of columns."""
        slab, self._slab = self._slab, None
        if slab is not None:
            self._columns, self._element_offsets = {}, {}
        return slab

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64s:
        """Events of each row: int64[B]."""
        return np.diff(self.offsets)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that were read."""
        return tuple(self._columns)

    @property
    def cost(self) -> ReadCost:
        """What the read has cost.

        Raises:
            SchemaError: for histories that no read made.

        """
        if self._cost is None:
            raise SchemaError("these histories were put together by hand; only a read has a cost")
        return self._cost

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = [self.offsets, *self._columns.values(), *self._element_offsets.values()]
        return sum(array.nbytes for array in arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __getitem__(self, name: str) -> tuple[Values, Int64s] | tuple[Values, Int64s, Int64s]:
        values = self.values(name)
        inner = self._element_offsets.get(name)
        return (values, self.offsets) if inner is None else (values, self.offsets, inner)

    def values(self, name: str) -> Values:
        """Values of all events of a column: ``[N, *shape]``; of a ragged column all its elements.

        Raises:
            SchemaError: for a column that was not read.

        """
        try:
            return self._columns[name]
        except KeyError:
            raise SchemaError(f"column {name!r} was not read; this projection has {', '.join(self._columns)}") from None

    def element_offsets(self, name: str) -> Int64s | None:
        """Where each event's list begins, int64[N+1]; None for columns that are not ragged."""
        self.values(name)
        return self._element_offsets.get(name)

    def dtype(self, name: str) -> str:
        """The column's type in the schema, such as ``"bfloat16"``, whose values are uint16 here, or ``"string"``.

        Raises:
            SchemaError: for a column that was not read.

        """
        known = self._dtypes.get(name)
        return self.values(name).dtype.name if known is None else known

    def strings(self, name: str) -> pa.LargeStringArray | pa.LargeBinaryArray:
        """A ``string`` or ``bytes`` column as an Arrow array of its N values, which shares their memory.

        Raises:
            SchemaError: for a column that was not read, or one of another type.

        """
        import pyarrow as pa

        dtype = self.dtype(name)
        if dtype not in CODED:
            raise SchemaError(f"column {name!r} is {dtype}; strings() is for columns of type {' and '.join(CODED)}")
        offsets = self._element_offsets[name]
        kind = pa.large_string() if dtype == STRING else pa.large_binary()
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.values(name))]
        return pa.Array.from_buffers(kind, len(offsets) - 1, buffers)

    def padded(self, name: str, length: int, value: Any = 0, side: Literal["left", "right"] = "left") -> Values:
        """Rectangle of the newest ``length`` events of each row.

        Args:
            name: a column that is not ragged.
            length: events a row, 1 or more.
            value: what fills rows that are shorter: a number that the column's type holds; of ``bfloat16`` a float.
            side: where the filling stands.

        Returns:
            ``[B, length, *shape]`` in the column's dtype.

        Raises:
            SchemaError: for a ragged or unread column, a length below 1, another side, or a value that does not fit.

        """
        values = self.values(name)
        if name in self._element_offsets:
            raise SchemaError(f"column {name!r} is ragged; pad its lists yourself from its element offsets")
        if isinstance(length, bool) or not hasattr(length, "__index__") or (length := operator.index(length)) < 1:
            raise SchemaError(f"length is {length!r}; a whole number of 1 or more is expected")
        if side not in ("left", "right"):
            raise SchemaError(f"side is {side!r}; 'left' or 'right' is expected")
        fill = _fill_value(values.dtype, value) if self.dtype(name) != BFLOAT16 else _bfloat16_value(value)
        kept = np.minimum(self.lengths, length)
        rows = np.repeat(np.arange(len(self)), kept)
        within = np.arange(int(kept.sum())) - np.repeat(np.cumsum(kept) - kept, kept)
        source = np.repeat(self.offsets[1:] - kept, kept) + within
        target = within + np.repeat(length - kept, kept) if side == "left" else within
        rectangle = np.full((len(self), length, *values.shape[1:]), fill, dtype=values.dtype)
        rectangle[rows, target] = values[source]
        return rectangle

    def __repr__(self) -> str:
        return f"Histories({len(self)} rows, {int(self.offsets[-1])} events, {', '.join(self._columns)})"


def _fill_value(dtype: np.dtype[Any], value: Any) -> Values:
    """One filling value in a column's own type.

    Raises:
        SchemaError: when it is not a single number, or would change.

    """
    try:
        given = np.asarray(value)
    except ValueError:
        given = np.empty(0)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if dtype.kind == "b" and given.ndim == 0 and given.dtype.kind in "iu" and int(given) in (0, 1):
        given = given.astype(bool)  # 0, the default, is False
    fits = given.ndim == 0 and given.dtype.kind in kinds
    if fits and dtype.kind in "iu":
        info = np.iinfo(dtype)
        fits = int(info.min) <= int(given) <= int(info.max)
    if not fits:
        raise SchemaError(f"value is {value!r}, which {dtype} cannot hold; give one that it can")
    return given.astype(dtype)


def _bfloat16_value(value: Any) -> Values:
    """One filling value in the bits of bfloat16."""
    number = _fill_value(np.dtype(np.float32), value)
    bits = float32_to_bfloat16(number.reshape(1))
    if not np.isnan(number) and bfloat16_to_float32(bits)[0] != number:
        raise SchemaError(f"value is {value!r}, which bfloat16 cannot hold; give one that it can")
    return bits.reshape(())
