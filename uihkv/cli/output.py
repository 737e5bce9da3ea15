"""What a command says: a table for people or one JSON object for machines, and a bar while it works.

Answers go to standard output; the bar goes to standard error, and only where that is a terminal. Tables fit 80
columns where the output is not a terminal, and the terminal's width where it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own."""
    typer.echo(json.dumps(answer, default=_plain, allow_nan=False, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Values that JSON does not know: paths, and numpy's scalars and arrays."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(table: Table) -> None:
    """Print a table under its title, which may take the output's width, however narrow the table is."""
    console = Console(highlight=False, markup=False)  # names of files and columns are no markup
    if table.title is not None:
        console.print(Text(str(table.title), style="table.title"), overflow="fold")
        table.title = None
    console.print(table)


def fits(table: Table) -> bool:
    """Whether a table's longest lines fit the output's width."""
    console = Console()
    wide = console.options.update(max_width=1 << 16)
    return Measurement.get(console, wide, table).maximum <= console.width


def print_records(title: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Print records one below the other, a line a field: for what is too wide for a table."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(title)
    width = max((len(name) for record in records for name in record), default=0)
    for record in records:
        console.print()
        for name, value in record.items():
            console.print(f"{name:>{width}}  {value}")


def fact_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Names and values, a row each; values are shown by :func:`show_value`."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), show_value(name, value))
    return table


def show_value(name: str, value: Any) -> str:
    """A fact as people read it; the name says whether a number counts bytes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, int | float) and "bytes" in name:
        return show_bytes(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)


def show_bytes(size: float) -> str:
    """``1234567`` as ``1.23 MB``; units are decimal."""
    if size < 1000:
        return f"{size:,.0f} B" if size == int(size) else f"{size:,.1f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:,.2f} {unit}"
    return f"{size / 1000:,.2f} TB"


class Update(Protocol):
    """Moves a bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` steps are done; ``note`` stands behind the bar."""


@contextmanager
def progress_bar(what: str, note: str = "") -> Iterator[Update]:
    """A bar on standard error while inside; nothing where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total, note="": None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    ) as bars:
        task = bars.add_task(what, total=None, note=note)

        def update(done: int, total: int, note: str = "") -> None:
            bars.update(task, completed=done, total=total, note=note)

        yield update
