"""KuaiRand: videos shown to users of Kuaishou, and what they did (Gao et al., CIKM 2022).

Files ``log_standard_*.csv`` and ``log_random_*.csv`` of KuaiRand-Pure, -1K and -27K, comma-separated, with a header:
``user_id, video_id, date, hourmin, time_ms, is_click, is_like, is_follow, is_comment, is_forward, is_hate, long_view,
play_time_ms, duration_ms, profile_stay_time, comment_stay_time, is_profile_enter, is_rand, tab``.

``video_id`` → ``item_id`` int64; ``time_ms`` → ``ts`` in ms; the flags (0 or 1) and ``tab`` (the page, 0 to 14)
uint8; ``play_time_ms`` and ``duration_ms`` in ms, and the two stay times, int64. ``date`` and ``hourmin`` say in
Beijing's time what ``time_ms`` says, and are left out. The logs of one period interleave, so arrival order is by
time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from uihkv.importers.delimited import Layout, read_delimited
from uihkv.importers.protocol import BadLines, Order, Part
from uihkv.schema import Column, Schema

_FLAGS = (
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "is_profile_enter",
    "is_rand", "tab",
)  # fmt: skip
_LENGTHS = ("play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time")
_TYPES = (
    dict.fromkeys(("user_id", "video_id", "time_ms"), pa.int64())
    | dict.fromkeys(_FLAGS, pa.uint8())
    | dict.fromkeys(_LENGTHS, pa.int64())
)
_RENAMED = {"video_id": "item_id", "time_ms": "ts"}


def _build(table: pa.Table) -> Mapping[str, Any]:
    return {_RENAMED.get(name, name): table.column(name) for name in table.column_names}


@dataclass(frozen=True, slots=True)
class KuaiRand:
    """The importer; it has no options."""

    name: ClassVar[str] = "kuairand"
    order: ClassVar[Order] = "time"

    def schema(self, files: Sequence[Path]) -> Schema:
        """Video, feedback, lengths and the page."""
        columns = [Column("item_id", "int64"), *(Column(name, "uint8") for name in _FLAGS)]
        return Schema([*columns, *(Column(name, "int64") for name in _LENGTHS)], time_unit="ms")

    def read(self, files: Sequence[Path], bad: BadLines) -> Iterator[Part]:
        """A shown video a line."""
        return read_delimited(files, Layout(",", _TYPES, _build), bad)
