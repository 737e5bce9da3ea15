"""The table of what was done to stores says what its benches' files say, and what was found."""

from __future__ import annotations

from typing import Any

from perf.results import Result
from perf.trust import tabulate_trust


def result(name: str, sections: dict[str, list[dict[str, Any]]], facts: dict[str, Any]) -> dict[str, Result]:
    tables = [{"title": title, "rows": rows} for title, rows in sections.items()]
    return {name: Result({"bench": name, "when": "2026", "run": {}, "sections": tables, "facts": facts})}


def cuts(torn: int) -> dict[str, Result]:
    row = {"operation": "seal", "crash points": 4, "killed": 3, "power cuts": 9, "events lost": 0, "torn": torn}
    return result("cuts", {"Files made": [row, row], "Real processes killed": [{**row, "power cuts": 0}]}, {})


def test_what_was_done_is_counted_and_what_was_lost_is_said() -> None:
    rows = {row[0]: row[1:3] for row in tabulate_trust(cuts(0))}
    assert rows["states left by kills and power cuts, at 8 system calls of 2 operations"] == ["24", "nothing"]
    assert rows["real processes killed, at 4 system calls of 1 operations"] == ["3", "nothing"]
    assert rows["soak"] == ["not run", ""]
    assert [row[2] for row in tabulate_trust(cuts(2))[1:3]] == ["**4**", "**2**"]


def test_a_soak_that_lost_something_says_so() -> None:
    sections = {
        "1.0 minutes, 15 processes: what was done": [
            {"what": "appends acknowledged", "times": 5}, {"what": "appends acknowledged", "times": 6},
            {"what": "histories compared", "times": 7},
        ],
        "What was lost": [{"what": "acknowledged events lost", "found": 1}, {"what": "wrong sequences", "found": 0}],
    }  # fmt: skip
    facts = {"kills": {"writer": 3, "reader": 4}, "workers killed": 2, "minutes": 1.0}
    first, second, *_ = tabulate_trust(result("soak", sections, facts))
    assert first[:3] == ["processes on one store killed at random for 1.0 minutes", "9", "**1**"]
    assert second[1] == "11 appends, 7 histories compared"
