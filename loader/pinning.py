"""Memory that the loader has mapped itself, page-locked for copies to a CUDA device.

**Not yet run on a GPU**: written after CUDA's and torch's documented rules and reviewed; the CPU path is tested.

torch's own page-locked memory is allocated by torch. Slabs that worker processes fill are mapped memory; CUDA can lock
such memory where it lies (``cudaHostRegister``), and a batch in it then needs no copy into another slab before
it goes to the device. Registered memory is unknown to torch's caching host allocator, which guards only its own
against being used again while a copy runs: :class:`loader.prefetch.Transfer` does that for these batches.

Locking may be refused (limits on locked memory, containers). Then batches are copied into torch's own page-locked
memory as if nothing had been tried.
"""

from __future__ import annotations

import weakref

import torch

from loader.slabs import Slab
from uihkv.slabs import address_of

_PORTABLE = 1
"""``cudaHostRegisterPortable``: locked for every context, not only that of the current device."""


def lock_pages(memory: Slab, device: torch.device) -> bool:
    """Page-lock mapped memory until the array dies; whether that was granted.

    Args:
        memory: the array that keeps the mapping alive: all others over it refer to this one.
        device: whose context is made current.

    """
    cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    address = address_of(memory)
    with torch.cuda.device(device):
        if int(cudart.cudaHostRegister(address, memory.nbytes, _PORTABLE)) != 0:
            return False
    # An array's finalizer runs before it lets go of the mapping. At exit the process takes both with it.
    weakref.finalize(memory, cudart.cudaHostUnregister, address).atexit = False
    return True
