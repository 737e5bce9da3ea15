"""A batch of events in the schema's own types, and how a user's arrays become one.

Parsing is where bad input is refused, whole and before anything is written: what passes here is trusted by
everything below. Integer columns take integers that fit, float columns take floats and integers that they can
hold exactly, bool columns take bools; nothing is cast with loss. ``bfloat16`` columns take the uint16 of their bits,
arrays of a type of that name, and floats that they can hold exactly. What ``bytes`` and ``string`` columns take stands
in :mod:`uihkv.texts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv.chunk import MAX_EVENT_RAW_BYTES
from uihkv.distinct import as_bytes
from uihkv.dtypes import BFLOAT16, bfloat16_to_float32, float32_to_bfloat16
from uihkv.errors import SchemaError
from uihkv.names import BatchNames, parse_names
from uihkv.schema import TS, USER_ID, VISIBLE_AT, Column, Schema
from uihkv.texts import parse_texts
from uihkv.userids import STRING

Int64s = NDArray[np.int64]
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Events:
    """Events of any users, one row each.

    Attributes:
        user_id, ts, visible_at: int64[n]; ``visible_at`` may still be empty when it comes from the clock.
        columns: ``[n, *shape]`` by name, C-contiguous; of varying columns (ragged, ``bytes`` and ``string``) the
            elements of all events.
        lists: int64[n+1], by name, where the elements of each event of a varying column begin; from 0.
        names: of parsed events of a store with string user ids: whose they are. ``user_id`` is then the hashes, which
            say the shard; a shard puts its numbers in their place.

    """

    user_id: Int64s
    ts: Int64s
    visible_at: Int64s
    columns: Mapping[str, Array]
    lists: Mapping[str, Int64s]
    names: BatchNames | None = None

    def __len__(self) -> int:
        return len(self.user_id)

    def take(self, rows: Int64s) -> Events:
        """These rows, in this order."""
        from uihkv.kernels.plan import gather_lists

        columns: dict[str, Array] = {}
        lists: dict[str, Int64s] = {}
        for name, values in self.columns.items():
            offsets = self.lists.get(name)
            if offsets is None:
                columns[name] = values[rows]
                continue
            moved = np.zeros(len(rows) + 1, np.int64)
            np.cumsum((offsets[1:] - offsets[:-1])[rows], out=moved[1:])
            elements = np.empty(int(moved[-1]), values.dtype)
            width = values.dtype.itemsize
            gather_lists(values.view(np.uint8), offsets, rows, moved, width, elements.view(np.uint8))
            columns[name], lists[name] = elements, moved
        names = None if self.names is None else self.names.take(rows)
        return Events(self.user_id[rows], self.ts[rows], self.visible_at[rows], columns, lists, names)

    @classmethod
    def concat(cls, first: Events, second: Events) -> Events:
        """The rows of both, in order; without names: of events that have their shard's numbers."""
        columns = {name: np.concatenate([first.columns[name], values]) for name, values in second.columns.items()}
        lists = {
            name: np.concatenate([first.lists[name], offsets[1:] + first.lists[name][-1]])
            for name, offsets in second.lists.items()
        }
        return cls(
            np.concatenate([first.user_id, second.user_id]),
            np.concatenate([first.ts, second.ts]),
            np.concatenate([first.visible_at, second.visible_at]),
            columns,
            lists,
        )


