"""``uihkv compact``: fewer and fuller chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store
from uihkv.maintenance import CompactionPolicy


def compact(
    store: StorePath,
    copy_to: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Then copy the store there, without a byte of what is gone.")
    ] = None,
    min_fill: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="A chunk filled less than this is small.")
    ] = 0.5,
    keep_schemas: Annotated[
        bool, typer.Option("--keep-schemas", help="Leave chunks of older schemas as they are.")
    ] = False,
    seal: Annotated[bool, typer.Option("--seal", help="First turn all tails into chunks, however short.")] = False,
    json: Json = False,
) -> None:
    """Merge small chunks, and write those of older schemas anew.

    Readers and writers need not stop; pointers stay as they are. The space
    that becomes free serves later writes. With --copy-to a copy with full
    pages appears at PATH, whole or not at all: it is the same store, to be put
    in the place of this one when nobody writes to it, and the only way to have
    what was trimmed or dropped gone from the disk.

    Examples: uihkv compact store
              uihkv compact store --copy-to store.new
    """
    policy = CompactionPolicy(min_fill=min_fill, old_schemas=not keep_schemas)
    with open_store(store, readonly=False) as opened, progress_bar("compact", "a first run compiles kernels") as bar:
        sealed = opened.seal(progress=bar).describe() if seal else {}
        result = opened.compact(policy, copy_to=copy_to, progress=bar)
    facts: dict[str, Any] = {**({"sealed_events": sealed["events"]} if sealed else {}), **result.describe()}
    if copy_to is not None:
        facts["copy"] = copy_to
    if json:
        print_json(facts)
    else:
        print_table(fact_table(f"compacted {store}", facts))
