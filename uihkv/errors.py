"""Every way the store says no.

All errors derive from :class:`UihkvError`. A message says what was found, what was expected and what to
do. Errors are raised where the fact is known; nothing is clamped, dropped or logged instead.
"""

from __future__ import annotations


class UihkvError(Exception):
    """Base of all errors of the store and the loader."""


class SchemaError(UihkvError):
    """Data, a projection or a schema does not fit: ``column 'item_id': float64 given, int64 expected``."""


class StoreExistsError(UihkvError):
    """``create`` on a path where something already is."""


class StoreNotFoundError(UihkvError):
    """``open`` on a path where nothing is."""


class StoreClosedError(UihkvError):
    """A store or snapshot was used after it was closed."""


class ReadOnlyError(UihkvError):
    """A write to a store that was opened with ``readonly=True``."""


class FormatError(UihkvError):
    """The path holds something that is not a store, or a store of a newer format than this package reads."""


class CorruptChunkError(UihkvError):
    """A chunk's bytes are not what was written. Names the shard, the user and the range of versions."""

    def __init__(self, what: str, *, shard: int, user_id: int | str, start: int, end: int) -> None:
        self.what = what
        self.shard = shard
        self.user_id = user_id
        self.start = start
        self.end = end
        super().__init__(
            f"shard {shard:04d}, user {user_id}, versions [{start}, {end}): {what}; restore this shard from a backup"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the fields, so that the error crosses a process border as itself."""
        return _rebuild_corrupt, (str(self), self.what, self.shard, self.user_id, self.start, self.end)


def _rebuild_corrupt(
    message: str, what: str, shard: int, user_id: int | str, start: int, end: int
) -> CorruptChunkError:
    error = CorruptChunkError(what, shard=shard, user_id=user_id, start=start, end=end)
    error.args = (message,)
    return error


class PointerError(UihkvError):
    """A pointer does not fit the store: a version past the head, or a ``last_ts`` that does not match."""


class NotVisibleYetError(UihkvError):
    """The store had not caught up with a pointer by its deadline."""


class TrimmedError(UihkvError):
    """The read needs events that ``trim`` has removed."""


class StoreFullError(UihkvError):
    """No space left: the file system, or the address space reserved for a shard, is used up."""


class IngestError(UihkvError):
    """A process of an ingest died, or failed in a way that cannot be told elsewhere; what was stored stays."""


class StoreWarning(UserWarning):
    """The store works, but how it is used will hurt: on a network file system, or with a snapshot held too long."""
