"""``uihkv backup``: a copy of a store in use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store


def backup(
    store: StorePath,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where nothing is yet.", show_default=False)],
    json: Json = False,
) -> None:
    """Copy a store while it is used.

    All shards are copied as of one moment; writers wait only for that moment.
    The copy appears at PATH whole or not at all, flushed to the disk, with
    full pages and no free ones. To restore, put it in the store's place.

    Example: uihkv backup store /backups/store-2026-01-31
    """
    with open_store(store) as opened, progress_bar("backup") as bar:
        result = opened.backup(path, progress=bar)
    if json:
        print_json(result.describe())
    else:
        print_table(fact_table(f"backup of {store}", {**result.describe(), "path": path}))
