"""Histories of user interactions, stored once, read as of any version.

store = Store.create("store", Schema([Column("item_id", "int64")]))
store.append({"user_id": [7, 7], "ts": [1, 2], "item_id": [10, 11]}, backfill=True)
with store.snapshot() as snapshot:
    pointers = snapshot.head([7])
    histories = snapshot.read(pointers, Projection(max_len=1024))
"""

from typing import TYPE_CHECKING, Any

from uihkv.appending import AppendResult
from uihkv.errors import (
    CorruptChunkError,
    FormatError,
    IngestError,
    NotVisibleYetError,
    PointerError,
    ReadOnlyError,
    SchemaError,
    StoreClosedError,
    StoreExistsError,
    StoreFullError,
    StoreNotFoundError,
    StoreWarning,
    TrimmedError,
    UihkvError,
)
from uihkv.histories import Histories, ReadCost
from uihkv.maintenance import (
    BackupResult,
    CompactionPolicy,
    CompactionResult,
    Problem,
    SealResult,
    StorageDetails,
    StoreStats,
    TrimResult,
    VerifyReport,
)
from uihkv.pointers import Pointers
from uihkv.projection import Projection
from uihkv.sampling import StochasticLength
from uihkv.schema import Column, Schema
from uihkv.store import Store

if TYPE_CHECKING:
    from uihkv.snapshot import Snapshot

__version__ = "0.1.0"

__all__ = [
    "AppendResult",
    "BackupResult",
    "Column",
    "CompactionPolicy",
    "CompactionResult",
    "CorruptChunkError",
    "FormatError",
    "Histories",
    "IngestError",
    "NotVisibleYetError",
    "PointerError",
    "Pointers",
    "Problem",
    "Projection",
    "ReadCost",
    "ReadOnlyError",
    "Schema",
    "SchemaError",
    "SealResult",
    "Snapshot",
    "StochasticLength",
    "StorageDetails",
    "Store",
    "StoreClosedError",
    "StoreExistsError",
    "StoreFullError",
    "StoreNotFoundError",
    "StoreStats",
    "StoreWarning",
    "TrimResult",
    "TrimmedError",
    "UihkvError",
    "VerifyReport",
]


def __getattr__(name: str) -> Any:
    """``Snapshot`` loads the compiled read path: on first use, so that ``import uihkv`` stays light."""
    if name == "Snapshot":
        from uihkv.snapshot import Snapshot

        return Snapshot
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
