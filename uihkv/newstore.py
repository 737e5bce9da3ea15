"""A new store's directory: what may be asked for, and what is there before the first event.

Where a store goes must be free, and what it is to be must be possible; both are checked before anything is made. It is
made aside and put in its place by :mod:`uihkv.aside`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from uihkv.errors import SchemaError, StoreExistsError
from uihkv.manifest import MANIFEST_NAME, MAX_CHUNK_EVENTS, MAX_SHARDS, Manifest, sync_directory, write_manifest
from uihkv.place import file_errors
from uihkv.schema import Schema

COMPRESSIONS = ("lz4", "none")


def plan_store(
    path: str | os.PathLike[str], schema: Schema, shards: int, chunk_events: int, compression: str
) -> tuple[Path, Manifest]:
    """Where a new store goes and what it is, once both are seen to be possible."""
    if not isinstance(schema, Schema):
        raise SchemaError(f"{type(schema).__name__} given as schema; a uihkv.Schema is expected")
    check_whole("shards", shards, 1, MAX_SHARDS)
    check_whole("chunk_events", chunk_events, 1, MAX_CHUNK_EVENTS)
    if compression not in COMPRESSIONS:
        raise SchemaError(f"compression is {compression!r}; one of {', '.join(COMPRESSIONS)} is expected")
    return vacant_path(path), Manifest(uuid.uuid4().hex, shards, chunk_events, compression == "lz4", (schema,))


def vacant_path(path: str | os.PathLike[str]) -> Path:
    """A path where a store may be put."""
    target = as_path(path)
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        is_store = (target / MANIFEST_NAME).exists()
        what = "a store is there already; open that one, or" if is_store else "something is there that is no store;"
        raise StoreExistsError(f"{target}: {what} choose another path")
    return target


@contextmanager
def new_parents(target: Path) -> Iterator[None]:
    """Make the directories above a path, durable in the end; take away again what was made when it fails inside."""
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        with file_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreExistsError(f"{target}: {error.filename} is a file; choose another path") from error
    try:
        yield
        for parent in missing:
            sync_directory(parent.parent)
    except BaseException:
        with suppress(OSError):  # somebody else has put something there
            for parent in missing:
                parent.rmdir()
        raise


def found_store(folder: Path, manifest: Manifest) -> None:
    """Make an empty store in an empty directory; nothing is flushed before it is published."""
    from uihkv.shard import Shard

    for number in range(manifest.shards):
        path = shard_path(folder, number)
        with file_errors(folder):
            path.mkdir(parents=True)
        Shard(path, number, create=True, flush=False).close()
    write_manifest(folder, manifest)


def store_bytes(store: Path) -> int:
    """Size of a store's data files and manifest."""
    return sum(file.stat().st_size for file in (store / MANIFEST_NAME, *store.glob("shards/*/data.mdb")))


def as_path(path: Any) -> Path:
    """A path in full.

    Raises:
        SchemaError: for what is none.

    """
    try:
        target = Path(path).absolute()
    except TypeError:
        raise SchemaError(f"path is {path!r}; a str or an os.PathLike is expected") from None
    if "\0" in str(target):
        raise SchemaError(f"path is {path!r}; no path holds a NUL")
    return target


def shard_path(store: Path, number: int) -> Path:
    """Where a shard is."""
    return store / "shards" / f"{number:04d}"


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Refuse what is not a whole number within bounds.

    Raises:
        SchemaError: naming it.

    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise SchemaError(f"{name} is {value!r}; a whole number from {low} to {high} is expected")
