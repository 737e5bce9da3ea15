"""A line on the terminal that says how a loader is doing, while it does.

It goes to standard error, and only where that is a terminal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loader.stats import LoaderStats

_EVERY_S = 0.5


@contextmanager
def live_line(read: Callable[[], LoaderStats], prefetch: int, disable: bool = False) -> Iterator[None]:
    """Show a loader's numbers while inside.

    Args:
        read: gives them.
        prefetch: most batches that can be ready.
        disable: show nothing.

    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    if disable or not console.is_terminal:
        yield
        return
    done = threading.Event()
    with Live(Text(describe_line(read(), prefetch)), console=console, auto_refresh=False) as live:

        def refresh() -> None:
            while not done.wait(_EVERY_S):
                live.update(Text(describe_line(read(), prefetch)), refresh=True)

        thread = threading.Thread(target=refresh, name="uihkv-live", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            live.update(Text(describe_line(read(), prefetch)), refresh=True)


def describe_line(stats: LoaderStats, prefetch: int) -> str:
    """One line: rates, how long the consumer waited, what limits, and how many batches lie ready."""
    limits = stats.limiting or "nothing yet"
    return (
        f"{stats.batches:,} batches  {stats.examples_per_s:,.0f} examples/s  {stats.events_per_s:,.0f} events/s  "
        f"{stats.bytes_per_s / 1e6:,.0f} MB/s  waits {stats.wait_share:.1%}  limited by {limits}  "
        f"ready {stats.ready_mean:.1f}/{prefetch}"
    )
