"""Single fields of opened chunks, for whoever plans by them."""

from __future__ import annotations

from typing import Any

from numba import njit

from uihkv.kernels.memory import load_u16


@njit(nogil=True, cache=True)
def load_schema_versions(address: Any, wanted: Any, place: Any, version: Any) -> None:
    """Schema version of each wanted entry, which stands at ``place`` in its header: int64[n]."""
    for i in range(len(wanted)):
        version[i] = load_u16(address[wanted[i]] + place)
