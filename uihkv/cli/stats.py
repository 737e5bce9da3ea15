"""``uihkv stats``: what a store holds."""

from __future__ import annotations

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table
from uihkv.cli.stores import open_store


def stats(store: StorePath, json: Json = False) -> None:
    """Say what a store holds.

    Users, events, chunks and bytes, counted over all shards. Nothing is
    written, and writers need not stop.

    Example: uihkv stats store
    """
    with open_store(store) as opened:
        facts = opened.stats().describe()
    if json:
        print_json(facts)
    else:
        print_table(fact_table(f"{store}", facts))
