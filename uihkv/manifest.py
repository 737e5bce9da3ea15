"""The manifest: what a store is, and every schema it has had, in one small msgpack file.

It is written aside, synced and renamed over the old one, so that a reader finds either the old or the new. Nothing in
it is ever executed or unpickled, and it names no paths. Magic and format stand outside, so that a later format can be
told from damage; the rest is packed bytes with their checksum, since a wrong number of shards means wrong histories.

The file is a msgpack map:

============ ====== ==================================================================================================
``magic``    string ``uihkv store``
``format``   int    1
``checksum`` int    xxh3-64 of the body's bytes
``body``     bytes  a msgpack map, as follows
============ ====== ==================================================================================================

The body:

================ ====== ==============================================================================================
``store_id``     string 32 hexadecimal digits, drawn at creation
``shards``       int    1 to 10,000, fixed for the store's life
``chunk_events`` int    most events of a chunk, 1 to 2**20
``compress``     bool   whether LZ4 is tried on blocks
``schemas``      array  every schema that the store has had, the oldest first; a chunk names its own by its index
================ ====== ==============================================================================================

A schema is a map of ``time_unit`` (string), ``user_id`` (``int64`` or ``string``), ``columns`` (each a map of ``name``,
``dtype``, ``default``, ``ragged`` and ``shape``) and ``ids``: for each column an int that tells it from all that the
store has ever had, so that a name that was dropped and added again is another column.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack
import xxhash

from uihkv.errors import FormatError, SchemaError, StoreFullError, StoreNotFoundError
from uihkv.evolution import MAX_SCHEMAS
from uihkv.place import file_errors
from uihkv.schema import Schema

MANIFEST_NAME = "manifest.msgpack"
STORE_FORMAT = 1
_MAGIC = "uihkv store"
_MAX_BYTES = 16 << 20

MAX_SHARDS = 10_000
MAX_CHUNK_EVENTS = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was decided when the store was created, and every schema it has had.

    Attributes:
        store_id: 32 hexadecimal digits, drawn at creation.
        shards: number of shards, fixed for the store's life.
        chunk_events: most events of a chunk.
        compress: whether LZ4 is tried on blocks.
        schemas: oldest first; a chunk carries its index.

    """

    store_id: str
    shards: int
    chunk_events: int
    compress: bool
    schemas: tuple[Schema, ...]

    @property
    def schema(self) -> Schema:
        """The schema in force."""
        return self.schemas[-1]

    def evolve(self, schema: Schema) -> Manifest:
        """The same store with one more schema.

        Raises:
            SchemaError: when a chunk could not name it.

        """
        if len(self.schemas) == MAX_SCHEMAS:
            raise SchemaError(f"the store has had {MAX_SCHEMAS} schemas; copy it into a new one to go on")
        return replace(self, schemas=(*self.schemas, schema))

    def pack(self) -> bytes:
        """The file's bytes."""
        body: bytes = msgpack.packb(
            {
                "store_id": self.store_id,
                "shards": self.shards,
                "chunk_events": self.chunk_events,
                "compress": self.compress,
                "schemas": [schema.describe() for schema in self.schemas],
            }
        )
        packed: bytes = msgpack.packb(
            {"magic": _MAGIC, "format": STORE_FORMAT, "checksum": xxhash.xxh3_64_intdigest(body), "body": body}
        )
        return packed

    @classmethod
    def unpack(cls, data: bytes, where: Path) -> Manifest:
        """Read a file's bytes.

        Raises:
            FormatError: when they are not a manifest, or one of a newer format.

        """
        outer = _unpack_map(data, where)
        if outer.get("magic") != _MAGIC:
            raise FormatError(f"{where} is not the manifest of a uihkv store: it has no magic {_MAGIC!r}")
        found = outer.get("format")
        if type(found) is not int or found < 1:
            raise FormatError(f"{where} names format {found!r}; restore it from a backup")
        if found > STORE_FORMAT:
            raise FormatError(
                f"{where} is of store format {found}, this package reads up to {STORE_FORMAT}; install a newer uihkv"
            )
        body = outer.get("body")
        if not isinstance(body, bytes) or outer.get("checksum") != xxhash.xxh3_64_intdigest(body):
            raise FormatError(f"{where} is damaged: its checksum does not match; restore it from a backup")
        fields = _unpack_map(body, where)
        try:
            shards, chunk_events = fields["shards"], fields["chunk_events"]
            schemas = tuple(Schema.from_description(entry) for entry in fields["schemas"])
            store_id, compress = fields["store_id"], fields["compress"]
        except (KeyError, TypeError) as error:
            raise FormatError(f"{where} lacks {error}; restore it from a backup") from error
        sound = (
            isinstance(shards, int)
            and 1 <= shards <= MAX_SHARDS
            and isinstance(chunk_events, int)
            and 1 <= chunk_events <= MAX_CHUNK_EVENTS
            and isinstance(store_id, str)
            and isinstance(compress, bool)
            and 0 < len(schemas) <= MAX_SCHEMAS
        )
        if not sound:
            raise FormatError(f"{where} holds impossible values; restore it from a backup")
        return cls(store_id, shards, chunk_events, compress, schemas)


def _unpack_map(data: bytes, where: Path) -> dict[Any, Any]:
    try:
        fields: Any = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # TypeError: a key that cannot be hashed
        raise FormatError(f"{where} is not a manifest ({error}); restore it from a backup") from error
    if not isinstance(fields, dict):
        raise FormatError(f"{where} is not a manifest: it holds no map; restore it from a backup")
    return fields


def read_manifest(store: Path) -> Manifest:
    """The manifest of the store in a directory.

    Raises:
        StoreNotFoundError: when nothing is there.
        FormatError: when what is there is not a store, or one of a newer format.

    """
    path = store / MANIFEST_NAME
    try:
        # A link may lead out of the store, and a pipe would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:  # noqa: PTH123 - of a descriptor
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise FormatError(f"{store} is not a uihkv store: its {MANIFEST_NAME} is no file")
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        if store.exists():
            raise FormatError(f"{store} is not a uihkv store: it has no {MANIFEST_NAME}") from None
        raise StoreNotFoundError(f"{store} does not exist; Store.create makes a store") from None
    except NotADirectoryError:
        raise FormatError(f"{store} is a file, not a uihkv store") from None
    except IsADirectoryError:
        raise FormatError(f"{store} is not a uihkv store: its {MANIFEST_NAME} is a directory") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FormatError(f"{path} is a symbolic link; a store follows none, put the file in its place") from None
        if error.errno in (errno.EMFILE, errno.ENFILE):
            with file_errors(store):
                raise
        raise
    if len(data) > _MAX_BYTES:
        raise FormatError(f"{path} is larger than any manifest; restore it from a backup")
    return Manifest.unpack(data, path)


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Put the manifest in its place, durably and at once.

    Raises:
        StoreFullError: when there is no room; the old manifest then stays.

    """
    aside = store / (MANIFEST_NAME + ".new")
    try:
        with aside.open("wb") as file:
            file.write(manifest.pack())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(f"no space left for {aside} ({error}); the manifest stays as it was") from error
        with file_errors(aside):
            raise
    aside.replace(store / MANIFEST_NAME)
    sync_directory(store)


def manifest_stamp(store: Path) -> tuple[int, int, int]:
    """What tells one manifest file from the next: each is a new file. Costs one look at the directory.

    Raises:
        FormatError: when the manifest is gone.

    """
    try:
        found = (store / MANIFEST_NAME).stat()
    except OSError as error:
        raise FormatError(f"{store} has lost its {MANIFEST_NAME} ({error}); restore it from a backup") from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
