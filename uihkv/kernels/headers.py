"""Fields of opened chunks for whoever plans by them, and counts over all blocks."""

from __future__ import annotations

from typing import Any

from numba import njit

from uihkv.kernels.decode import find_block
from uihkv.kernels.memory import load_u16


@njit(nogil=True, cache=True)
def load_schema_versions(address: Any, wanted: Any, place: Any, version: Any) -> None:
    """Schema version of each wanted entry, which stands at ``place`` in its header: int64[n]."""
    for i in range(len(wanted)):
        version[i] = load_u16(address[wanted[i]] + place)


@njit(nogil=True, cache=True)
def tally_blocks(
    address: Any, wanted: Any, version: Any, lay_width: Any, lay_elements: Any, lay_kind: Any, lay_blocks: Any,
    column_of: Any, same: Any, by_column: Any, by_encoding: Any, by_codec: Any,
) -> None:  # fmt: skip
    """Add up the stored bytes of all blocks of opened entries.

    Args:
        address: int64[entries].
        wanted: int64[n].
        version: int64[n], their schema versions.
        lay_width, lay_elements, lay_kind, lay_blocks: the layouts.
        column_of: int64[versions, blocks], a place in ``by_column`` for each block.
        same: what encoding counts as where a block is that of another one.
        by_column: int64[columns], added to.
        by_encoding: int64[encodings, 2], blocks and bytes, added to.
        by_codec: int64[codecs], bytes, added to.

    """
    for i in range(len(wanted)):
        chunk = address[wanted[i]]
        for block in range(lay_blocks[version[i]]):
            found, encoding, _, codec, _, begin, end, _, _ = find_block(chunk, block, lay_width, lay_elements, lay_kind)
            if found != block:
                by_encoding[same, 0] += 1
                continue
            by_column[column_of[version[i], block]] += end - begin
            by_encoding[encoding, 0] += 1
            by_encoding[encoding, 1] += end - begin
            by_codec[codec] += end - begin
