"""The worker process: reads what it is asked for until nobody asks any more.

It owns its store, one snapshot a pass, and slabs of shared memory. A slab is filled by the read itself, where there is
a free one with room, else by one copy into a new slab, which is larger; so after a few batches nothing is copied.
Slabs come back by number, with the next request.

It ends when the loader's side of the connection is closed, for whatever reason, and when its parent process changes;
it ignores the terminal's interrupt, which is the loader's to handle.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loader.reading import LocalReader
from loader.workers.wire import hear_projection, hear_request, pack, place_reading, tell_error, unpack
from uihkv import Store

_LOOK_UP_S = 2.0
"""How often an idle worker looks whether its parent is still there."""

_ROOM = 1.25
_SMALLEST = 1 << 20


class Slabs:
    """The worker's shared memory: slabs by number, made as they are needed.

    Args:
        connection: over which new slabs' file descriptors go.
        parent: process that they go to.

    """

    def __init__(self, connection: Connection, parent: int) -> None:
        self._connection = connection
        self._parent = parent
        self._slabs: dict[int, NDArray[np.uint8]] = {}
        self._free: list[int] = []
        self._made = 0

    def give_back(self, numbers: tuple[int, ...]) -> None:
        """The loader no longer uses these slabs."""
        self._free += numbers

    def lend(self) -> tuple[int, NDArray[np.uint8]] | None:
        """A free slab."""
        if not self._free:
            return None
        number = self._free.pop()
        return number, self._slabs[number]

    def make(self, size: int) -> tuple[int, NDArray[np.uint8], int]:
        """A new slab with room: its number, memory and file descriptor."""
        size = max(int(size * _ROOM), _SMALLEST)
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        descriptor = _anonymous_file()
        os.ftruncate(descriptor, size)
        slab = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
        self._made += 1
        self._slabs[self._made] = slab
        return self._made, slab, descriptor

    def drop(self, number: int) -> None:
        """Forget a slab that is too small."""
        del self._slabs[number]


def _answer(reader: LocalReader, slabs: Slabs, told: Any) -> tuple[dict[str, Any], int | None]:
    """Read for one batch: the answer, and the descriptor of a slab that the loader does not know yet."""
    request = hear_request(told)
    lent = slabs.lend()
    reading = reader.read(request, None if lent is None else lent[1])
    number, slab = lent or (0, None)
    made: list[int] = []

    def make(size: int) -> NDArray[np.uint8]:
        nonlocal number, slab
        if lent is not None:
            slabs.drop(number)
        number, slab, descriptor = slabs.make(size)
        made.append(descriptor)
        return slab

    answer, _ = place_reading(reading, slab, make)
    assert slab is not None  # lent, or made
    return {
        **answer,
        "slab": number,
        "new_bytes": slab.nbytes if made else 0,
        "dropped": lent[0] if made and lent is not None else None,
    }, made[0] if made else None


def serve(connection: Connection, parent: int) -> None:
    """Answer until the other side is gone."""
    with ExitStack() as stack:
        hello = unpack(connection.recv_bytes())
        store = stack.enter_context(Store.open(hello["store"], readonly=True))
        tenants = {name: hear_projection(told) for name, told in hello["tenants"]}
        readers: dict[int, LocalReader] = {}
        stack.callback(_close_all, readers)
        slabs = Slabs(connection, parent)
        connection.send_bytes(pack({"pid": os.getpid()}))
        while True:
            while not connection.poll(_LOOK_UP_S):
                if os.getppid() != parent:
                    return
            message = unpack(connection.recv_bytes())
            slabs.give_back(message["free"])
            if "end" in message:
                readers.pop(message["end"]).close()
                continue
            descriptor = None
            try:
                if "begin" in message:
                    readers[message["begin"]] = LocalReader(
                        store.snapshot(), tenants, hello["dedup"], None, hello["on_trimmed"]
                    )
                    answer: dict[str, Any] = {}
                else:
                    answer, descriptor = _answer(readers[message["pass"]], slabs, message["request"])
            except Exception as error:
                answer = {"error": tell_error(error)}
            try:
                connection.send_bytes(pack(answer))
                if descriptor is not None:
                    send_handle(connection, descriptor, parent)
            finally:
                if descriptor is not None:
                    os.close(descriptor)


def _close_all(readers: dict[int, LocalReader]) -> None:
    for reader in readers.values():
        reader.close()


def _anonymous_file() -> int:
    """A file in memory without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("uihkv-loader", os.MFD_CLOEXEC)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def main() -> None:
    """Run as a process: the arguments are the connection's file descriptor and the parent's id."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the loader is gone, and with it the need
        serve(connection, parent)


if __name__ == "__main__":
    main()
