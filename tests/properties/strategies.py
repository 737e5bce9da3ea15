"""Logs that hypothesis makes: everything that a schema allows, and the moments at which histories go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from uihkv import Column, Projection, Schema
from uihkv.dtypes import CODED, DTYPES, element_type

USERS = (-(2**63), -5, -1, 0, 1, 7, 10**12, 2**63 - 1)
"""Few, so that histories grow; at the ends of int64, so that keys and hashes are put to the test."""

STRANGER = 99
"""A user who never has an event."""

NAMED_USERS = ("a", "b", "7", "-1", "user 1234567890", "Ω\0", "é" * 240, "x" * 480)
"""The same for string ids: as short and as long as they may be, and whatever bytes."""

NAMED_STRANGER = "nobody"

MOMENTS = st.one_of(st.integers(0, 30), st.sampled_from([0, 1000, 10**12, 2**62, 2**63 - 1]))
"""Times: close together, so that ties and late events are the rule, and now and then far off."""


TEXTS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from(["", "click", "Ω", "\0"]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    "bytes": st.sampled_from([b"", b"\0", b"\xff" * 20]) | st.binary(max_size=9),
}
"""Few values, so that they repeat, and any."""


def users_of(schema: Schema) -> tuple[Any, ...]:
    return USERS if schema.user_id == "int64" else NAMED_USERS


def stranger_of(schema: Schema) -> Any:
    return STRANGER if schema.user_id == "int64" else NAMED_STRANGER


@dataclass(frozen=True)
class Batch:
    """One append: its rows as numpy arrays and lists, and the form in which the store gets them."""

    rows: dict[str, Any]
    visible_at: np.ndarray | None
    form: str

    @property
    def backfill(self) -> bool:
        return self.visible_at is None

    def given(self, schema: Schema) -> Any:
        if self.form == "rows":
            return self.rows
        if self.form == "pairs":
            return {name: as_pair(schema[name], v) if is_varying(schema, name) else v for name, v in self.rows.items()}
        return pa.table({name: as_arrow(schema, name, values) for name, values in self.rows.items()})


def is_varying(schema: Schema, name: str) -> bool:
    return name in schema and schema[name].varying


def as_pair(column: Column, lists: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Elements of all lists, and where each begins."""
    if column.coded:
        lists = [np.frombuffer(part.encode() if isinstance(part, str) else part, np.uint8) for part in lists]
    offsets = np.array([0, *accumulate(map(len, lists))], np.int64)
    return np.concatenate([np.empty(0, column.numpy_dtype), *lists]).astype(column.numpy_dtype), offsets


def as_arrow(schema: Schema, name: str, values: Any) -> pa.Array:
    if name in schema and schema[name].coded:
        return pa.array(values, pa.string() if schema[name].dtype == "string" else pa.large_binary())
    if is_varying(schema, name):
        elements, offsets = as_pair(schema[name], values)
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(elements))
    if name not in schema or not schema[name].shape:
        return pa.array(values)
    nested = pa.array(values.reshape(-1))
    for extent in reversed(schema[name].shape):
        nested = pa.FixedSizeListArray.from_arrays(nested, extent)
    return nested


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    dtype = draw(st.sampled_from([*DTYPES, *CODED]))
    if dtype in CODED:
        return Column(name, dtype, default=draw(st.sampled_from([None, "é" if dtype == "string" else b"\xff\0"])))
    form = draw(st.sampled_from(["plain", "plain", "shape", "ragged"]))
    if form == "ragged":
        return Column(name, dtype, ragged=True, default=draw(st.sampled_from([None, ()])))
    shape = draw(st.sampled_from([(1,), (3,), (2, 2)])) if form == "shape" else ()
    default = draw(st.sampled_from([None, {"b": True, "f": -0.5}.get(element_type(dtype).kind, 7)]))
    return Column(name, dtype, shape=shape, default=default)


@st.composite
def schemas(draw: st.DrawFn, user_ids: tuple[str, ...] = ("int64",)) -> Schema:
    drawn = [draw(columns(name)) for name in ("a", "b", "c")[: draw(st.integers(1, 3))]]
    return Schema(drawn, user_id=draw(st.sampled_from(user_ids)))


@st.composite
def batches(draw: st.DrawFn, schema: Schema, max_rows: int = 20) -> Batch:
    n = draw(st.integers(0, max_rows))
    users = draw(st.lists(st.sampled_from(users_of(schema)), min_size=1, max_size=3))
    ids = draw(st.lists(st.sampled_from(users), min_size=n, max_size=n))
    rows: dict[str, Any] = {
        "user_id": np.array(ids, np.int64 if schema.user_id == "int64" else np.dtypes.StringDType()),
        "ts": draw(hnp.arrays(np.int64, n, elements=MOMENTS)),
    }
    for column in schema.columns:
        if column.default is not None and draw(st.booleans()):
            continue
        if column.coded:
            rows[column.name] = draw(st.lists(TEXTS[column.dtype], min_size=n, max_size=n))
        elif column.ragged:
            counts = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 4)))
            elements = draw(hnp.arrays(column.numpy_dtype, int(counts.sum())))
            rows[column.name] = np.split(elements, np.cumsum(counts)[:-1]) if n else []
        else:
            rows[column.name] = draw(hnp.arrays(column.numpy_dtype, (n, *column.shape)))
    visible_at = draw(st.one_of(st.none(), hnp.arrays(np.int64, n, elements=MOMENTS)))
    return Batch(rows, visible_at, draw(st.sampled_from(["rows", "pairs", "arrow"])))


@st.composite
def projections(draw: st.DrawFn, schema: Schema) -> Projection:
    names = draw(st.one_of(st.none(), st.lists(st.sampled_from(schema.readable), min_size=1, unique=True)))
    return Projection(names, draw(st.one_of(st.none(), st.integers(1, 12), st.just(10**6))))
