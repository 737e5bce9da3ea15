"""Figures in a few words: nothing of what they belong to is lost, and nothing is said twice."""

from __future__ import annotations

from typing import Any

from perf.phrases import say_figures
from perf.results import Figure


def figures(*rows: tuple[float, dict[str, Any]]) -> list[Figure]:
    return [Figure(row, "x", value, value, value, title="Reads") for value, row in rows]


def test_numbers_that_differ_are_drawn_together() -> None:
    some = figures((2.5, {"events": 256, "way": "lz4"}), (4.0, {"events": 1024, "way": "lz4"}))
    assert say_figures(some, "{events} events, {way}") == "2.5 / 4 (256 / 1,024 events, lz4)"


def test_other_words_stand_behind_each() -> None:
    some = figures((2.5, {"log": "git"}), (4.0, {"log": "drawn, late"}))
    assert say_figures(some, "{log}") == "2.5 (git), 4 (drawn, late)"


def test_what_differs_besides_makes_groups_with_every_figure() -> None:
    rows = [(1.0 + n, {"order": order, "events": events, "new": "new"})
            for n, (order, events) in enumerate([("random", 128), ("random", 512), ("clustered", 128)])]  # fmt: skip
    said = say_figures(figures(*rows), "{order}, {events} events, {new} outputs")
    assert said == "random: 1 / 2 (128 / 512 events, new outputs); clustered: 3 (128 events, new outputs)"


def test_the_same_figure_for_all_is_said_once() -> None:
    some = figures((0, {"what": "lost"}), (0, {"what": "torn"}))
    assert say_figures(some, "{what}") == "0 (lost, torn)"


def test_one_figure_and_names_that_no_row_has() -> None:
    assert say_figures(figures((7, {})), "{title}, of {column}") == "7 (Reads, of x)"
    assert say_figures(figures((7, {})), "{absent}") == "7 ({absent})", "a mistake is seen on the page"