def parse_events(schema: Schema, data: Any, visible_at: Any) -> Events:
    """Events from a mapping of arrays, or from an Arrow table or record batch.

    Args:
        schema: what the store holds.
        data: columns by name: ``user_id``, ``ts`` and the schema's. Ragged columns are a list (or object array)
            of lists, an Arrow list column, or a pair ``(values, offsets)``; columns of fixed shape are
            ``[n, *shape]`` or nested Arrow fixed-size lists; ``bytes`` and ``string`` columns are a list or array
            of str or bytes, an Arrow column, or a pair ``(values, offsets)`` of numpy arrays.
        visible_at: int64[n] in the time unit, ascending or not; None: the caller fills it in.

    Raises:
        SchemaError: naming the column, what was found and what was expected.

    """
    given = _columns_of(data)
    unknown = set(given) - {USER_ID, TS, *schema.names}
    if unknown:
        hint = "; pass visible times as append(..., visible_at=...)" if VISIBLE_AT in unknown else ""
        raise SchemaError(
            f"unknown columns {sorted(unknown, key=str)}; the store has user_id, ts, {', '.join(schema.names)}{hint}"
        )
    for name in (USER_ID, TS):
        if name not in given:
            raise SchemaError(f"column {name!r} is missing; every event has a user_id and a ts")
    names = None
    if schema.user_id == STRING:
        names = parse_names(given[USER_ID])
        user_id = names.number[names.code]
    else:
        user_id = _parse_fixed(Column("_", "int64"), USER_ID, given[USER_ID], None)
    n = len(user_id)
    ts = _parse_time(TS, given[TS], n)
    visible = np.empty(0, np.int64) if visible_at is None else _parse_time(VISIBLE_AT, visible_at, n)
    columns: dict[str, Array] = {}
    lists: dict[str, Int64s] = {}
    for column in schema.columns:
        if column.name not in given:
            if column.default is None:
                raise SchemaError(f"column {column.name!r} is missing and has no default; give {column.dtype} values")
            if column.varying:
                columns[column.name] = as_bytes(column.default_bytes * n).view(column.numpy_dtype)
                lists[column.name] = len(column.default_bytes) * np.arange(n + 1)
            else:
                columns[column.name] = np.full((n, *column.shape), column.default_element, column.numpy_dtype)
        elif column.coded:
            columns[column.name], lists[column.name] = parse_texts(column.dtype, column.name, given[column.name], n)
        elif column.ragged:
            values, offsets = _parse_ragged(column, given[column.name], n)
            columns[column.name], lists[column.name] = values, offsets
        else:
            columns[column.name] = _parse_fixed(column, column.name, given[column.name], n)
    return Events(user_id, ts, visible, columns, lists, names)


def _columns_of(data: Any) -> dict[str, Any]:
    if isinstance(data, Mapping):
        return dict(data)
    names = getattr(getattr(data, "schema", None), "names", None)
    if names is not None and hasattr(data, "column"):
        if len(set(names)) != len(names):
            raise SchemaError(f"column names {names} are not unique")
        return {name: data.column(index) for index, name in enumerate(names)}
    raise SchemaError(f"{type(data).__name__} given; a mapping of numpy arrays or an Arrow table is expected")


def _is_arrow(values: Any) -> bool:
    return type(values).__module__.split(".")[0] == "pyarrow"


