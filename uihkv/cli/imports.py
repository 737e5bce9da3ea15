"""``uihkv import`` and ``uihkv import-git``: public logs, one's own, and repositories into a store."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.ingest import parse_names
from uihkv.cli.output import Update, fact_table, print_json, print_table, progress_bar
from uihkv.importers import FORMATS, ImportProgress, ImportResult, import_log
from uihkv.importers.storing import BATCH_ROWS, holds_something
from uihkv.manifest import MAX_SHARDS
from uihkv.schema import Schema
from uihkv.store import Store

Format = StrEnum("Format", list(FORMATS))  # type: ignore[misc]

BAR_STEPS = 1000


class Order(StrEnum):
    """What arrival order is."""

    time = "time"
    rows = "rows"


class OnBad(StrEnum):
    """What is done with bad lines."""

    raise_ = "raise"
    skip = "skip"


Shards = Annotated[int, typer.Option(min=1, max=MAX_SHARDS, metavar="N", help="Of a store that is made.")]
Source = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Count the events under this name: run again, it goes on where it stopped."),
]
BatchRows = Annotated[int, typer.Option(min=1, metavar="N", help="Events an append.")]


def import_(
    format: Annotated[
        Format, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.", show_default=False)
    ],
    store: StorePath,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="The log's files.", show_default=False)],
    shards: Shards = 16,
    source: Source = None,
    order: Annotated[
        Order | None,
        typer.Option(help="A user's events arrive by their ts, or as rows stand; without it, as suits the format."),
    ] = None,
    on_bad: Annotated[OnBad, typer.Option(help="Refuse the log for a bad line, or skip and count.")] = OnBad.raise_,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="jsonl: columns of a store that is made, as for create.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=NAME", help="jsonl: a field, dots where nested, and its column; may be repeated."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="UNIT", help="jsonl: what times are: s, ms, us, ns or iso; else the store's unit."),
    ] = None,
    visible_at: Annotated[
        str | None, typer.Option(metavar="FIELD", help="jsonl: when an event became readable; else at its ts.")
    ] = None,
    batch_rows: BatchRows = BATCH_ROWS,
    json: Json = False,
) -> None:
    """Put the events of a public log, or of JSON lines, into a store.

    The store is made if it is not there, with the format's columns. Every line
    is read and checked before the first event is stored; files ending in .gz
    are unpacked on the way. Logs that are in no order are sorted by time, in
    bounded memory, in a folder beside the store. With --source an interrupted
    import can be run again and stores nothing twice.

    Example: uihkv import movielens store ml-32m/ratings.csv --source ml
    """
    options: dict[str, Any] = {"rename": parse_names(rename, "--rename"), "time": time, "visible_at": visible_at}
    options = {name: value for name, value in options.items() if value}
    if format.value == "jsonl":
        options["columns"] = _find_schema(store, schema)
    elif schema is not None:
        raise typer.BadParameter("only jsonl takes a schema; the other formats have their own", param_hint="--schema")
    with progress_bar(f"import {format.value}", "a first run compiles kernels") as bar:
        result = import_log(
            format.value, store, files, source=source, shards=shards, order=order and order.value,  # type: ignore[arg-type]
            on_bad=on_bad.value, batch_rows=batch_rows, progress=_report_to(bar), **options,
        )  # fmt: skip
    _print_result(store, result, json)


def import_git(
    repository: Annotated[Path, typer.Argument(metavar="REPO", help="A git repository.", show_default=False)],
    store: StorePath,
    revision: Annotated[
        str, typer.Option(metavar="REV", help="What git log begins from: a branch, a tag, a commit.")
    ] = "HEAD",
    names: Annotated[
        bool, typer.Option("--names", help="Store addresses and paths as strings, not as numbers.")
    ] = False,
    shards: Shards = 16,
    source: Source = None,
    batch_rows: BatchRows = BATCH_ROWS,
    json: Json = False,
) -> None:
    """Put the history of a git repository into a store: who touched which file.

    The user is a commit's author, the item a file's path, both as numbers by
    first appearance, or with --names as they are. Author time is ts, committer
    time is when the event became visible. The store is made if it is not there.

    Example: uihkv import-git ~/src/linux store --source linux
    """
    from uihkv.importers import gitlog

    with progress_bar("import git", "git lists all commits first") as bar:
        result = gitlog.import_git(
            repository, store, revision=revision, names=names, source=source, shards=shards,
            batch_rows=batch_rows, progress=_report_to(bar),
        )  # fmt: skip
    _print_result(store, result, json)


def import_fat_rows(
    fat_rows: Annotated[
        list[Path],
        typer.Argument(metavar="FATROWS... STORE", help="Parquet files of fat rows, then a new store's folder."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The slim examples.", show_default=False)
    ],
    user_id: Annotated[str, typer.Option(metavar="COLUMN", help="Whose history; becomes user_id.")] = "user_id",
    asked: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The moment of each example's request, if there is one.")
    ] = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="What names of history columns begin with.")] = "history_",
    history: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=NAME", help="A history column, and its name in the store; may be repeated."),
    ] = None,
    max_len: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="To how many events histories were cut; without it, the longest row's."),
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option(metavar="UNIT", help="Of integer times: s, ms, us or ns; without it, ms.")
    ] = None,
    on_conflict: Annotated[
        OnBad, typer.Option(help="Refuse all for rows that contradict others, or skip and count them.")
    ] = OnBad.raise_,
    shards: Annotated[int, typer.Option(min=1, max=MAX_SHARDS, metavar="N", help="Of the store.")] = 16,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it is there.")] = False,
    json: Json = False,
) -> None:
    """Turn fat rows into a store and slim examples, and verify them.

    Fat rows are examples with their histories copied in, as list columns. The
    windows of each user are laid over each other; the history that they show
    is stored once, and each example gets its version. Then every example is
    read back and compared with its fat row. Store and slim examples appear
    only when all are equal.

    Example: uihkv import-fatrows fat.parquet store -o slim.parquet --asked ts
    """
    *paths, store = fat_rows
    if not paths:
        raise typer.BadParameter("files of fat rows and a store are expected", param_hint="FATROWS... STORE")
    from uihkv.importers.fatrows import import_fat_rows
    from uihkv.importers.migration import FatRowsProgress

    doing = {"deal": "sorting", "merge": "storing histories", "write": "writing examples", "verify": "verifying"}
    with progress_bar("import fat rows", "a first run compiles kernels") as bar:

        def report(at: FatRowsProgress) -> None:
            share = (list(doing).index(at.stage) + at.rows / max(at.total, 1)) / len(doing)
            bar(round(BAR_STEPS * share), BAR_STEPS, doing[at.stage])

        result = import_fat_rows(
            paths, store, output, user_id=user_id, asked=asked, history=parse_names(history, "--history") or None,
            prefix=prefix, max_len=max_len, time_unit=time_unit, on_conflict=on_conflict.value, shards=shards,
            force=force, progress=report,
        )  # fmt: skip
    facts = {**result.describe(), "store": store, "output": output}
    if json:
        print_json(facts)
        return
    if not result.conflicts:
        del facts["first_conflict"]
    print_table(fact_table(f"fat rows imported into {store}", facts))


def _report_to(bar: Update) -> Any:
    """Both stages on one bar, half of it each."""

    def report(at: ImportProgress) -> None:
        share = (at.share + (at.stage == "write")) / 2
        what = "reading and checking" if at.stage == "read" else "storing events"
        bar(round(BAR_STEPS * share), BAR_STEPS, f"{what}, {at.events:,} events")

    return report


def _print_result(store: Path, result: ImportResult, json: bool) -> None:
    facts = result.describe()
    if json:
        print_json(facts)
        return
    if not result.skipped:
        del facts["first_skipped"]
    print_table(fact_table(f"imported into {store}", facts))


def _find_schema(store: Path, file: Path | None) -> Schema:
    """The columns that JSON lines become: a file's, or those of the store that is there."""
    if file is not None:
        return Schema.from_toml(file)
    if not holds_something(store):
        raise typer.BadParameter("jsonl needs --schema FILE where no store is yet", param_hint="--schema")
    with Store.open(store, readonly=True) as opened:
        return opened.schema
