"""Examples in, device-ready batches with their histories out.

loader = Loader(store, ParquetExamples("examples.parquet"), projection=Projection(max_len=1024), batch_size=256)
for batch in loader:
    batch.examples["label"]                      # Tensor [B]
    batch.history["item_id"].padded(1024)        # Tensor [B, 1024]

torch is imported with the first name that is used, so that a command of this package can be found and described
without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loader.adapters.dataset import IterableUIHDataset
    from loader.batch import Batch
    from loader.dedup import DedupHistory, Deduplicated
    from loader.errors import DeviceError, LoaderClosedError, SettingError, StateError, WorkerError
    from loader.examples import ArrayExamples, Examples, ParquetExamples
    from loader.feeds import ArrowStream, JsonLines, ParquetFolder
    from loader.freshness import Freshness
    from loader.iterator import LoaderIterator
    from loader.jagged import Jagged, TenantHistory
    from loader.loader import Loader
    from loader.stats import LoaderStats, StageStats
    from loader.stream import StreamLoader
    from loader.streamexamples import StreamExamples

_HOMES = {
    "ArrayExamples": "examples",
    "ArrowStream": "feeds",
    "Batch": "batch",
    "DedupHistory": "dedup",
    "Deduplicated": "dedup",
    "DeviceError": "errors",
    "Examples": "examples",
    "Freshness": "freshness",
    "IterableUIHDataset": "adapters.dataset",
    "Jagged": "jagged",
    "JsonLines": "feeds",
    "Loader": "loader",
    "LoaderClosedError": "errors",
    "LoaderIterator": "iterator",
    "LoaderStats": "stats",
    "ParquetExamples": "examples",
    "ParquetFolder": "feeds",
    "SettingError": "errors",
    "StageStats": "stats",
    "StateError": "errors",
    "StreamExamples": "streamexamples",
    "StreamLoader": "stream",
    "TenantHistory": "jagged",
    "WorkerError": "errors",
}
"""The module of each public name."""

__all__ = [
    "ArrayExamples",
    "ArrowStream",
    "Batch",
    "DedupHistory",
    "Deduplicated",
    "DeviceError",
    "Examples",
    "Freshness",
    "IterableUIHDataset",
    "Jagged",
    "JsonLines",
    "Loader",
    "LoaderClosedError",
    "LoaderIterator",
    "LoaderStats",
    "ParquetExamples",
    "ParquetFolder",
    "SettingError",
    "StageStats",
    "StateError",
    "StreamExamples",
    "StreamLoader",
    "TenantHistory",
    "WorkerError",
]


def __getattr__(name: str) -> Any:
    """A public name, from its module, on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
