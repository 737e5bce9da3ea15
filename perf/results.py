"""What benches found, as read back from their JSON, and how a figure in it is named.

A :class:`Result` is one bench's file. A :class:`Pick` names figures in it: bench, table, column, and which rows. It is
how README.md, the report's first page and its comparisons get at numbers, so that each can be followed to a file and
to the command that makes it again. A pick whose bench has not run finds nothing; one that names a table or column that
a file does not have is an error, since somebody must correct it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from perf.report import cell_text
from perf.timing import Samples

_VALUED = ("--out", "--scratch")
"""Options that say where, not what: they do not belong to the command that makes a figure again."""


class StalePickError(LookupError):
    """A figure is asked for that its bench's file does not have."""


@dataclass(frozen=True, slots=True)
class Result:
    """One bench's file.

    Attributes:
        document: what :func:`perf.report.write_json` wrote.

    """

    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The bench's."""
        return str(self.document["bench"])

    @property
    def when(self) -> str:
        """Its end, UTC."""
        return str(self.document["when"])

    @property
    def failed(self) -> str:
        """How the last run failed; empty: it did not."""
        return str(self.document.get("failed", ""))

    @property
    def command(self) -> str:
        """What makes it again."""
        words = [*self.document.get("run", {}).get("arguments", ())]
        for option in _VALUED:
            while option in words:
                at = words.index(option)
                del words[at : at + 2]
        if "--seed" in words and words[words.index("--seed") + 1] == "0":  # the default
            at = words.index("--seed")
            del words[at : at + 2]
        return command_of(self.name, *words)

    def tables(self, title: str = "") -> list[Mapping[str, Any]]:
        """Tables whose title begins so."""
        return [part for part in self.document.get("sections", ()) if part["title"].startswith(title)]


def command_of(name: str, *words: str) -> str:
    """The command that runs a bench."""
    return shlex.join(["python", "-m", f"perf.{name}", *words])


def load_results(folder: Path) -> dict[str, Result]:
    """Every bench's file of a folder, by the bench's name."""
    found = (Result(json.loads(path.read_text())) for path in sorted(folder.glob("*.json")))
    return {result.name: result for result in found}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number found by a pick.

    Attributes:
        row: the row that it stands in.
        column: its column.
        value: the number, a median where there were repetitions.
        low, high: its quartiles; the value itself where there were no repetitions.
        noisy: whether it is too noisy to tell.
        title: of its table, up to the first colon.

    """

    row: Mapping[str, Any]
    column: str
    value: float
    low: float
    high: float
    noisy: bool = False
    title: str = ""

    def inverse(self) -> Figure:
        """One over it."""
        return replace(self, value=1 / self.value, low=1 / self.high, high=1 / self.low)

    def text(self) -> str:
        """As it stands in a text."""
        return ("~" if self.noisy else "") + number_text(self.value)


@dataclass(frozen=True, slots=True)
class Pick:
    """Figures of one bench.

    Attributes:
        bench: its name.
        table: how the table's title begins; every table that begins so is looked at. Empty: all tables that have the
            columns of ``where``.
        column: the column of the figures; a tuple: of several.
        where: values of other columns, by name; a tuple of values allows any of them.
        without: the same of rows that are left out.
        over: the column that figures are divided by, repetition by repetition where both have as many; empty: none.

    """

    bench: str
    table: str
    column: str | tuple[str, ...]
    where: Mapping[str, Any] = field(default_factory=dict)
    without: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    over: str = ""

    def find(self, results: Mapping[str, Result]) -> list[Figure]:
        """All figures, in the order of the tables; none where the bench has not run, or failed.

        Raises:
            StalePickError: the file has no such table, column or row.

        """
        result = results.get(self.bench)
        if result is None or result.failed:
            return []
        tables = result.tables(self.table)
        if not tables:
            raise StalePickError(f"{self.bench}.json has no table whose title begins {self.table!r}")
        found = [
            replace(figure, title=table["title"].partition(":")[0])
            for table in tables
            for row in table["rows"]
            for figure in self._of_row(row)
        ]
        if not found:
            raise StalePickError(f"{self.bench}.json, {self.table!r}: no figure in {self.column!r} where {self.where}")
        return found

    def _of_row(self, row: Mapping[str, Any]) -> Iterator[Figure]:
        columns = (self.column,) if isinstance(self.column, str) else self.column
        absent = [name for name in (*self.where, *self.without) if name not in row]
        if absent and not self.table:
            return
        if absent:
            raise StalePickError(f"{self.bench}.json, {self.table!r}: no column {absent[0]!r}, there are {[*row]}")
        for name, wanted in self.where.items():
            if row[name] not in (wanted if isinstance(wanted, tuple) else (wanted,)):
                return
        if any(row[name] in values for name, values in self.without.items()):
            return
        for column in columns:
            figure = read_figure(row, column)
            if figure is not None and self.over:
                figure = divide_figures(row, column, self.over)
            if figure is not None:
                yield figure


def divide_figures(row: Mapping[str, Any], column: str, over: str) -> Figure | None:
    """One column over another; None where either holds no number."""
    above, below = read_figure(row, column), read_figure(row, over)
    if above is None or below is None:
        return None
    several = [row[name].get("values", ()) if isinstance(row[name], Mapping) else () for name in (column, over)]
    if len(several[0]) == len(several[1]) > 1:
        ratio = Samples(np.array(several[0]) / np.array(several[1]))
        return Figure(row, column, ratio.median, ratio.low, ratio.high, ratio.noisy)
    ratios = [first / second for first in (above.low, above.high) for second in (below.low, below.high)]
    return Figure(row, column, above.value / below.value, min(ratios), max(ratios), above.noisy or below.noisy)


def read_figure(row: Mapping[str, Any], column: str) -> Figure | None:
    """A cell as a figure; None where it holds no number."""
    cell = row.get(column)
    if isinstance(cell, Mapping):
        value = cell.get("median", cell.get("value"))
        if value is None:
            return None
        return Figure(row, column, value, cell["low"], cell["high"], bool(cell.get("noisy")))
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return None
    return Figure(row, column, cell, cell, cell)


def number_text(value: float) -> str:
    """A number in three digits, or whole from a thousand on."""
    return cell_text(float(value))
