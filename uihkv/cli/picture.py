"""A store in one picture: how long histories are, how late events arrive, and where the bytes go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from uihkv.maintenance import StorageDetails, StoreStats
from uihkv.portrait import Portrait

SUFFIXES = (".png", ".svg", ".pdf")
_BARS = 40
_MOST_COLUMNS = 12


def draw_store(title: str, stats: StoreStats, portrait: Portrait, path: Path) -> Path:
    """Draw into a file; its suffix, one of ``SUFFIXES``, says in which form. ``stats`` has details."""
    from matplotlib.figure import Figure

    assert stats.details is not None
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    (lengths, late), (columns, encodings) = figure.subplots(2, 2)
    of_all = f"{len(portrait.lengths):,} of {portrait.users:,} users"
    looked_at = "" if len(portrait.lengths) == portrait.users else f" ({of_all} looked at)"
    figure.suptitle(f"{title}: {stats.users:,} users, {stats.events:,} events{looked_at}")
    _draw_lengths(lengths, portrait)
    _draw_delays(late, portrait)
    _draw_columns(columns, stats.details)
    found = {name: float(counts["bytes"]) for name, counts in stats.details.encodings.items()}
    _draw_bars(encodings, found)
    lz4 = stats.details.lz4_bytes / 1e6
    encodings.set(title="Bytes of blocks by encoding", xlabel=f"MB; {lz4:,.2f} of them in LZ4")
    figure.savefig(path, dpi=120)
    return path


def _draw_lengths(axes: Any, portrait: Portrait) -> None:
    longest = int(portrait.lengths.max(initial=1))
    edges = np.unique(np.geomspace(1, longest + 1, _BARS).astype(np.int64))
    axes.hist(portrait.lengths[portrait.lengths > 0], bins=edges if len(edges) > 1 else 1)
    axes.set(title="Lengths of histories", xlabel="events", ylabel="users", xscale="log")


def _draw_delays(axes: Any, portrait: Portrait) -> None:
    events = max(portrait.events, 1)
    shares = [100 * count / events for count in portrait.delays.values()]
    axes.bar(list(portrait.delays), shares)
    axes.tick_params(axis="x", rotation=45)
    share = 100 * portrait.out_of_order / events
    axes.set(
        title=f"Late arrivals: {share:.2f} % out of order", xlabel="visible after ts by up to", ylabel="% of events"
    )


def _draw_columns(axes: Any, details: StorageDetails) -> None:
    most = sorted(details.columns.items(), key=lambda column: -column[1])
    found = {name: float(size) for name, size in most[:_MOST_COLUMNS]}
    if most[_MOST_COLUMNS:]:
        found[f"{len(most) - _MOST_COLUMNS} other columns"] = float(sum(size for _, size in most[_MOST_COLUMNS:]))
    found["(headers and keys)"] = float(details.header_bytes + details.key_bytes)
    pages = details.node_bytes + details.branch_bytes + details.gap_bytes + details.free_bytes + details.other_bytes
    found["(pages)"] = float(pages)
    _draw_bars(axes, found)
    axes.set(title="Bytes by column", xlabel="MB")


def _draw_bars(axes: Any, found: dict[str, float]) -> None:
    axes.barh(list(found), [size / 1e6 for size in found.values()])
    axes.invert_yaxis()
