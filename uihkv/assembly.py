"""A store put together of shards that were built apart: by which steps does each appear whole, and all at once?

The store is filled aside, as any that is built (:mod:`uihkv.aside`), and published by one rename. Within it, a shard is
built in a directory of its attempt, which only the attempt knows: ``attempts/XXXXXXXX`` of the assembly, or on another
disk. When it is whole, one rename puts it in its place, ``shards/NNNN``; from another disk it is copied beside it
first. A second attempt at a shard that is there is thrown away: both were made of the same rows.

What attempts that died have left in the assembly is removed before it is published. It leaves to others: what is built,
who builds it, and whether a failed attempt is made again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from uihkv.errors import IngestError, SchemaError
from uihkv.manifest import Manifest, write_manifest
from uihkv.newstore import shard_path

_ATTEMPTS = "attempts"
_LOCK = "lock.mdb"


def begin_assembly(home: Path, manifest: Manifest) -> None:
    """Write the manifest, and make the directories in which shards are built and to which they go."""
    write_manifest(home, manifest)
    (home / _ATTEMPTS).mkdir()
    (home / "shards").mkdir()


def end_assembly(home: Path, manifest: Manifest) -> None:
    """Remove what no longer belongs to it.

    Raises:
        IngestError: when a shard is missing.

    """
    places = [shard_path(home, number) for number in range(manifest.shards)]
    missing = [place.name for place in places if not place.is_dir()]
    if missing:
        raise IngestError(
            f"{len(missing)} of {manifest.shards} shards were not built ({', '.join(missing[:4])}); build each by "
            "Store.build_shard before the assembly ends"
        )
    shutil.rmtree(home / _ATTEMPTS, ignore_errors=True)


@contextmanager
def attempt(home: Path, scratch: str | PathLike[str] | None) -> Iterator[Path]:
    """A directory to build one shard in; nothing of it is left.

    Raises:
        SchemaError: for a scratch folder that is not there.

    """
    if scratch is not None and not Path(scratch).is_dir():
        raise SchemaError(f"scratch is {str(scratch)!r}; a folder that is there is expected")
    where = home / _ATTEMPTS if scratch is None else Path(scratch)
    folder = Path(tempfile.mkdtemp(prefix="shard-", dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def begin_shard(folder: Path, manifest: Manifest, number: int) -> None:
    """Make an empty store in an attempt's directory that has one shard only; nothing is flushed before publication."""
    from uihkv.shard import Shard

    path = shard_path(folder, number)
    path.mkdir(parents=True)
    Shard(path, number, create=True, flush=False).close()
    write_manifest(folder, manifest)


def place_shard(folder: Path, home: Path, number: int) -> None:
    """Put a shard where it belongs, unless it is there already.

    Raises:
        OSError: as of copying and renaming.

    """
    built, place = shard_path(folder, number), shard_path(home, number)
    (built / _LOCK).unlink(missing_ok=True)
    with attempt(home, None) as beside:
        whole = beside / place.name
        shutil.move(built, whole)  # a rename, or from another disk a copy
        try:
            whole.rename(place)
        except OSError:
            if not place.is_dir():
                raise
