"""``uihkv slim``: examples lose the inline tails that the store has caught up with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store


def slim(
    store: StorePath,
    examples: Annotated[
        Path, typer.Argument(metavar="EXAMPLES", help="A Parquet file, or a folder of them.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The slim examples.", show_default=False)
    ],
    keep_pending: Annotated[
        bool, typer.Option("--keep-pending", help="Keep tails that the store does not have yet.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it is there.")] = False,
    json: Json = False,
) -> None:
    """Take inline tails out of examples, once the store has their events.

    Each inline event is compared with the store; then the example's pointer
    moves behind it, and the example reads as before. A tail that differs is
    an error, since its example cannot be rebuilt. The output appears whole or
    not at all.

    Example: uihkv slim store examples.parquet -o slim.parquet
    """
    from uihkv.slim import slim_file

    with open_store(store) as opened, progress_bar("slim", "a first run compiles kernels") as bar:
        result = slim_file(
            opened, examples, output, pending="keep" if keep_pending else "raise", force=force, progress=bar
        )
    if json:
        print_json({**result.describe(), "output": output})
    else:
        print_table(fact_table(f"slimmed into {output}", result.describe()))
