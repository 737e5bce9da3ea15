"""What a loader remembers between runs: its place in an epoch, and what that place refers to.

A state is a few plain values that JSON can hold. The place is a count of examples over all ranks, so it means the same
with another world size at the same global batch; where ranks own shards, it is how many batches which ranks have made.
Beside it stand the data and the settings that decide which
examples come in which order and what is read for them; a state of others is refused, and the refusal says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

from loader.errors import StateError

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Segment:
    """Batches that ranks which own shards made of what remained of an epoch.

    Attributes:
        world_size: how many ranks.
        batch_size: most examples a batch.
        max_events: most events a batch; 0: no limit.
        batches: how many each rank made.

    """

    world_size: int
    batch_size: int
    max_events: int
    batches: int

    def same_ranks(self, other: Segment) -> bool:
        """Whether batches of the other segment would have gone on with this one's."""
        return self.made(0) == other.made(0)

    def made(self, batches: int) -> Segment:
        """The same ranks, with another number of batches."""
        return replace(self, batches=batches)


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two batches.

    Attributes:
        epoch: from 0.
        consumed: examples of it that all ranks have been handed.
        segments: where ranks own shards, who was handed them; else nothing.

    """

    epoch: int
    consumed: int
    segments: tuple[Segment, ...] = ()


def write_state(position: Position, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """State of a loader, JSON-able."""
    state: dict[str, Any] = {"version": STATE_VERSION, "epoch": position.epoch, "consumed": position.consumed}
    if position.segments:
        state["segments"] = [list(astuple(segment)) for segment in position.segments]
    return {**state, "fingerprint": dict(fingerprint)}


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
    return Position(state["epoch"], state["consumed"], _read_segments(state.get("segments", [])))


def _read_segments(given: Any) -> tuple[Segment, ...]:
    lowest = (1, 1, 0, 1)
    whole = isinstance(given, list | tuple) and all(
        isinstance(segment, list | tuple)
        and len(segment) == len(lowest)
        and all(type(n) is int and n >= low for n, low in zip(segment, lowest, strict=True))
        for segment in given
    )
    if not whole:
        raise StateError(
            f"the state's segments are {given!r:.80}; [world_size, batch_size, max_events, batches] each are expected"
        )
    return tuple(Segment(*segment) for segment in given)
