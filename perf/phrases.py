"""Several figures in a few words: what they share is said once, what differs in the order in which they stand.

``2.46 / 4.4 / 10.9 at 256 / 1,024 / 4,096 events`` in place of a condition behind each. Knows no bench.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from perf.results import Figure

_NAMES = re.compile(r"\{([^}]+)\}")
_NUMBER = re.compile(r"[\d,]+(\.\d+)?")


def fill(words: str, figure: Figure) -> str:
    """Words with the row's columns by name, ``{column}``, and ``{title}`` of the table up to a colon."""
    return _NAMES.sub(lambda found: _value(found[1], figure), words)


def _value(name: str, figure: Figure) -> str:
    value = figure.row.get(name)
    if name == "column":
        return figure.column
    if name == "title":
        return figure.title
    if value is None or isinstance(value, Mapping):
        return f"{{{name}}}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def say_figures(figures: Sequence[Figure], words: str) -> str:
    """Figures and what each belongs to.

    Args:
        figures: at least one.
        words: what a figure belongs to, as :func:`fill` takes it: parts with commas between them. A part that is the
            same for all is said once. Of those that differ one is told along with the figures, a number if there is
            one, and the others make groups.

    """
    parts = words.split(", ")
    said = [[fill(part, figure) for part in parts] for figure in figures]
    differing = [place for place in range(len(parts)) if len({its[place] for its in said}) > 1]
    if not differing:
        return ", ".join(f"{figure.text()} ({', '.join(its)})" for figure, its in zip(figures, said, strict=True))
    drawn = max(differing, key=lambda place: (_name(parts[place], figures) != "", place))
    heads = [place for place in differing if place != drawn]
    groups: dict[str, list[int]] = {}
    for row, its in enumerate(said):
        groups.setdefault(", ".join(its[place] for place in heads), []).append(row)
    behind = [part for place, part in enumerate(parts) if place not in heads]
    told = {head: _say_group([figures[row] for row in rows], behind, parts[drawn]) for head, rows in groups.items()}
    return "; ".join(f"{head}: {text}" if head else text for head, text in told.items())


def _say_group(figures: Sequence[Figure], parts: Sequence[str], differing: str) -> str:
    """Figures that differ in one part."""
    values = [fill(differing, figure) for figure in figures]
    if len(figures) > 1 and len({figure.text() for figure in figures}) == 1:
        together, figures = ", ".join(values), figures[:1]
    elif len(figures) > 1 and (name := _name(differing, figures)):
        together = fill(differing.replace(name, " / ".join(fill(name, figure) for figure in figures)), figures[0])
    else:
        return ", ".join(f"{figure.text()} ({', '.join(fill(part, figure) for part in parts)})" for figure in figures)
    said = " / ".join(figure.text() for figure in figures)
    around = [together if part == differing else fill(part, figures[0]) for part in parts]
    return f"{said} ({', '.join(around)})"


def _name(part: str, figures: Sequence[Figure]) -> str:
    """The only name in a part, if it stands for a number in all figures."""
    names = _NAMES.findall(part)
    if len(names) != 1 or not all(_NUMBER.fullmatch(_value(names[0], figure)) for figure in figures):
        return ""
    return f"{{{names[0]}}}"
