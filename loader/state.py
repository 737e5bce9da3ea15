"""What a loader remembers between runs: its place in an epoch, and what that place refers to.

A state is a few plain values that JSON can hold. The place is a count of examples over all ranks, so it means the same
with another world size at the same global batch. Beside it stand the data and the settings that decide which
examples come in which order and what is read for them; a state of others is refused, and the refusal says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loader.errors import StateError

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two batches.

    Attributes:
        epoch: from 0.
        consumed: examples of it that all ranks have been handed.

    """

    epoch: int
    consumed: int


def write_state(position: Position, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """State of a loader, JSON-able."""
    return {
        "version": STATE_VERSION,
        "epoch": position.epoch,
        "consumed": position.consumed,
        "fingerprint": dict(fingerprint),
    }


def read_state(state: Any, fingerprint: Mapping[str, Any]) -> Position:
    """The place that a state names.

    Args:
        state: what :func:`write_state` gave, maybe by way of JSON.
        fingerprint: of the loader that shall resume.

    Raises:
        StateError: for something else, a newer version, or a state of other data or settings.

    """
    if not isinstance(state, Mapping) or not {"version", "epoch", "consumed", "fingerprint"} <= set(state):
        raise StateError(f"{state!r:.80} is not a loader's state; give what state_dict() returned")
    if state["version"] != STATE_VERSION:
        raise StateError(f"the state has version {state['version']!r}, this loader reads version {STATE_VERSION}")
    for name in ("epoch", "consumed"):
        value = state[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise StateError(f"the state's {name} is {value!r}; a whole number of 0 or more is expected")
    theirs = state["fingerprint"]
    if not isinstance(theirs, Mapping):
        raise StateError(f"the state's fingerprint is {theirs!r:.80}; give what state_dict() returned")
    other = [
        f"{name} was {theirs.get(name)!r} and is {fingerprint.get(name)!r}"
        for name in [*fingerprint, *(name for name in theirs if name not in fingerprint)]
        if theirs.get(name) != fingerprint.get(name)
    ]
    if other:
        raise StateError(
            f"the state is of other data or settings: {'; '.join(other)}; resume with the same, or start anew"
        )
    return Position(state["epoch"], state["consumed"])
