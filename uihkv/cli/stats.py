"""``uihkv stats``: what a store holds, and where its bytes go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table, show_bytes
from uihkv.cli.stores import open_store
from uihkv.maintenance import StorageDetails


def stats(
    store: StorePath,
    details: Annotated[
        bool, typer.Option("--details", help="Also where every byte goes; reads every chunk's header.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw lengths, late arrivals and bytes: .png, .svg or .pdf."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what a store holds.

    Users, events, chunks and bytes, counted over all shards; how long the
    histories are; how evenly shards are filled. Nothing is written, and
    writers need not stop. --plot reads both clocks of up to eight million
    events, of users evenly taken.

    Examples: uihkv stats store --details
              uihkv stats store --plot store.png
    """
    if plot is not None:
        from uihkv.cli.picture import SUFFIXES, draw_store
        from uihkv.portrait import take_portrait

        if plot.suffix.lower() not in SUFFIXES:
            raise typer.BadParameter(f"{plot} does not end in {', '.join(SUFFIXES)}", param_hint="--plot")
    with open_store(store) as opened:
        found = opened.stats(details=details or plot is not None)
        if plot is not None:
            with opened.snapshot() as snapshot:
                portrait = take_portrait(snapshot, found.events)
            draw_store(store.resolve().name, found, portrait, plot)
    facts = found.describe()
    if not details:
        facts.pop("details", None)
    if json:
        print_json({**facts, **({"picture": plot} if plot is not None else {})})
        return
    facts.pop("details", None)
    print_table(fact_table(f"{store}", facts))
    if plot is not None:
        typer.echo(f"picture: {plot}")
    if details and found.details is not None:
        _print_details(found.details, found.bytes, found.events)


def _print_details(details: StorageDetails, total: int, events: int) -> None:
    accounts = {f"column {name}": size for name, size in details.columns.items()}
    for name in ("header", "key", "node", "branch", "gap", "free", "other"):
        accounts[name] = getattr(details, f"{name}_bytes")
    table = Table(title="where the bytes are", title_justify="left")
    for title in ("account", "bytes", "share", "an event"):
        table.add_column(title, justify="left" if title == "account" else "right")
    for name, size in accounts.items():
        each = f"{size / events:.2f}" if events else "-"
        table.add_row(name, show_bytes(size), f"{100 * size / total:.1f} %", each)
    print_table(table)
    table = Table(title="how blocks are encoded", title_justify="left")
    for title in ("encoding", "blocks", "bytes"):
        table.add_column(title, justify="left" if title == "encoding" else "right")
    for name, counts in details.encodings.items():
        table.add_row(name, f"{counts['blocks']:,}", show_bytes(counts["bytes"]))
    table.add_row("of these in LZ4", "", show_bytes(details.lz4_bytes))
    print_table(table)
