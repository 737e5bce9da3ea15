"""The worker process: reads what it is asked for until nobody asks any more.

It owns its store, one snapshot a pass, and slabs of shared memory (:mod:`loader.workers.shared`). A slab is filled by
the read itself, where it has room, else by one copy into a larger one; so after a few batches nothing is copied.
Requests may wait in the connection while it reads: it answers them in their order.

It ends when the loader's side of the connection is closed, for whatever reason, and when its parent process changes;
it ignores the terminal's interrupt, which is the loader's to handle.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import sendfds
from typing import Any

from loader.reading import LocalReader
from loader.slabs import Slab
from loader.workers.shared import MOST_SLABS, OwnSlabs, map_file
from loader.workers.wire import hear_projection, hear_request, pack, place_reading, tell_error, unpack
from uihkv import Store

_LOOK_UP_S = 2.0
"""How often an idle worker looks whether its parent is still there."""


def _answer(reader: LocalReader, slabs: OwnSlabs, told: Any) -> dict[str, Any]:
    """Read for one batch."""
    request = hear_request(told)
    lent = slabs.lend()
    number, slab = lent or (None, None)

    def grow(size: int) -> Slab:
        nonlocal number, slab
        number, slab = slabs.grow(number, size)
        return slab

    try:
        reading = reader.read(request, slab)
        answer, _ = place_reading(reading, slab, grow)
    except BaseException:
        if number is not None:
            slabs.take_back(number)  # no answer goes out in it, so that nobody else sets it free
        raise
    return {**answer, "slab": number}


def serve(connection: Connection, flags: Slab, parent: int) -> None:
    """Answer until the other side is gone."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    with ExitStack() as stack:
        hello = unpack(connection.recv_bytes())
        store = stack.enter_context(Store.open(hello["store"], readonly=True))
        tenants = {name: hear_projection(told) for name, told in hello["tenants"]}
        readers: dict[int, LocalReader] = {}
        refusals: dict[int, dict[str, Any]] = {}
        stack.callback(_close_all, readers)
        slabs = OwnSlabs(flags, hello["slabs"])
        settled = False
        while True:
            while not poll.poll(_LOOK_UP_S * 1e3):
                if os.getppid() != parent:
                    return
            message = unpack(connection.recv_bytes())
            if "end" in message:
                refusals.pop(message["end"], None)
                if message["end"] in readers:
                    readers.pop(message["end"]).close()
                continue
            number = message.get("begin", message.get("pass"))
            try:
                if "begin" in message:
                    readers[number] = LocalReader(store.snapshot(), tenants, hello["dedup"], None, hello["on_trimmed"])
                    continue
                answer = refusals.get(number) or _answer(readers[number], slabs, message["request"])
                if not settled:
                    gc.freeze()  # kernels and modules stay: their collection would come in the midst of a read
                    settled = True
            except Exception as error:
                answer = {"error": tell_error(error)}
                if "begin" in message:  # each of the pass's requests is told
                    refusals[number] = answer
                    continue
            _send(connection, answer, slabs)


def _send(connection: Connection, answer: dict[str, Any], slabs: OwnSlabs) -> None:
    """Send an answer and, behind it, descriptors of slabs that are new."""
    made = slabs.take_made()
    try:
        new = [(number, slabs.size_of(number)) for number in made]
        connection.send_bytes(pack({**answer, "new": new, "touched": slabs.touched()}))
        if made:
            with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                sendfds(channel, list(made.values()))
    finally:
        for descriptor in made.values():
            os.close(descriptor)


def _close_all(readers: dict[int, LocalReader]) -> None:
    for reader in readers.values():
        reader.close()


def main() -> None:
    """Run as a process: the arguments are the descriptors of connection and flags, and the parent's id."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, descriptor, parent = Connection(int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    flags = map_file(descriptor, MOST_SLABS)
    os.close(descriptor)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the loader is gone, and with it the need
        serve(connection, flags, parent)


if __name__ == "__main__":
    main()
