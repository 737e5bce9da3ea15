"""``uihkv create``: an empty store of a schema file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table
from uihkv.manifest import MAX_CHUNK_EVENTS, MAX_SHARDS
from uihkv.schema import Schema
from uihkv.store import Store


class Compression(StrEnum):
    """How blocks may be compressed."""

    lz4 = "lz4"
    none = "none"


def create(
    store: StorePath,
    schema: Annotated[Path, typer.Option(metavar="FILE", help="TOML file that names the columns.", show_default=False)],
    shards: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_SHARDS, metavar="N", help="LMDB environments, fixed for ever: the unit of writing."
        ),
    ] = 16,
    chunk_events: Annotated[
        int, typer.Option(min=1, max=MAX_CHUNK_EVENTS, metavar="N", help="Events of a sealed chunk.")
    ] = 1024,
    compression: Annotated[Compression, typer.Option(help="Of blocks, where it wins a tenth.")] = Compression.lz4,
    json: Json = False,
) -> None:
    """Make an empty store.

    The schema file names the unit of both clocks (s, ms, us or ns) and the
    columns of an event beside user_id and ts, which every event has:

      time_unit = "ms"
      [columns]
      item_id = "int64"
      dwell   = { dtype = "float32", default = 0.0 }
      tags    = { dtype = "int32", ragged = true }
      vec     = { dtype = "float16", shape = [8] }

    The store appears whole or not at all; what is already there stays.

    Example: uihkv create store --schema schema.toml --shards 16
    """
    parsed = Schema.from_toml(schema)
    with Store.create(store, parsed, shards, chunk_events=chunk_events, compression=compression.value) as made:
        facts = {
            "store": made.path,
            "shards": made.shards,
            "chunk_events": chunk_events,
            "compression": compression.value,
            "time_unit": parsed.time_unit,
            "columns": list(parsed.names),
        }
    if json:
        print_json({**facts, "columns": [column.describe() for column in parsed.columns]})
    else:
        print_table(fact_table("store created", {**facts, "store": store}))
