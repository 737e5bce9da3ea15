"""``uihkv ingest``: event files into a store."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store
from uihkv.manifest import MAX_SHARDS
from uihkv.schema import Schema
from uihkv.store import Store

STAGES = {"check": "checking values", "group": "grouping by user", "write": "storing events"}


class EventFormat(StrEnum):
    """Formats of event files."""

    parquet = "parquet"
    arrow = "arrow"
    csv = "csv"


def ingest(
    store: StorePath,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Event files, or folders of them.", show_default=False),
    ],
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Count the rows under this name: run again, it goes on where it stopped."),
    ] = None,
    format: Annotated[
        EventFormat | None,
        typer.Option(help="Of all files; without it, each file's suffix or first bytes tell.", show_default=False),
    ] = None,
    order_by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Integers or times that give the arrival order; without it, rows do."),
    ] = None,
    visible_at: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="When an event became readable; without it, at its ts."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="GIVEN=NAME", help="A column's name in the files, and in the store; may be repeated."),
    ] = None,
    batch_rows: Annotated[int, typer.Option(min=1, metavar="N", help="Rows an append: memory holds one.")] = 1 << 18,
    processes: Annotated[int, typer.Option(min=1, metavar="N", help="That share the work, up to one a shard.")] = 1,
    scratch: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For rows grouped by user; else beside the store.", show_default=False),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Build a new store, of these columns, as for create.")
    ] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, max=MAX_SHARDS, metavar="N", help="Of a new store; without it, 16.")
    ] = None,
    json: Json = False,
) -> None:
    """Put the events of Parquet, Arrow and CSV files into a store.

    Rows arrive in their order, file after file, or in that of --order-by: they
    are then sorted on disk, however large the files. A file has user_id, ts and
    the store's columns, of which those with a default may be missing; others
    are left alone. All values are checked before the first is stored, so that
    bad rows leave the store as it was. With --source an interrupted ingest can
    be run again and stores nothing twice.

    With --schema the store is new and built aside: rows are grouped by user
    on disk first, so that a log larger than memory loads at full speed. It
    appears under its path when all is stored, whole, or not at all.

    Examples: uihkv ingest store events.parquet --source clicks
              uihkv ingest store log/ --schema schema.toml --processes 8
    """
    names = parse_names(rename, "--rename")
    from uihkv.ingest import IngestProgress
    from uihkv.ingest import ingest as ingest_files

    with _open(store, schema, shards) as opened, progress_bar("ingest", "a first run compiles kernels") as bar:

        def report(at: IngestProgress) -> None:
            bar(at.rows, at.total, f"{STAGES[at.stage]}, {at.file.name}")

        result = ingest_files(
            opened, files, format=format.value if format else None, visible_at=visible_at, order_by=order_by,
            rename=names, source=source, batch_rows=batch_rows, processes=processes, scratch=scratch, progress=report,
        )  # fmt: skip
    if json:
        print_json(result.describe())
    else:
        print_table(fact_table(f"ingested into {store}", result.describe()))


def _open(path: Path, schema: Path | None, shards: int | None) -> AbstractContextManager[Store]:
    """The store that is there, or one that is built."""
    if schema is None:
        if shards is not None:
            raise typer.BadParameter(
                "a store that is there keeps its shards; it goes with --schema", param_hint="--shards"
            )
        return open_store(path, readonly=False)
    return Store.build(path, Schema.from_toml(schema), 16 if shards is None else shards)


def parse_names(pairs: list[str] | None, option: str) -> dict[str, str]:
    """``author=user_id``, … of an option as names by names."""
    names: dict[str, str] = {}
    for pair in pairs or []:
        given, equals, name = pair.partition("=")
        if not (given and equals and name):
            raise typer.BadParameter(f"{pair!r} is not GIVEN=NAME, as in author=user_id", param_hint=option)
        if given in names:
            raise typer.BadParameter(f"{given!r} is given two names", param_hint=option)
        names[given] = name
    return names
