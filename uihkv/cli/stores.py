"""Open the store that a command names."""

from __future__ import annotations

from pathlib import Path

from uihkv.cli.endings import CommandError
from uihkv.errors import StoreNotFoundError
from uihkv.store import Store


def open_store(path: Path, *, readonly: bool = True) -> Store:
    """The store at a path, to be used in a ``with``; for reading, unless the command writes.

    Raises:
        CommandError: when nothing is there.
        FormatError: when what is there is not a store, or a store of a newer format.

    """
    try:
        return Store.open(path, readonly=readonly)
    except StoreNotFoundError:
        raise CommandError(f"{path} does not exist; uihkv create makes a store") from None
