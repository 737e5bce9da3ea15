"""Public logs, and logs of one's own, into a store: one module a format.

============  ============================================  =======  ==================================================
format        files                                         user_id  columns beside ``ts``
============  ============================================  =======  ==================================================
jsonl         a JSON object a line, of any fields           mapped   the given schema's movielens     ``ratings.dat``,
``ratings.csv``, ``u.data``  int64    item_id, rating kuairand      ``log_*.csv`` int64    item_id, feedback of many
kinds, is_rand, tab amazon        ``*.jsonl`` reviews, ``*.csv`` splits        string   item_id, rating, asin,
helpful_vote, … yambda        ``*.parquet``, flat and sequential int64    item_id, event_type, is_organic,
played_ratio_pct otto          ``*.jsonl``, a session a line int64    item_id, action taobao
``UserBehavior.csv``                          int64    item_id, category_id, action mind          ``behaviors.tsv``
int64    item_id, action, impression_id retailrocket  ``events.csv``                                int64    item_id,
action, transaction_id
============  ============================================  =======  ==================================================

What exactly each becomes stands in its module's docstring. ``git log`` (:mod:`.gitlog`) and fat rows (:mod:`.fatrows`)
have functions and commands of their own.

To add a format: write a frozen dataclass with the members of :class:`uihkv.importers.protocol.Importer`, name it in
:data:`FORMATS`; or give such an object to :func:`import_log`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from importlib import import_module
from typing import Any

from uihkv.errors import SchemaError
from uihkv.importers.protocol import BadLines, Importer, OnBad, Order, Part
from uihkv.importers.storing import BATCH_ROWS, ImportProgress, ImportResult, list_logs, store_log

__all__ = [
    "FORMATS",
    "BadLines",
    "ImportProgress",
    "ImportResult",
    "Importer",
    "Part",
    "import_log",
    "make_importer",
]

FORMATS = {
    "jsonl": "jsonl:JsonLines",
    "movielens": "movielens:MovieLens",
    "kuairand": "kuairand:KuaiRand",
    "amazon": "amazon:Amazon",
    "yambda": "yambda:Yambda",
    "otto": "otto:Otto",
    "taobao": "taobao:Taobao",
    "mind": "mind:Mind",
    "retailrocket": "retailrocket:Retailrocket",
}
"""Formats by name: the module and the class of each importer, loaded when it is asked for."""


def make_importer(name: str, **options: Any) -> Importer:
    """The importer of a format.

    Args:
        name: one of :data:`FORMATS`.
        options: its own, as its class documents them.

    Raises:
        SchemaError: for a format that is not there, or options that it does not have.

    """
    if name not in FORMATS:
        raise SchemaError(f"format {name!r} is not there; one of {', '.join(FORMATS)} is expected")
    module, _, kind = FORMATS[name].partition(":")
    made: Any = getattr(import_module(f"uihkv.importers.{module}"), kind)
    known = [field.name for field in fields(made)]
    odd = sorted(set(options) - set(known))
    if odd:
        raise SchemaError(f"{name} has no options {odd}; it has {', '.join(known) or 'none'}")
    importer: Importer = made(**options)
    return importer


def import_log(
    format: str | Importer,
    store: str | os.PathLike[str],
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    source: str | None = None,
    shards: int = 16,
    order: Order | None = None,
    on_bad: OnBad = "raise",
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[ImportProgress], None] | None = None,
    **options: Any,
) -> ImportResult:
    """Put the events of a log into a store, which is made if it is not there.

    Events become visible at their ``ts``, unless the format has a second clock. Every line is read and checked before
    the first event is stored.

    Args:
        format: a name of :data:`FORMATS`, or an importer.
        store: folder of a store whose schema has the format's columns, or where nothing is yet.
        files: the log's files, in order.
        source: name under which the events are counted, so that an interrupted import can be run again with the same
            files and settings and stores nothing twice.
        shards: of a store that is made.
        order: ``"time"``: a user's events arrive by their ``ts``, ties as they stand in the files; ``"rows"``: as they
            stand in the files, more of which may follow under the same source. None: as suits the format.
        on_bad: ``"raise"`` for the first line that is no event of the format, or ``"skip"`` and count them.
        batch_rows: events an append; 1 or more.
        progress: called after each piece that was read and each batch that was stored.
        options: of the format, as its class documents them.

    Raises:
        FormatError: for files that are not there, cannot be read, or are not of the format at all.
        SchemaError: for bad lines, a store of other columns, other arguments, or a source that began with other files.
        ReadOnlyError, StoreFullError, CorruptChunkError: as ``Store.append``.

    """
    importer = make_importer(format, **options) if isinstance(format, str) else format
    return store_log(
        importer, store, list_logs(files), source=source, shards=shards, order=order, on_bad=on_bad,
        batch_rows=batch_rows, progress=progress,
    )  # fmt: skip
