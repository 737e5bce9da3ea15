"""What a bench says: rows for a terminal, everything for a file, charts for the eye."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from perf.intervals import Interval
from perf.machine import Machine
from perf.timing import Samples

Cell = str | int | float | bool | None | Samples | Interval


@dataclass(frozen=True, slots=True)
class Section:
    """A table of results.

    Attributes:
        title: what the table shows.
        rows: one mapping a row, all of the same keys; :class:`Samples` keep every repetition in the file.

    """

    title: str
    rows: list[dict[str, Cell]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one variant: y over x; quartiles or the interval are error bars where they are given."""

    name: str
    x: Sequence[float | str]
    y: Sequence[Samples | Interval | float]


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture of several curves: lines or points over numbers, or groups of bars over names."""

    title: str
    x: str
    y: str
    curves: list[Curve]
    kind: Literal["lines", "bars", "points"] = "lines"
    log_x: bool = False
    log_y: bool = False
    line_at: float | None = None


@dataclass(slots=True)
class Report:
    """The outcome of a bench.

    Attributes:
        sections: tables, in the order they are shown.
        charts: pictures, drawn into one file.
        notes: sentences shown under the tables: what was absent, what the figures say.
        facts: anything else that belongs in the file.

    """

    sections: list[Section] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def write_json(path: Path, name: str, question: str, report: Report, machine: Machine, run: Mapping[str, Any]) -> None:
    """Write everything that a bench found: every repetition, numbers to six digits."""
    cells = [cell for part in report.sections for row in part.rows for cell in row.values()]
    figures = [cell for cell in cells if isinstance(cell, Samples)]
    document = {
        "bench": name,
        "question": question,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "run": dict(run),
        "noise": {"figures": len(figures), "noisy": sum(figure.noisy for figure in figures)},
        "sections": [{"title": part.title, "rows": part.rows} for part in report.sections],
        "charts": [asdict_chart(chart) for chart in report.charts],
        "notes": report.notes,
        "facts": report.facts,
    }
    write_document(path, document)


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a bench's JSON: lists of plain values stand on a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lay_out(_plain(document)) + "\n")


def _lay_out(value: Any, depth: int = 0) -> str:
    """JSON as a reader and a comparison of versions want it."""
    flat = json.dumps(value, allow_nan=False, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value:
        return flat
    items = value.values() if isinstance(value, dict) else value
    if len(flat) + depth < 110 or (
        isinstance(value, list) and not any(isinstance(item, dict | list) for item in items)
    ):
        return flat
    inner = "\n" + " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_lay_out(item, depth + 1)}" for key, item in value.items()]
        return "{" + inner + ("," + inner).join(parts) + "\n" + " " * depth + "}"
    return "[" + inner + ("," + inner).join(_lay_out(item, depth + 1) for item in value) + "\n" + " " * depth + "]"


def asdict_chart(chart: Chart) -> dict[str, Any]:
    """A chart as plain data: of what has an error bar, its low end, its middle and its high end."""
    plain = {key: getattr(chart, key) for key in ("title", "x", "y", "kind", "log_x", "log_y", "line_at")}
    plain["curves"] = [
        {
            "name": curve.name,
            "x": list(curve.x),
            "y": [y if isinstance(y, int | float) else _spread(y) for y in curve.y],
        }
        for curve in chart.curves
    ]
    return plain


def _plain(value: Any) -> Any:
    """Values that JSON has, floats to six digits, with null for what is not finite."""
    if isinstance(value, Samples):
        return _plain(value.describe())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return _plain(asdict(value))
    return value


def cell_text(value: Cell) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, Samples | Interval):
        return value.text()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return value


def show(console: Console, report: Report) -> None:
    """Print tables and notes; a ``~`` before a figure says that it is too noisy to tell."""
    noisy = False
    for section in report.sections:
        table = Table(title=section.title, title_justify="left", padding=(0, 1), pad_edge=False)
        for name in section.rows[0] if section.rows else ():
            numeric = all(not isinstance(row[name], str) for row in section.rows)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*(cell_text(value) for value in row.values()))
            noisy |= any(isinstance(value, Samples) and value.noisy for value in row.values())
        console.print(table)
    for note in report.notes:
        console.print(f"- {note}", highlight=False, markup=False)
    if noisy:
        console.print("- ~ too noisy to tell: the middle half of the repetitions spans more than 15%", markup=False)


def plot_sections(sections: Sequence[Section]) -> list[Chart]:
    """Charts for a report that brings none: bars of the first measured column of each of the first tables."""
    charts = []
    for section in sections:
        columns = _measured_columns(section)
        if columns:
            labels = _label_rows(section, columns[0])
            values = [value if isinstance(value := row[columns[0]], Samples) else float(value) for row in section.rows]  # type: ignore[arg-type]
            middle = [value.median if isinstance(value, Samples) else value for value in values]
            wide = min(middle) > 0 and max(middle) > 100 * min(middle)
            charts.append(Chart(section.title, "", columns[0], [Curve("", labels, values)], kind="bars", log_y=wide))
    return charts[:4]


def _measured_columns(section: Section) -> list[str]:
    """Columns of a table that hold figures in every row: those with repetitions first, counts last."""
    names = list(section.rows[0]) if section.rows else []
    ranked = []
    for place, name in enumerate(names):
        kinds = {type(row[name]) for row in section.rows}
        if kinds <= {Samples, float, int} and (place or len(names) == 1):
            ranked.append((0 if Samples in kinds else 1 if float in kinds else 2, place, name))
    return [name for _, _, name in sorted(ranked)]


def _label_rows(section: Section, drawn: str) -> list[str]:
    """What tells the rows of a table apart: what stands before the first figure, and before the one that is drawn."""
    labels: list[str] = []
    for row in section.rows:
        words = []
        for place, (name, value) in enumerate(row.items()):
            if name == drawn or isinstance(value, Samples) or (isinstance(value, float) and place):
                break
            words.append(cell_text(value))
        label = ", ".join(words[:3])
        labels.append(label if label not in labels else f"{label} ({len(labels)})")
    return labels


def draw(path: Path, title: str, charts: Sequence[Chart]) -> None:
    """Draw charts into one PNG, two a row, in few colours: small enough to be kept beside the code."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    columns = min(2, len(charts))
    lines = -(-len(charts) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(7.5 * columns, 4.6 * lines), squeeze=False)
    figure.suptitle(title)
    for place in axes.flat[len(charts) :]:
        place.set_axis_off()
    for place, chart in zip(axes.flat, charts, strict=False):
        _draw_chart(place, chart)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.set_dpi(90)
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba()))  # type: ignore[attr-defined]
    drawn.convert("RGB").quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)
    pyplot.close(figure)


