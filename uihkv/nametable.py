"""Which number stands for which string user id: two sub-databases of a shard.

``names``: the name's UTF-8 bytes → the number, as in a tail's key. ``ids``: the number → the name. Both are written in
the transaction of the user's first event. A store with int64 ids has neither.

A name that is erased leaves a *trace* in its place in both: a random salt, and a hash of salt and name. It does not
tell the name, but when the same name is given again, it is found on the way to a free number and gets its old one:
versions are never reused. No name looks like a trace, which begins with a byte that UTF-8 does not have.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uihkv import keys
from uihkv.distinct import Bytes, as_bytes
from uihkv.errors import FormatError
from uihkv.names import BatchNames, next_numbers

Int64s = NDArray[np.int64]

DATABASES = (b"names", b"ids")

_TRACE = b"\xff"
_SALT_BYTES = _HASH_BYTES = 16


def _trace(name: bytes, salt: bytes) -> bytes:
    """What is left of an erased name."""
    return _TRACE + salt + hashlib.blake2b(name, digest_size=_HASH_BYTES, salt=salt).digest()


class NameTable:
    """The names of a shard's users.

    Args:
        environment: of the shard.
        number: the shard's, for messages.
        create: make the sub-databases.
        making: the write transaction in which they are made.

    """

    __slots__ = ("_ids", "_names", "_shard")

    def __init__(self, environment: Any, number: int, *, create: bool, making: Any = None) -> None:
        self._shard = number
        self._names, self._ids = (environment.open_db(name, txn=making, create=create) for name in DATABASES)

    @property
    def databases(self) -> tuple[Any, Any]:
        """Their handles."""
        return self._names, self._ids

    def assign(self, transaction: Any, batch: BatchNames, shards: int) -> Int64s:
        """Numbers of the users of a batch's rows, all of this shard; new users get theirs: int64[rows].

        Args:
            transaction: a write transaction.
            batch: the rows.
            shards: number of the store's.

        """
        some, place = np.unique(batch.code, return_inverse=True)
        begin, end = batch.offsets[some].tolist(), batch.offsets[some + np.uint32(1)].tolist()
        packed, width = keys.tail_keys(np.ascontiguousarray(batch.number[some])), keys.TAIL_KEY_BYTES
        values = batch.values.data
        found: list[bytes] = []
        for index, (low, high) in enumerate(zip(begin, end, strict=True)):
            name = bytes(values[low:high])
            known = transaction.get(name, db=self._names)
            if known is not None:
                found.append(self._checked(bytes(known), name))
                continue
            key = packed[index * width : (index + 1) * width]
            while (holder := transaction.get(key, db=self._ids)) is not None:
                left = bytes(holder)
                if left.startswith(_TRACE) and left == _trace(name, left[1 : 1 + _SALT_BYTES]):
                    transaction.delete(left, db=self._names)
                    break
                key = keys.tail_keys(next_numbers(keys.parse_tail_keys([key]), shards))
            transaction.put(name, key, db=self._names)
            transaction.put(key, name, db=self._ids)
            found.append(key)
        return keys.parse_tail_keys(found)[place.reshape(-1)]

    def erase(self, transaction: Any, users: Int64s) -> None:
        """Leave a trace in the place of the names of these users: int64[n]; those that have none stay as they are.

        Args:
            transaction: a write transaction.
            users: their numbers.

        """
        packed, width = keys.tail_keys(users), keys.TAIL_KEY_BYTES
        for at in range(0, len(packed), width):
            key = packed[at : at + width]
            held = transaction.get(key, db=self._ids)
            if held is None or (name := bytes(held)).startswith(_TRACE):
                continue
            trace = _trace(name, os.urandom(_SALT_BYTES))
            transaction.delete(name, db=self._names)
            transaction.put(trace, key, db=self._names)
            transaction.put(key, trace, db=self._ids)

    def _checked(self, key: bytes, name: bytes) -> bytes:
        if len(key) != keys.TAIL_KEY_BYTES:
            raise FormatError(
                f"shard {self._shard:04d}: user {name.decode(errors='replace')!r} has a number of {len(key)} bytes, "
                f"{keys.TAIL_KEY_BYTES} are expected; restore this shard from a backup"
            )
        return key

    def name_of(self, transaction: Any, user: int) -> int | str:
        """The name behind a number; the number itself where it has none: in stores with int64 ids, or once erased."""
        name = transaction.get(keys.tail_keys(np.array([user])), db=self._ids)
        return user if name is None or bytes(name[:1]) == _TRACE else bytes(name).decode(errors="replace")

    def names_of(self, transaction: Any, users: Int64s) -> tuple[Bytes, Int64s]:
        """Names of the users of these numbers, int64[n]: their bytes, and int64[n+1], where each begins.

        Raises:
            FormatError: for a user without a name.

        """
        packed, width = keys.tail_keys(users), keys.TAIL_KEY_BYTES
        wanted = [packed[at : at + width] for at in range(0, len(packed), width)]
        with transaction.cursor(db=self._ids) as cursor:
            found = [name for _, name in cursor.getmulti(wanted)]
            offsets = np.zeros(len(found) + 1, np.int64)
            np.cumsum(np.fromiter(map(len, found), np.int64, len(found)), out=offsets[1:])
            values = as_bytes(b"".join(found))
        if len(found) != len(users):
            raise FormatError(
                f"shard {self._shard:04d}: {len(users) - len(found)} of {len(users)} users have no name; restore this "
                "shard from a backup"
            )
        return values, offsets

    def list_names(self, transaction: Any) -> list[str]:
        """All names, in the order of their numbers, without those that were erased."""
        with transaction.cursor(db=self._ids) as cursor:
            names = [bytes(name) for name in cursor.iternext(keys=False, values=True)]
        return [name.decode(errors="replace") for name in names if not name.startswith(_TRACE)]

    def number_of(self, transaction: Any, name: str) -> int:
        """The number behind a name.

        Raises:
            FormatError: for a name without one.

        """
        key = transaction.get(name.encode(), db=self._names)
        if key is None:
            raise FormatError(f"shard {self._shard:04d}: no user {name!r}; restore this shard from a backup")
        return int(keys.parse_tail_keys([self._checked(bytes(key), name.encode())])[0])

    def find_faults(self, transaction: Any, users: Int64s) -> Sequence[str]:
        """What is wrong with the names of a shard whose users, by their tails, are these: a line each."""
        faults: list[str] = []
        with transaction.cursor(db=self._ids) as cursor:
            by_key = {bytes(key): bytes(name) for key, name in cursor}
        with transaction.cursor(db=self._names) as cursor:
            by_name = {bytes(name): bytes(key) for name, key in cursor}
        shown = {name: name.decode(errors="replace") for name in by_name}
        for name, key in by_name.items():
            if by_key.get(key) != name:
                faults.append(f"user {shown[name]!r} has a number that is not noted as his")
        faults += [f"number {key.hex()} is of a name that has another" for key, name in by_key.items()
                   if by_name.get(name) != key]  # fmt: skip
        packed, width = keys.tail_keys(users), keys.TAIL_KEY_BYTES
        tails = {packed[at : at + width] for at in range(0, len(packed), width)}
        faults += [f"user {name.decode(errors='replace')!r} has a name and no tail" for key, name in by_key.items()
                   if key not in tails]  # fmt: skip
        faults += [f"the user of number {key.hex()} has a tail and no name" for key in tails - by_key.keys()]
        return faults
