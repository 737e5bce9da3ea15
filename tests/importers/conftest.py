"""What every importer made of its sample, as a table: ``pytest -q tests/importers -s`` prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

Log = Callable[[str, int, int, int, object], None]


@pytest.fixture(scope="session")
def log_import() -> Iterator[Log]:
    """Takes a line of the table: what was imported, its files, events and users, and a sample of it."""
    lines: list[str] = []

    def log(name: str, files: int, events: int, users: int, sample: object) -> None:
        lines.append(f"{name:18} {files:5} {events:6} {users:5}  {sample}")

    yield log
    if lines:
        head = f"{'format':18} {'files':>5} {'events':>6} {'users':>5}  first event (ts, visible_at, columns)"
        print("\n".join(["", head, *sorted(lines)]))
