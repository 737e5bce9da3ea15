"""``uihkv show``: the newest events of one user."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fits, print_json, print_records, print_table
from uihkv.cli.stores import open_store
from uihkv.cli.users import parse_user
from uihkv.dtypes import BFLOAT16, CODED, bfloat16_to_float32
from uihkv.errors import PointerError, SchemaError
from uihkv.histories import Histories
from uihkv.pointers import Pointers
from uihkv.projection import Projection
from uihkv.schema import TS, VISIBLE_AT, Schema
from uihkv.store import Store

CLOCKS = (TS, VISIBLE_AT)
MAX_ELEMENTS = 6
"""Elements of a list that are shown; the rest are counted."""


def show(
    store: StorePath,
    user: Annotated[
        str, typer.Argument(metavar="USER", help="A user's id; write -- before one below 0.", show_default=False)
    ],
    version: Annotated[
        int | None, typer.Option(min=0, metavar="V", help="Show the history as of this version, not all of it.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="Events, the newest.")] = 20,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Columns beside the clocks; without it, all.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the newest events of a user, oldest first.

    Each event has its version (a pointer with this version sees the event and
    all above it), ts (when it happened) and visible_at (when it became
    readable), in ticks of the store's unit and as UTC. A user without events
    has an empty history, which is no error.

    Example: uihkv show store 42 --last 5 --columns item_id
    """
    with open_store(store) as opened:
        names = _choose_columns(opened.schema, columns)
        user_id = parse_user(opened.schema, user)
        head, histories = _read(opened, user_id, version, last, names)
        shown = head if version is None else version
        unit = opened.schema.time_unit
    events = _events(histories, names, shown, unit)
    if json:
        print_json({"user_id": user_id, "version": shown, "head": head, "time_unit": unit, "events": events})
        return
    if not shown:
        typer.echo(f"user {user_id} has no events" + (" in version 0" if head else ""))
        return
    title = f"user {user_id}, version {shown:,}" + (f" of {head:,}" if shown != head else "")
    table = _table(title, events, names)
    if fits(table):
        print_table(table)
    else:
        print_records(title, events)


def _choose_columns(schema: Schema, columns: str | None) -> tuple[str, ...]:
    """Columns to show beside the clocks."""
    if columns is None:
        return schema.names
    names = tuple(name.strip() for name in columns.split(",") if name.strip())
    for name in names:
        if name not in schema.readable:
            raise SchemaError(f"no column {name!r}; the store has {', '.join(schema.readable)}")
    return tuple(name for name in dict.fromkeys(names) if name not in CLOCKS)


def _read(
    store: Store, user: int | str, version: int | None, last: int, names: tuple[str, ...]
) -> tuple[int, Histories]:
    """The user's head, and the newest events of the version."""
    with store.snapshot() as snapshot:
        head = int(snapshot.head([user]).version[0])
        if version is not None and version > head:
            raise PointerError(f"user {user} has {head} events; --version {version} is past them")
        pointers = Pointers([user], [head if version is None else version])
        return head, snapshot.read(pointers, Projection([*CLOCKS, *names], max_len=last), on_trimmed="truncate")


def _events(histories: Histories, names: tuple[str, ...], version: int, unit: str) -> list[dict[str, Any]]:
    """An event each, as plain values: its version, both clocks in ticks and UTC, and its columns."""
    n = int(histories.offsets[-1])
    events: list[dict[str, Any]] = [{"version": version - n + row + 1} for row in range(n)]
    for clock in CLOCKS:
        ticks = histories.values(clock)
        for event, tick, moment in zip(events, ticks.tolist(), show_moments(ticks, unit), strict=True):
            event |= {clock: tick, f"{clock}_utc": moment}
    for name in names:
        values, lists = _plain_values(histories, name), histories.element_offsets(name)
        if lists is not None and histories.dtype(name) not in CODED:
            values = [values[low:high] for low, high in zip(lists[:-1].tolist(), lists[1:].tolist(), strict=True)]
        for event, value in zip(events, values, strict=True):
            event[name] = value
    return events


def _plain_values(histories: Histories, name: str) -> list[Any]:
    """Values of a column as JSON knows them; bytes as text, escaped where they are none."""
    dtype = histories.dtype(name)
    if dtype == BFLOAT16:
        numbers: list[Any] = bfloat16_to_float32(histories.values(name)).tolist()
        return numbers
    if dtype in CODED:
        stored = histories.strings(name).to_pylist()
        return [value.decode(errors="backslashreplace") if isinstance(value, bytes) else value for value in stored]
    plain: list[Any] = histories.values(name).tolist()
    return plain


def show_moments(ticks: NDArray[np.int64], unit: str) -> list[str]:
    """Ticks of a unit since 1970 as UTC, such as ``2024-05-01T12:00:00.250``."""
    moments: list[str] = np.datetime_as_string(ticks.astype(f"datetime64[{unit}]")).tolist()
    return moments


def _table(title: str, events: list[dict[str, Any]], names: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("version", justify="right")
    for clock in CLOCKS:
        table.add_column(clock)
    for name in names:
        table.add_column(name, justify="right")
    for event in events:
        clocks = [f"{event[clock]}\n{event[f'{clock}_utc']}" for clock in CLOCKS]
        table.add_row(str(event["version"]), *clocks, *(show_cell(event[name]) for name in names))
    return table


def show_cell(value: Any) -> str:
    """A value of a column; of long lists the first elements and how many there are."""
    if isinstance(value, list):
        more = f", … {len(value)} in all" if len(value) > MAX_ELEMENTS else ""
        return f"[{', '.join(map(show_cell, value[:MAX_ELEMENTS]))}{more}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
