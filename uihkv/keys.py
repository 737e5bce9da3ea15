"""LMDB keys, and which shard holds a user.

A tail's key is the user id in 8 bytes, big-endian, with the sign bit turned over: byte order is then the order of
signed ids. A chunk's key adds the end and the start of its version range, 8 bytes big-endian each, so that
one ``set_range`` at ``(user, v)`` finds the chunk that holds event ``v - 1`` and the keys alone give every
range. Users are spread over shards by a fixed hash, the same on every machine and for ever, which is part of the
on-disk format: one step of splitmix64, ``z = id + 0x9E3779B97F4A7C15``, ``z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9``,
``z = (z ^ z >> 27) * 0x94D049BB133111EB``, ``z = z ^ z >> 31``, in 64 bits that wrap, and then modulo the shards.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]

TAIL_KEY_BYTES = 8
CHUNK_KEY_BYTES = 24
_SIGN = np.uint64(1 << 63)


def user_words(user_id: Int64s) -> NDArray[np.uint64]:
    """User ids as the unsigned words whose order is the keys' order."""
    return user_id.view(np.uint64) ^ _SIGN


def tail_keys(user_id: Int64s) -> bytes:
    """Keys of these users' tails, back to back, ``TAIL_KEY_BYTES`` each."""
    return user_words(user_id).astype(">u8").tobytes()


def chunk_keys(user_id: Int64s, start: Int64s, end: Int64s) -> bytes:
    """Keys of these chunks, back to back, ``CHUNK_KEY_BYTES`` each."""
    words = np.empty((len(user_id), 3), ">u8")
    words[:, 0] = user_words(user_id)
    words[:, 1] = end
    words[:, 2] = start
    return words.tobytes()


def parse_tail_keys(keys: Iterable[bytes]) -> Int64s:
    """User ids of tail keys: int64[n]."""
    return parse_tail_words(np.frombuffer(b"".join(keys), ">u8").astype(np.uint64))


def parse_tail_words(words: NDArray[np.uint64]) -> Int64s:
    """User ids of tail keys, given as numbers: uint64[n]."""
    return (words ^ _SIGN).view(np.int64)


def parse_chunk_keys(keys: Iterable[bytes]) -> tuple[Int64s, Int64s, Int64s]:
    """User ids, starts and ends of chunk keys: int64[n] each."""
    return parse_chunk_words(np.frombuffer(b"".join(keys), ">u8").reshape(-1, 3).astype(np.uint64))


def parse_chunk_words(words: NDArray[np.uint64]) -> tuple[Int64s, Int64s, Int64s]:
    """User ids, starts and ends of chunk keys, given as numbers: uint64[n, 3]."""
    user_id = (words[:, 0] ^ _SIGN).view(np.int64)
    return user_id, words[:, 2].view(np.int64), words[:, 1].view(np.int64)


def shard_of(user_id: Int64s, shards: int) -> Int64s:
    """Shard of each user: int64[n] in ``[0, shards)``."""
    z = user_id.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z % np.uint64(shards)).astype(np.int64)
