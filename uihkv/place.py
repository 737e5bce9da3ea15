"""May a store be opened where it lies?

A store is data, maybe a stranger's: opening it must not lead out of its directory. Its shards, and what is in them, are
directories and plain files of its own; a symbolic link among them is refused, and so is what would block or do
something when it is opened (a pipe, a device). The store's own path may lead through links: that is its user's.

LMDB's locks and maps need a local file system. On a network one they seem to work until two machines write: that is
warned of, since a store that one machine alone opens can be read there.

It leaves to others: what is in the files. The manifest is opened as carefully by :mod:`uihkv.manifest`.
"""

from __future__ import annotations

import ctypes
import errno
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uihkv.errors import FormatError, ReadOnlyError, StoreFullError, StoreWarning

NETWORK = {
    0x6969: "NFS", 0x517B: "SMB", 0xFF534D42: "CIFS", 0xFE534D42: "SMB", 0x01021997: "9P", 0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre", 0x47504653: "GPFS", 0x5346414F: "AFS", 0x6B414653: "AFS", 0x73757245: "Coda",
    0x19830326: "BeeGFS", 0xAAD7AAEA: "PanFS",
}  # fmt: skip
"""File systems that other machines may write to, by what ``statfs`` calls them."""
_STATFS_BYTES = 512
"""More than any system's ``struct statfs`` takes; its first word is the type."""


def check_own_files(shard: Path) -> None:
    """Refuse a shard that does not lie in its store.

    Args:
        shard: the directory of an LMDB environment, in the store's ``shards``.

    Raises:
        FormatError: for links, or what is no file.

    """
    for path, kind, is_kind in (
        (shard.parent, "directory", stat.S_ISDIR),
        (shard, "directory", stat.S_ISDIR),
        (shard / "data.mdb", "file", stat.S_ISREG),
        (shard / "lock.mdb", "file", stat.S_ISREG),
    ):
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue  # what is missing is said by whoever opens it
        if not is_kind(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else f"no {kind}"
            raise FormatError(
                f"{path} is {what}; a store is made of directories and files of its own, put it in its place"
            )


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Say in our words what the system refuses while something is made at a path; other errors pass.

    Raises:
        StoreFullError: when there is no room, or when no more files may be open.
        ReadOnlyError: when nothing may be written there.

    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFullError(f"no space left for {path} ({error})") from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise StoreFullError(f"cannot open files of {path}: {error}; raise the limit (ulimit -n)") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ReadOnlyError(f"{path} cannot be written to ({error}); choose another place, or change it") from error
        raise


def warn_of_network(store: Path) -> None:
    """Warn where a store lies on a network file system."""
    name = NETWORK.get(file_system_type(store))
    if name is not None:
        warnings.warn(
            f"{store} lies on a network file system ({name}), where LMDB's locks and maps do not hold between "
            "machines: open it from one machine only, or copy it to a local disk",
            StoreWarning,
            stacklevel=3,
        )


def file_system_type(path: Path) -> int:
    """What ``statfs`` calls the file system that a path is on; 0 where the system does not say it that way."""
    if not sys.platform.startswith("linux"):
        return 0
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).statfs(str(path).encode(errors="surrogateescape"), found):
        return 0
    return ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF
