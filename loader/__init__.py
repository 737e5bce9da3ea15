"""Examples in, device-ready batches with their histories out.

loader = Loader(store, ParquetExamples("examples.parquet"), projection=Projection(max_len=1024), batch_size=256)
for batch in loader:
    batch.examples["label"]                      # Tensor [B]
    batch.history["item_id"].padded(1024)        # Tensor [B, 1024]
"""

from loader.batch import Batch
from loader.errors import DeviceError, LoaderClosedError, SettingError, StateError
from loader.examples import ArrayExamples, Examples, ParquetExamples
from loader.iterator import LoaderIterator
from loader.jagged import Jagged, TenantHistory
from loader.loader import Loader
from loader.stats import LoaderStats, StageStats

__all__ = [
    "ArrayExamples",
    "Batch",
    "DeviceError",
    "Examples",
    "Jagged",
    "Loader",
    "LoaderClosedError",
    "LoaderIterator",
    "LoaderStats",
    "ParquetExamples",
    "SettingError",
    "StageStats",
    "StateError",
    "TenantHistory",
]