def _spread(y: Samples | Interval | float) -> tuple[float, float, float]:
    """Low end of the error bar, the point, and the high end."""
    if isinstance(y, Samples):
        return y.low, y.median, y.high
    return (y.low, y.value, y.high) if isinstance(y, Interval) else (y, y, y)


def _draw_chart(axes: Any, chart: Chart) -> None:
    places = list(dict.fromkeys(x for curve in chart.curves for x in curve.x))
    for index, curve in enumerate(chart.curves):
        low, middle, high = np.array([_spread(y) for y in curve.y], float).T
        errors = np.maximum([middle - low, high - middle], 0)
        if chart.kind == "bars":
            width = 0.8 / len(chart.curves)
            at = np.array([places.index(x) for x in curve.x]) + (index - (len(chart.curves) - 1) / 2) * width
            axes.bar(at, middle, width, yerr=errors, label=curve.name, capsize=2)
        else:
            line = "none" if chart.kind == "points" else "-"
            axes.errorbar(
                curve.x, middle, errors, label=curve.name, marker="o", markersize=3, capsize=2, linestyle=line
            )
    if chart.kind == "bars":
        axes.set_xticks(range(len(places)), [str(place) for place in places], rotation=20, ha="right", fontsize=8)
    elif chart.log_x:
        axes.set_xscale("log", base=2)
    if chart.log_y:
        axes.set_yscale("log")
    if chart.line_at is not None:
        axes.axhline(chart.line_at, color="grey", linewidth=0.8, linestyle="--")
    axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    axes.grid(True, alpha=0.3)
    if len(chart.curves) > 1 or chart.curves[0].name:
        axes.legend(fontsize=7)
