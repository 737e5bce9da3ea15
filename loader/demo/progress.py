"""Where is the demo, while it runs? Bars on a terminal, silence anywhere else.

Bars go to standard error, so that standard output holds the closing table, or JSON, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Update(Protocol):
    """Moves a bar."""

    def __call__(self, done: int, note: str = "") -> None:
        """``done`` steps are done; ``note`` stands behind the bar."""


class Stages:
    """A bar for each stage of the demo; used in a ``with``."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    @contextmanager
    def stage(self, what: str, total: int) -> Iterator[Update]:
        """A bar of ``total`` steps."""
        task = self._bars.add_task(what, total=total, note="")

        def update(done: int, note: str = "") -> None:
            self._bars.update(task, completed=done, note=note)

        yield update
        self._bars.update(task, completed=total)