def _from_arrow(name: str, values: Any) -> Any:
    """An Arrow column as one array without nulls."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
        if isinstance(values, pa.ChunkedArray):  # older pyarrow keeps an empty one chunked
            values = pa.array([], values.type)
    if values.null_count:
        row = values.is_null().index(True).as_py()
        raise SchemaError(f"column {name!r}: row {row} is null; fill or drop nulls before appending")
    return values


def _parse_time(name: str, values: Any, n: int) -> Int64s:
    times = _parse_fixed(Column("_", "int64"), name, values, n)
    if n and int(times.min()) < 0:
        row = int(np.argmax(times < 0))
        raise SchemaError(f"column {name!r}: row {row} is {int(times[row])}; times are 0 or more")
    return times


def _parse_fixed(column: Column, name: str, values: Any, n: int | None) -> Array:
    if _is_arrow(values):
        values = _arrow_to_numpy(column, name, _from_arrow(name, values))
    _check_unmasked(name, [values])
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise SchemaError(f"column {name!r}: rows of unequal shape ({error})") from None
    except (TypeError, RuntimeError) as error:  # of a tensor of another device, of a type that numpy lacks, and so on
        raise SchemaError(f"column {name!r}: {type(values).__name__} given that is no array here ({error})") from None
    shape = column.shape
    if array.ndim == 0 or array.shape[1:] != shape or (n is not None and len(array) != n):
        expected = f"({'n' if n is None else n}, {', '.join(map(str, shape))})".replace(", )", ",)")
        raise SchemaError(
            f"column {name!r} has shape {array.shape}, {expected} is expected; all columns of a batch "
            "have one row an event"
        )
    return _cast_column(column, array, name)


def _check_unmasked(name: str, arrays: Iterable[Any]) -> None:
    if any(isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array) for array in arrays):
        raise SchemaError(f"column {name!r}: some values are masked; fill or drop them")


def _arrow_to_numpy(column: Column, name: str, values: Any) -> Array:
    import pyarrow as pa

    depth = 0
    lengths: list[int] = []
    while pa.types.is_fixed_size_list(values.type):
        lengths.append(values.type.list_size)
        values = _from_arrow(name, values.flatten())
        depth += 1
    if pa.types.is_nested(values.type):
        if column.shape and (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
            uniform = np.diff(values.offsets.to_numpy())
            size = int(np.prod(column.shape))
            if (uniform != size).any():
                raise SchemaError(f"column {name!r}: lists are not all of {size} elements")
            flat = _from_arrow(name, values.flatten())
            plain: Array = flat.to_numpy(zero_copy_only=False)
            return plain.reshape(-1, *column.shape)
        raise SchemaError(
            f"column {name!r}: Arrow type {values.type} given, {column.dtype} of shape {column.shape} expected"
        )
    if pa.types.is_timestamp(values.type) or pa.types.is_duration(values.type):
        raise SchemaError(f"column {name!r}: Arrow type {values.type} given; cast it to int64 in the store's time unit")
    array: Array = values.to_numpy(zero_copy_only=False)
    if lengths == [int(np.prod(column.shape))] and len(column.shape) != 1:
        lengths = list(column.shape)
    return array.reshape(-1, *lengths) if depth else array


def _parse_ragged(column: Column, values: Any, n: int) -> tuple[Array, Int64s]:
    name = column.name
    if _is_arrow(values):
        import pyarrow as pa

        values = _from_arrow(name, values)
        if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
            raise SchemaError(f"column {name!r}: Arrow type {values.type} given, a list type is expected")
        offsets = values.offsets.to_numpy().astype(np.int64)
        offsets = offsets - offsets[0]
        flat = _from_arrow(name, values.flatten()).to_numpy(zero_copy_only=False)
    elif isinstance(values, tuple) and len(values) == 2 and not np.isscalar(values[0]):
        _check_unmasked(name, values)
        flat, given = np.asarray(values[0]), np.asarray(values[1])
        if given.dtype.kind not in "iu" or given.ndim != 1 or len(given) == 0:
            raise SchemaError(f"column {name!r}: offsets are a flat array of n + 1 integers")
        offsets = given.astype(np.int64)
        if flat.ndim == 0:
            raise SchemaError(f"column {name!r}: {flat!r} given as the elements of all lists; a flat array is expected")
        if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(flat):
            raise SchemaError(f"column {name!r}: offsets begin at 0, never fall and end at the {len(flat)} elements")
    else:
        offsets, flat = _concatenate_lists(column, values)
    if len(offsets) - 1 != n:
        raise SchemaError(f"column {name!r} has {len(offsets) - 1} lists, {n} are expected")
    if flat.ndim != 1:
        raise SchemaError(f"column {name!r}: lists of shape {flat.shape[1:]} elements; lists are flat")
    elements = _cast_column(column, flat, name)
    longest = int(np.diff(offsets).max(initial=0)) * column.numpy_dtype.itemsize
    if longest > MAX_EVENT_RAW_BYTES:
        raise SchemaError(f"column {name!r}: a list of {longest} bytes; an event holds at most {MAX_EVENT_RAW_BYTES}")
    return elements, offsets


def _concatenate_lists(column: Column, values: Iterable[Any]) -> tuple[Int64s, Array]:
    """The one place where a Python object a row is taken: lists of lists have no faster form."""
    try:
        values = list(values)
        parts = [np.asarray(part) for part in values]
    except (TypeError, ValueError) as error:
        raise SchemaError(f"column {column.name!r}: not a list of flat lists ({error})") from None
    _check_unmasked(column.name, values)
    for row, part in enumerate(parts):
        if part.ndim != 1:
            raise SchemaError(f"column {column.name!r}: row {row} is not a flat list")
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    filled = [part for part in parts if len(part)]
    if len({part.dtype.kind == "b" for part in filled}) > 1:
        raise SchemaError(f"column {column.name!r}: some lists are of bools and some are not")
    return offsets, np.concatenate(filled) if filled else np.empty(0, column.numpy_dtype)


def _cast_column(column: Column, values: Array, name: str) -> Array:
    """Values in the column's type in memory."""
    return (
        cast_to_bfloat16(values, name) if column.dtype == BFLOAT16 else cast_exactly(values, column.numpy_dtype, name)
    )


