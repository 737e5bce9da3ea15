"""How batches reach a CUDA device while the training step before them still runs.

**Not yet run on a GPU**: written after torch's documented rules and reviewed; the CPU path is tested.

The idea, for each batch, in two halves on two threads:

1. *send*, in the lane that made the batch: copy its arrays into one page-locked slab, allocate one
   device slab on the loader's side stream, start one asynchronous copy there, and record an event behind it.
2. *receive*, in the consumer's thread: the consumer's current stream (not its thread) waits for that event, and the
   device slab is recorded on that stream.

So up to ``prefetch`` batches are on the device, or on their way, ahead of the consumer.

Why memory is never reused too early:

- the page-locked slab comes from torch's caching host allocator; ``copy_`` with ``non_blocking=True`` records the
  side stream's event for it, so dropping it here while the copy runs is safe. A batch that lies in a worker's
  page-locked slab (:mod:`loader.pinning`) is copied from there, and kept here until the event behind its copy has
  come: only then may the worker have the slab back;
- the device slab belongs to the side stream, where its next user would run in order; ``record_stream`` in *receive*
  makes the allocator also wait for the consumer's stream. All tensors of a batch are views of the slab: one
  call covers them. Work on still other streams is the consumer's to declare: ``batch.record_stream``;
- a batch that is sent and never received was used on the side stream alone.

On the CPU there is no transfer: the loader hands the host batch over as it is.
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass

import torch

from loader.batch import Batch
from loader.errors import DeviceError
from loader.pinning import lock_pages
from loader.slabs import Slab
from loader.stats import Sizes


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch under way to the consumer.

    Attributes:
        batch: on its target device; on CUDA its bytes may still be arriving.
        sizes: of the batch.
        arrived: recorded behind the copy; None: they are there.

    """

    batch: Batch
    sizes: Sizes
    arrived: torch.cuda.Event | None = None


def sizes_of(batch: Batch) -> Sizes:
    """How large a batch is."""
    size = batch.nbytes
    return Sizes(len(batch), batch.events, size, batch.expanded_nbytes - size)


def check_device(device: torch.device | str | int | None) -> torch.device | None:
    """The CUDA device that batches go to, maybe without an index; None: they stay on the host.

    Raises:
        DeviceError: for a device that is neither, or a CUDA device that torch does not find.

    """
    if device is None:
        return None
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DeviceError(f"device is {device!r}; None, 'cpu', 'cuda' or 'cuda:<index>' is expected") from error
    if wanted.type == "cpu":
        return None
    if wanted.type != "cuda":
        raise DeviceError(f"device is {device!r}; the loader prefetches to 'cuda', for others move batches yourself")
    if not torch.cuda.is_available():
        raise DeviceError(f"device is {device!r}, and torch {torch.__version__} finds no CUDA device; use device=None")
    if wanted.index is not None and wanted.index >= torch.cuda.device_count():
        raise DeviceError(f"device is {device!r}; this machine has {torch.cuda.device_count()} CUDA devices")
    return wanted


class Transfer:
    """Copies to one CUDA device on one side stream, for the life of a loader.

    Args:
        device: a CUDA device; without an index, the calling thread's current one. So construct it on the
            consumer's thread: lanes all start with device 0.

    """

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._copying: deque[tuple[torch.cuda.Event, Batch]] = deque()
        # A loader that is dropped and never closed: its last copies still read memory that would go with it.
        weakref.finalize(self, _end_copies, self._stream, self._copying).atexit = False

    def send(self, batch: Batch) -> Sent:
        """Start the copy of a host batch. Called in lanes, by several at once."""
        # Current device and stream are a thread's own. The device matters for pinning too: a page-locked
        # allocation made with device 0 current would create a context there.
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            pinned = batch.pin_memory()
            on_device = pinned.to(self.device, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._stream)
        if pinned is batch:  # not torch's memory: see above
            self._copying.append((arrived, batch))
        self._let_go()
        return Sent(on_device, sizes_of(batch), arrived)

    def _let_go(self) -> None:
        """Let go of batches whose copies have ended; of some later, when threads meet here."""
        while self._copying:
            try:
                arrived, batch = self._copying.popleft()
            except IndexError:
                return
            if not arrived.query():  # type: ignore[no-untyped-call]
                self._copying.appendleft((arrived, batch))
                return

    def close(self) -> None:
        """Wait for copies under way and let go of their batches."""
        _end_copies(self._stream, self._copying)

    def lock_pages(self, memory: Slab) -> bool:
        """Page-lock mapped memory for copies to the device; whether that was granted."""
        return lock_pages(memory, self.device)

    def receive(self, sent: Sent) -> Batch:
        """Make a sent batch safe to use on the current stream of the calling, consumer's thread."""
        if sent.arrived is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(sent.arrived)
            sent.batch.record_stream(current)
        return sent.batch


def _end_copies(stream: torch.cuda.Stream, copying: deque[tuple[torch.cuda.Event, Batch]]) -> None:
    if copying:
        stream.synchronize()
    copying.clear()
