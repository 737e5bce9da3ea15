"""``uihkv examples``: examples from the histories themselves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store
from uihkv.schema import TIME_UNITS, Schema


def examples(
    store: StorePath,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The examples.", show_default=False)],
    every: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Each K-th event of a user is an example.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COL=V,…", help="Only events with one of these values; may be repeated."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column that is a label; may be repeated.")
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column to offer; may be repeated. Without it, all but labels."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="T1[,T2]", help="Train before T1, test from the last T on.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Leave out what became visible with the event itself.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    json: Json = False,
) -> None:
    """Make examples of events: each with all that came before it.

    An example has a pointer to its user's history before the event, as_of (the
    event's visible time), and the event's columns as candidate and labels.
    Moments of --split are ticks of the store's unit or UTC dates; each split
    is a file of its own, FILE-train.parquet and so on, and an example is in
    the split in which its event became visible.

    Example: uihkv examples store -o ex.parquet --every 8 --split 2023-01-01
    """
    from uihkv.examples import write_examples

    if every is None and not where:
        raise typer.BadParameter("name the events: --every K, or --where COL=V", param_hint="--every")
    with open_store(store) as opened, progress_bar("examples", "a first run compiles kernels") as bar:
        schema = opened.schema
        result = write_examples(
            opened, output, every=every, where=_parse_where(schema, where or []), labels=label or [],
            candidates=candidate, split=_parse_moments(schema, split), ties="out" if strict else "in", force=force,
            progress=bar,
        )  # fmt: skip
    facts = result.describe()
    if json:
        print_json(facts)
    else:
        files = facts.pop("files")
        print_table(fact_table(f"examples of {store}", {**facts, **files}))


def _parse_where(schema: Schema, given: list[str]) -> dict[str, Any]:
    """``action=1,2`` as a set of accepted values, by column."""
    where: dict[str, Any] = {}
    for one in given:
        column, equals, text = one.partition("=")
        if not (column and equals and text) or column in where:
            raise typer.BadParameter(f"{one!r} is not COLUMN=VALUE,…, once for a column", param_hint="--where")
        kind = schema[column].dtype if column in schema else "int64"
        where[column] = {_parse_value(kind, value.strip(), one) for value in text.split(",")}
    return where


def _parse_value(dtype: str, text: str, given: str) -> Any:
    try:
        if dtype == "bool":
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if dtype.startswith("float"):
            return float(text)
        return int(text) if "int" in dtype else text
    except (ValueError, KeyError):
        raise typer.BadParameter(f"{text!r} in {given!r} is no {dtype}", param_hint="--where") from None


def _parse_moments(schema: Schema, given: str | None) -> list[int]:
    """Ticks, or ISO dates and times in UTC."""
    return [] if given is None else [_parse_moment(schema, text.strip()) for text in given.split(",")]


def _parse_moment(schema: Schema, text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither ticks nor a date", param_hint="--split") from None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since.days * 86_400 + since.seconds
    ticks = TIME_UNITS[schema.time_unit]
    return seconds * ticks + since.microseconds * ticks // 1_000_000
