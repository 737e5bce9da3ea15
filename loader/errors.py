"""Every way the loader itself says no; all derive from :class:`uihkv.UihkvError`.

Examples and projections that do not fit raise :class:`uihkv.SchemaError` and :class:`uihkv.PointerError`, as
they do in the store.
"""

from __future__ import annotations

from uihkv import UihkvError


class SettingError(UihkvError, ValueError):
    """An argument that cannot be: ``batch_size is 0; a whole number of 1 or more is expected``."""


class StateError(UihkvError):
    """A state that is not a loader's, or was taken of other data or with other settings."""


class DeviceError(UihkvError):
    """A device that this machine, or this build of torch, does not have."""


class WorkerError(UihkvError):
    """A worker process died, or failed in a way that has no class of its own here."""


class LoaderClosedError(UihkvError):
    """A loader was used after it was closed, or closed while one of its iterators was in use."""
