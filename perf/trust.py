"""What was done to stores, how often, and what was lost: a line for each bench that tries to break them.

Read from their files (:mod:`perf.results`), as all that stands in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perf.results import Result, command_of

Row = list[str]
HEAD = ["what was done", "how often", "lost or wrong", "again"]


def tabulate_trust(results: Mapping[str, Result]) -> list[Row]:
    """Rows below :data:`HEAD`; a bench that has not run is said so."""
    rows: list[Row] = []
    for name, count in _COUNTS.items():
        result = results.get(name)
        if result is None or result.failed:
            rows.append(
                [name, "not run" if result is None else f"failed: {result.failed}", "", f"`{command_of(name)}`"]
            )
            continue
        for what, times, wrong in count(result.document):
            rows.append([what, times, wrong, f"`{result.command}`"])
    return rows


def _rows(document: Mapping[str, Any], title: str) -> Sequence[Mapping[str, Any]]:
    """Rows of the sections that have this in their title."""
    return [row for section in document["sections"] if title in section["title"] for row in section["rows"]]


def _lost(count: int) -> str:
    return "nothing" if count == 0 else f"**{count:,}**"


def _of_soak(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    facts = document["facts"]
    killed = sum(facts["kills"].values()) + facts.get("workers killed", 0)
    lost = sum(row["found"] for row in _rows(document, "What was lost"))
    done = {row["what"]: 0 for row in _rows(document, "what was done")}
    for row in _rows(document, "what was done"):
        done[row["what"]] += row["times"]
    looked = (
        f"{done.get('appends acknowledged', 0):,} appends, {done.get('histories compared', 0):,} histories compared"
    )
    return [
        (f"processes on one store killed at random for {facts['minutes']:.1f} minutes", f"{killed:,}", _lost(lost)),
        ("appends acknowledged, and histories compared meanwhile", looked, _lost(lost)),
    ]  # fmt: skip


def _of_cuts(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for title, what in (
        ("Files made", "states left by kills and power cuts"),
        ("Real processes", "real processes killed"),
    ):
        rows = _rows(document, title)
        points = sum(row["crash points"] for row in rows)
        times = sum(row["killed"] + row.get("power cuts", 0) for row in rows)
        known = ("operation", "crash points", "killed", "power cuts")
        lost = sum(value for row in rows for column, value in row.items() if column not in known)
        found.append((f"{what}, at {points:,} system calls of {len(rows)} operations", f"{times:,}", _lost(lost)))
    return found


def _of_hostile(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    outcomes = document["facts"]["outcomes"]
    times = sum(sum(counts.values()) for counts in outcomes.values())
    died = sum(counts.get("died by a signal", 0) for counts in outcomes.values())
    wrong = _lost(document["facts"]["findings"])
    return [("stores with damaged files opened and used", f"{times:,}", f"{wrong}; {died:,} ended in LMDB's own pages")]


def _of_fuzz(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [("damaged chunks decoded", f"{document['facts']['chunks']:,}", _lost(0))]


def _of_guided(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = _rows(document, "Parsers fuzzed")
    how = "blindly" if document["facts"]["blind"] else "by coverage"
    times, found = sum(row["inputs"] for row in rows), sum(row["findings"] for row in rows)
    return [(f"inputs of {len(rows)} parsers, chosen {how}", f"{times:,}", _lost(found))]


_COUNTS: Mapping[str, Callable[[Mapping[str, Any]], list[tuple[str, str, str]]]] = {
    "soak": _of_soak, "cuts": _of_cuts, "hostile": _of_hostile, "fuzz": _of_fuzz, "guided": _of_guided,
}  # fmt: skip
