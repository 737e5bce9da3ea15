"""Histories as TorchRec's ``KeyedJaggedTensor``, and batches in its train pipelines.

Needs torchrec and fbgemm (``pip install uihkv[torchrec]``; on a machine without CUDA ``fbgemm-gpu-cpu``, both with
``--no-deps``, since torchrec's own requirement is the CUDA build). Importing this module makes :class:`~loader.Batch`
a ``Pipelineable``: TorchRec's pipelines then move it by its own ``to`` and ``record_stream``, by one copy and one call
a batch.

A ``KeyedJaggedTensor`` lies key by key: all rows of the first key, then all of the second. One column as one key is
the same memory; several columns are joined by one copy.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from loader.batch import Batch, History
from loader.dedup import Deduplicated
from loader.jagged import Jagged
from uihkv import SchemaError

Pipelineable.register(Batch)


def column_to_kjt(column: Jagged | Deduplicated, key: str) -> KeyedJaggedTensor:
    """One column as one key, of the same memory; a deduplicated one is expanded first.

    Raises:
        SchemaError: for a ragged column, or one with a shape: a key's values are single ids.

    """
    plain = _single_ids(column.expand(), key)
    return KeyedJaggedTensor(
        keys=[key], values=plain.values, lengths=plain.lengths, offsets=plain.offsets, stride=len(plain),
        length_per_key=[len(plain.values)], offset_per_key=[0, len(plain.values)],
    )  # fmt: skip


def history_to_kjt(history: History, keys: Iterable[str] | None = None) -> KeyedJaggedTensor:
    """Several columns as keys, joined in one copy; sizes are known on the host, so nothing waits for the device.

    Args:
        history: of one tenant.
        keys: its columns, of one dtype; None: all.

    Raises:
        SchemaError: for a column that was not read, is ragged or has a shape, or for columns of several dtypes.

    """
    plain, names = history.expand(), list(history if keys is None else keys)
    if not names:
        raise SchemaError("no keys given; name at least one column")
    columns = [_single_ids(plain[name], name) for name in names]
    dtypes = {column.values.dtype for column in columns}
    if len(dtypes) > 1:
        raise SchemaError(f"columns {names} have the types {sorted(map(str, dtypes))}; a KeyedJaggedTensor has one")
    events = [len(column.values) for column in columns]
    starts = [sum(events[:number]) for number in range(len(events) + 1)]
    lengths = plain.lengths.repeat(len(names))
    offsets = torch.cat(
        [column.offsets[:-1] + start for column, start in zip(columns, starts, strict=False)]
        + [columns[-1].offsets[-1:] + starts[-2]]
    )
    return KeyedJaggedTensor(
        keys=names, values=torch.cat([column.values for column in columns]), lengths=lengths, offsets=offsets,
        stride=len(plain), length_per_key=events, offset_per_key=starts,
    )  # fmt: skip


def _single_ids(column: Jagged, name: str) -> Jagged:
    if column.element_offsets is not None:
        raise SchemaError(f"column {name!r} is ragged; a key of a KeyedJaggedTensor has single values an event")
    if column.values.ndim != 1:
        shape = list(column.values.shape[1:])
        raise SchemaError(f"column {name!r} has events of shape {shape}; single values are expected")
    return column