def cast_to_bfloat16(values: Array, name: str) -> NDArray[np.uint16]:
    """Bit patterns of bfloat16, C-contiguous, of bit patterns, of an array of that type, or of exact floats.

    Raises:
        SchemaError: for another type, or a number that would change.

    """
    if values.dtype.name == BFLOAT16:
        return np.ascontiguousarray(values).view(np.uint16)
    if values.dtype == np.uint16:
        return np.ascontiguousarray(values)
    if values.dtype.kind != "f" and values.size:
        raise SchemaError(
            f"column {name!r}: {values.dtype} given; a bfloat16 column takes floats that it can hold exactly, or "
            "uint16, which are taken as bit patterns"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        narrow: NDArray[np.float32] = np.ascontiguousarray(values, dtype=np.float32)
        bits = float32_to_bfloat16(narrow)
        exact = (bfloat16_to_float32(bits) == values) | np.isnan(narrow)
    if not exact.all():
        row = int(np.argmin(exact.reshape(len(exact), -1).all(axis=1)))
        raise SchemaError(
            f"column {name!r}: row {row} is {values[row]!r}, which bfloat16 cannot hold exactly; round it yourself "
            "first, and give the bit patterns as uint16"
        )
    return bits


def cast_exactly(values: Array, dtype: np.dtype[Any], name: str) -> Array:
    """The same numbers in another type, C-contiguous.

    Raises:
        SchemaError: when the kinds do not fit or a number would change.

    """
    if values.dtype == dtype:
        return np.ascontiguousarray(values)
    kind = values.dtype.kind
    if values.size == 0 and kind in "iufb":
        return np.empty(values.shape, dtype)
    allowed = {"i": "iu", "u": "iu", "f": "iuf", "b": "b"}[dtype.kind]
    if kind not in allowed:
        nan = kind == "f" and bool(np.isnan(values).any())
        found = f"{values.dtype} with NaN" if nan else str(values.dtype)
        raise SchemaError(
            f"column {name!r}: {found} given, {dtype} is expected; nothing is cast with loss, so convert "
            "it yourself first"
        )
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        low, high = int(values.min()), int(values.max())
        if low < info.min or high > info.max:
            odd = low if low < info.min else high
            raise SchemaError(f"column {name!r}: {odd} does not fit {dtype}")
        return np.ascontiguousarray(values, dtype=dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        cast: Array = np.ascontiguousarray(values, dtype=dtype)
        if kind == "f":
            exact = (cast.astype(values.dtype) == values) | np.isnan(values)
        else:
            exact = _holds_integers(cast, values)
    if not exact.all():
        row = int(np.argmin(exact.reshape(len(exact), -1).all(axis=1)))
        raise SchemaError(
            f"column {name!r}: row {row} is {values[row]!r}, which {dtype} cannot hold exactly; convert it "
            f"yourself first, as in values.astype({dtype.name!r})"
        )
    return cast


def _holds_integers(cast: Array, values: Array) -> NDArray[np.bool_]:
    """Whether floats are exactly these integers, without a float going past the integers' range."""
    wide = cast.astype(np.float64)
    info = np.iinfo(values.dtype)
    inside = np.isfinite(wide) & (wide >= float(info.min)) & (wide < float(info.max) + 1.0)
    back = np.where(inside, wide, 0.0).astype(values.dtype)
    result: NDArray[np.bool_] = inside & (back == values)
    return result
