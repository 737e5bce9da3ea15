"""``uihkv resolve``: examples without pointers into slim examples."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store


class OnTrimmed(StrEnum):
    """What becomes of a row whose version is no longer known."""

    error = "raise"
    truncate = "truncate"


def resolve(
    store: StorePath,
    examples: Annotated[
        Path, typer.Argument(metavar="EXAMPLES", help="A Parquet file, or a folder of them.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The slim examples.", show_default=False)
    ],
    as_of: Annotated[
        str, typer.Option(metavar="COLUMN", help="The moment of each example's request.", show_default=False)
    ],
    delay: Annotated[
        int, typer.Option(min=0, metavar="TICKS", help="How long events took to reach the serving side.")
    ] = 0,
    user_id: Annotated[str, typer.Option(metavar="COLUMN", help="Whose history; becomes user_id.")] = "user_id",
    on_trimmed: Annotated[
        OnTrimmed, typer.Option(help="Where trimmed events would tell the version: fail, or take the oldest kept.")
    ] = OnTrimmed.error,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it is there.")] = False,
    json: Json = False,
) -> None:
    """Give every example a pointer to the history that its request saw.

    Adds the columns version and last_ts and keeps all others and the order of
    rows. The version counts the user's events that became visible strictly
    before --as-of minus --delay, both in the store's time unit. All examples
    see one snapshot of the store. The output appears whole or not at all.

    Example: uihkv resolve store examples.parquet -o slim.parquet --as-of ts
    """
    from uihkv.resolve import resolve_file

    with open_store(store) as opened, progress_bar("resolve", "a first run compiles kernels") as bar:
        result = resolve_file(
            opened,
            examples,
            output,
            as_of=as_of,
            delay=delay,
            user_id=user_id,
            force=force,
            on_trimmed=on_trimmed.value,
            progress=bar,
        )
    if json:
        print_json({**result.describe(), "output": output})
    else:
        print_table(fact_table(f"resolved into {output}", result.describe()))
