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
from loader.slabs import end_in
from loader.workers.wire import ALIGNMENT, hear_projection, hear_request, pack, tell_error, tell_reading, unpack
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


class _Filling:
    """Places arrays in one slab."""

    def __init__(self, slab: NDArray[np.uint8], used: int) -> None:
        self._slab = slab
        self._base = slab.ctypes.data
        self._end = used

    def __call__(self, array: NDArray[Any]) -> int:
        at = array.ctypes.data - self._base
        if array.nbytes and 0 <= at < self._slab.nbytes:
            return at  # the read has put it there
        start = -(-self._end // ALIGNMENT) * ALIGNMENT
        self._end = start + array.nbytes
        if array.nbytes:
            self._slab[start : self._end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return start


def _answer(reader: LocalReader, slabs: Slabs, told: Any) -> tuple[dict[str, Any], int | None]:
    """Read for one batch: the answer, and the descriptor of a slab that the loader does not know yet."""
    request = hear_request(told)
    lent = slabs.lend()
    reading = reader.read(request, None if lent is None else lent[1])
    arrays: dict[int, NDArray[Any]] = {}
    tell_reading(reading, lambda array: arrays.setdefault(id(array), array).nbytes)  # which arrays there are
    inside, outside = [], 0
    for array in arrays.values():
        if lent is not None and array.nbytes and end_in(lent[1], [array]) is not None:
            inside.append(array)
        else:
            outside += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    used = 0 if lent is None else end_in(lent[1], inside) or 0
    dropped, descriptor = None, None
    if lent is None or -(-used // ALIGNMENT) * ALIGNMENT + outside > lent[1].nbytes:
        if lent is not None:
            dropped = lent[0]
            slabs.drop(dropped)
        needed = sum(-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays.values())
        number, slab, descriptor = slabs.make(needed)
        used = 0
    else:
        number, slab = lent
    answer = tell_reading(reading, _Filling(slab, used))
    return {
        **answer,
        "slab": number,
        "new_bytes": slab.nbytes if descriptor is not None else 0,
        "dropped": dropped,
    }, descriptor


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
