"""Collect what benches found into pages: ``perf/REPORT.md``, and README.md's table. Nothing in them is typed.

``python -m perf.collect [NAME ...] [--out perf/out] [--readme]`` takes the JSON and pictures of benches that have run
(of those named, else of all) from where benches write into ``perf/results``, which is kept with the code, and makes the
report anew from all that lies there; with ``--readme`` README.md's table too. A file is taken if it is newer than the
one that is kept. So every number of both pages stands in a file of ``perf/results``, beside the command that makes it
again, and ``tests/perf`` sees that the pages are what these files give.

The exit status is 1 where a page asks for a figure that its bench's file does not have (:mod:`perf.answers` is then to
be corrected); the report is written all the same, and says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from perf.__main__ import BENCHES, SHORTER
from perf.answers import COMPARISONS, DIFFERENCES, MEASURED, QUESTIONS, Comparison, Difference, Measured
from perf.harness import OUT
from perf.phrases import fill, say_figures
from perf.results import Figure, Result, StalePickError, command_of, load_results, number_text, read_figure
from perf.trust import HEAD, tabulate_trust

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "perf" / "results"
REPORT = ROOT / "perf" / "REPORT.md"
README = ROOT / "README.md"
BEGIN = "<!-- measured: made by python -m perf.collect --readme -->"
END = "<!-- /measured -->"
MOST_ROWS = 80
MOST_FIRST = 6
"""Comparisons that a line of the first page names; of more it names the ends."""
MOST_SAID = 10
"""Figures that a comparison's line tells one by one."""
MOST_DISTURBED = 0.1
"""Share of the cores that others may take before a bench of repeated timings is called too noisy to tell."""
LARGEST_BYTES = 1 << 18
"""A file that is larger is not taken: a repository keeps what it is given."""


def _is_short(name: str, run: Mapping[str, Any]) -> bool:
    """Whether a bench ran as ``make bench`` runs it."""
    return not run["full"] and set(SHORTER.get(name, ())) <= set(run["arguments"])


def _covered_s(spans: Sequence[tuple[datetime, datetime]]) -> float:
    """Seconds in which at least one of these was under way."""
    covered, until = 0.0, datetime.min.replace(tzinfo=UTC)
    for begin, end in sorted(spans):
        covered += max(0.0, (end - max(begin, until)).total_seconds())
        until = max(until, end)
    return covered


def take_results(out: Path, kept: Path = RESULTS, names: Sequence[str] = ()) -> list[str]:
    """Copy the files and pictures of benches that are newer than the ones kept: which.

    Raises:
        ValueError: a file is too large to be kept, or a bench that is named has none.

    """
    found = load_results(out) if out.is_dir() else {}
    absent = sorted(set(names) - set(found))
    if absent:
        raise ValueError(f"{out} has no file of {', '.join(absent)}: run {command_of(absent[0])}")
    before = load_results(kept) if kept.is_dir() else {}
    taken = []
    for name, result in found.items():
        if name not in (names or BENCHES) or (name in before and before[name].when >= result.when):
            continue
        size = (out / f"{name}.json").stat().st_size
        if size > LARGEST_BYTES:
            raise ValueError(f"{out / name}.json has {size:,} bytes, more than the {LARGEST_BYTES:,} that are kept")
        kept.mkdir(parents=True, exist_ok=True)
        for file in (out / f"{name}.json", out / f"{name}.png"):
            if file.exists():
                shutil.copyfile(file, kept / file.name)
        taken.append(name)
    return taken


class Pages:
    """The report's text and README.md's table, and what they could not find.

    Args:
        results: of benches, by name.
        pictures: names of benches that have a picture.
        benches: every bench, and what it asks.

    Attributes:
        stale: figures that were asked for and that files do not have.

    """

    def __init__(
        self,
        results: Mapping[str, Result],
        pictures: frozenset[str] = frozenset(),
        benches: Mapping[str, str] = BENCHES,
    ) -> None:
        self.results = results
        self.pictures = pictures
        self.benches = benches
        self.stale: list[str] = []

    def page(self) -> str:
        """``perf/REPORT.md``."""
        parts = [
            "# What was measured",
            "Made by `python -m perf.collect` from the files in [results](results), which hold every repetition; "
            "nothing here is typed. `make bench` runs the short form of every bench and makes this page again, "
            "`make bench-full` the long form. `1.3 (1.2 to 1.4)` is a median with quartiles; `~` marks a figure too "
            "noisy to tell.",
            self.answers(), self.others(), self.comparisons(), self.trust(), self.runs(), self.machines(),
        ]  # fmt: skip
        return "\n\n".join([*parts, *(self.bench(name) for name in self._order())]) + "\n"

    def answers(self) -> str:
        """The first page's five lines."""
        lines = []
        for question, (asked, unit) in QUESTIONS.items():
            some, changes = _asked(question)
            said = [*self._first(some), *self._told(changes)]
            text = f"{unit}: {'; '.join(said)}" if said else ""
            asked_of: list[Comparison | Difference] = [*some, *changes]
            names = dict.fromkeys(one.pick.bench for one in asked_of)
            sources = "; ".join(filter(None, [text, *(self._source(name) for name in names)]))
            lines.append(f"1. **{asked}** {sources or 'no bench answers this'}.")
        return "\n".join(lines)

    def _first(self, some: Sequence[Comparison]) -> list[str]:
        """Comparisons in one line."""
        first = [comparison for comparison in some if comparison.first]
        found = self._by_other(first or some)
        least = {f"{against} {_span(figures)}": _ends(figures)[0].value for against, figures in found.items()}
        if first or len(least) <= MOST_FIRST:
            return list(least)
        rising = sorted(least, key=lambda said: least[said])
        ahead = sum(value > 1 for value in least.values())
        return [
            f"above 1 in every case against {ahead} of {len(least)}", f"nearest {', '.join(rising[:3])}",
            f"farthest {rising[-1]}",
        ]  # fmt: skip

    def _told(self, changes: Sequence[Difference]) -> list[str]:
        """Differences in one line: those that could be told."""
        found = [(change, figure) for change in changes for figure in self._find(change)]
        told = [_change(change, figure) for change, figure in found if _can_be_told(change, figure)]
        untold = len(found) - len(told)
        return told + ([f"none that could be told in {untold} more"] if untold else [])

    def comparisons(self) -> str:
        """Every comparison with others, a table for each question."""
        parts = ["## Every comparison"]
        for question, (_, unit) in QUESTIONS.items():
            said: dict[str, list[str]] = {}
            again: dict[str, list[str]] = {}
            for comparison in _asked(question)[0]:
                for against, figures in self._by_other([comparison]).items():
                    said.setdefault(against, []).append(_say_some(figures, comparison))
                    again.setdefault(against, []).append(self._again(comparison.pick.bench))
            if said:
                rows = [
                    [against, "; ".join(said[against]), ", ".join(dict.fromkeys(again[against]))] for against in said
                ]
                parts.append(_table(["against", unit, "again"], rows))
        return "\n\n".join(parts if parts[1:] else [*parts, "None has run."])

    def _again(self, name: str) -> str:
        """The command that makes a bench's figures again."""
        return f"`{self.results[name].command if name in self.results else command_of(name)}`"

    def _source(self, name: str) -> str:
        result = self.results.get(name)
        if result is None:
            return f"not run: `{command_of(name)}`"
        if result.failed:
            return f"failed: `{result.command}`"
        return f"[{name}.json](results/{name}.json), `{result.command}`"

    def _by_other(self, some: Sequence[Comparison]) -> dict[str, list[Figure]]:
        """Figures as what counts, by what they stand against."""
        found: dict[str, list[Figure]] = {}
        for comparison in some:
            for figure in self._find(comparison):
                found.setdefault(fill(comparison.against, figure), []).append(comparison.stand(figure))
        return found

    def _find(self, asking: Comparison | Difference) -> list[Figure]:
        try:
            return asking.pick.find(self.results)
        except StalePickError as stale:
            if str(stale) not in self.stale:
                self.stale.append(str(stale))
            return []

    def others(self) -> str:
        """Every figure by which a peer is better."""
        lines = []
        for comparison in COMPARISONS:
            if not comparison.peer:
                continue
            _, unit = QUESTIONS[comparison.question]
            worse: dict[str, list[Figure]] = {}
            for figure in map(comparison.stand, self._find(comparison)):
                if figure.value < 1:
                    worse.setdefault(fill(comparison.against, figure), []).append(figure)
            lines += [
                f"- {against} ({unit}): {say_figures(figures, comparison.at)}" for against, figures in worse.items()
            ]
        said = "\n".join(lines) or "Nowhere in what has run."
        return f"## Where others are better\n\n{said}"

    def trust(self) -> str:
        """What was done to stores, and what was lost."""
        return f"## What was done to stores, and what was lost\n\n{_table(HEAD, tabulate_trust(self.results))}"

    def runs(self) -> str:
        """Every bench in a line: whether it ran, how long, how noisy."""
        head = ["bench", "asks", "run", "took", "noisy figures", "others' work", "stolen", "load", "again"]
        rows = []
        for name, asks in self.benches.items():
            result = self.results.get(name)
            if result is None:
                rows.append([name, asks, "not run", "", "", "", "", "", f"`{command_of(name)}`"])
                continue
            run, noise = result.document.get("run", {}), result.document.get("noise", {})
            cores = run.get("cores", {})
            rows.append([
                f"[{name}](#{name})", asks,
                f"failed: {result.failed}" if result.failed else result.when[:16].replace("T", " "),
                f"{run['took_s']:.0f} s" if "took_s" in run else "",
                f"{noise['noisy']} of {noise['figures']}" if noise else "",
                *(f"{cores[key]:.0%}" if key in cores else "" for key in ("others", "stolen")),
                " to ".join(f"{load:.1f}" for load in run.get("load", ())), f"`{result.command}`",
            ])  # fmt: skip
        spans = [
            (datetime.fromisoformat(result.when), timedelta(seconds=result.document["run"]["took_s"]))
            for name, result in self.results.items()
            if "took_s" in result.document.get("run", {}) and _is_short(name, result.document["run"])
        ]
        took = _covered_s([(end - length, end) for end, length in spans])
        total = f"These {len(spans)} short forms took {took / 60:.1f} minutes, two at a time where they time nothing."
        told = (
            "Others' work and stolen time are shares of what the cores could have done while the bench ran: by other "
            "processes, and kept from a virtual machine by its host. A figure is noisy when the middle half of its "
            "repetitions spans more than 15 % of the median."
        )
        stale = "".join(f"\n- not found: {words}" for words in self.stale)
        return "\n\n".join(filter(None, ["## Runs", _table(head, rows), f"{told} {total if spans else ''}", stale]))

    def machines(self) -> str:
        """What they ran on: each machine with the benches that ran there."""
        found: dict[str, list[str]] = {}
        for name in self._order():
            machine = self.results[name].document.get("machine")
            if machine:
                found.setdefault(_describe(machine), []).append(name)
        lines = [f"- {', '.join(names)}: {machine}" for machine, names in found.items()]
        return "## Machines and versions\n\n" + ("\n".join(lines) or "No bench has run.")

    def bench(self, name: str) -> str:
        """A bench's question, tables and picture."""
        result = self.results[name]
        document = result.document
        question, _, rest = document["question"].partition("\n\n")
        run, noise = document.get("run", {}), document.get("noise", {})
        facts = [
            f"`{result.command}`", f"[every repetition](results/{name}.json)", document["when"][:10],
            f"seed {run.get('seed', 0)}", "full" if run.get("full") else "short",
        ]  # fmt: skip
        if noise.get("figures"):
            facts.append(f"noisy: {noise['noisy']} of {noise['figures']} figures")
        parts = [f"## {name}", f"**{_flow(question)}**", " · ".join(facts)]
        if _too_noisy(document):
            parts.append("**The machine was too noisy to tell.**")
        if result.failed:
            parts.append(f"**The last run failed: {result.failed}.**")
        parts += [
            f"### {_escape(section['title'])}\n\n{_rows_table(section['rows'])}"
            for section in document.get("sections", ())
        ]
        if document.get("notes"):
            parts.append("\n".join(f"- {_escape(note)}" for note in document["notes"]))
        if name in self.pictures:
            parts.append(f"![{name}](results/{name}.png)")
        if rest:
            parts.append(f"<details><summary>How</summary>\n\n{_escape(rest)}\n\n</details>")
        return "\n\n".join(parts)

    def _order(self) -> list[str]:
        return [name for name in self.benches if name in self.results]

    def measured(self) -> str:
        """README.md's table."""
        return _table(["what", "seen", "measure it again"], [self._measure(line) for line in MEASURED])

    def _measure(self, line: Measured) -> list[str]:
        said = []
        for pick, behind in line.seen:
            try:
                figures = pick.find(self.results)
            except StalePickError as stale:
                self.stale.append(str(stale))
                figures = []
            if figures:
                said.append(say_figures(figures, behind))
        names = dict.fromkeys(pick.bench for pick, _ in line.seen)
        return [line.what, "; ".join(said) or "not run", ", ".join(map(self._again, names))]


def put_measured(page: str, table: str) -> str:
    """A page with its table of what was measured made anew.

    Raises:
        ValueError: the page does not have both marks.

    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the marks {BEGIN!r} and {END!r}, between which its table stands")
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def _too_noisy(document: Mapping[str, Any]) -> bool:
    """Whether most figures were noisy, or others worked a good deal meanwhile."""
    noise, cores = document.get("noise", {}), document.get("run", {}).get("cores", {})
    disturbed = cores.get("others", 0) + cores.get("stolen", 0) > MOST_DISTURBED
    return bool(noise.get("figures")) and (2 * noise["noisy"] > noise["figures"] or disturbed)


def _say_some(figures: Sequence[Figure], comparison: Comparison) -> str:
    """Figures with what each belongs to; of many the least and the most."""
    if len(figures) <= MOST_SAID:
        return say_figures(figures, comparison.at)
    return " to ".join(f"{figure.text()} ({fill(comparison.at, figure)})" for figure in _ends(figures))


def _asked(question: str) -> tuple[list[Comparison], list[Difference]]:
    """What answers a question."""
    return (
        [comparison for comparison in COMPARISONS if comparison.question == question],
        [difference for difference in DIFFERENCES if difference.question == question],
    )


def _can_be_told(change: Difference, figure: Figure) -> bool:
    return not figure.low <= change.neutral <= figure.high


def _change(change: Difference, figure: Figure) -> str:
    interval = f"{number_text(figure.low)} to {number_text(figure.high)}"
    return f"{fill(change.what, figure)} {number_text(figure.value)} ({interval})"


def _ends(figures: Sequence[Figure]) -> tuple[Figure, Figure]:
    """The least and the most of some figures."""
    return min(figures, key=lambda figure: figure.value), max(figures, key=lambda figure: figure.value)


def _span(figures: Sequence[Figure]) -> str:
    """The range of some figures."""
    least, most = _ends(figures)
    return least.text() if least.text() == most.text() else f"{least.text()} to {most.text()}"


def _rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "(no rows)"
    head = list(rows[0])
    cells = [[_cell(row, column) for column in head] for row in rows[:MOST_ROWS]]
    more = f"\n\n{len(rows) - MOST_ROWS} more rows stand in the file." if len(rows) > MOST_ROWS else ""
    return _table(head, cells) + more


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, Mapping):
        figure = read_figure(row, column)
        return f"{figure.text()} ({number_text(figure.low)} to {number_text(figure.high)})" if figure else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else number_text(value) if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_escape(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _escape(text: str) -> str:
    """Characters that Markdown would take for its own, outside of code."""
    return "".join(
        part if place % 2 else part.replace("<", "&lt;").replace("*", "\\*") for place, part in enumerate(_split(text))
    )


def _split(text: str) -> list[str]:
    """Pieces outside and inside of code, by turns."""
    pieces = text.split("`")
    return [f"`{piece}`" if place % 2 else piece for place, piece in enumerate(pieces)]


def _flow(text: str) -> str:
    return _escape(" ".join(text.split()))


def _describe(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    peers = "".join(
        f"; in {variable}: {', '.join(f'{name} {version}' for name, version in versions.items())}"
        for variable, versions in machine.get("peers", {}).items()
    )
    revision = machine.get("revision") or "no git"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / (1 << 30):.1f} GiB, pages of "
        f"{machine.get('page_bytes', 4096)} bytes, {machine['kernel']}, Python {machine['python']}, code at {revision}"
        f"{' with changes' if machine.get('changed') else ''}; {packages}{peers}"
    )


def collect(out: Path, names: Sequence[str] = (), readme: bool = False) -> list[str]:
    """Take new files, make the pages again: figures that were not found."""
    taken = take_results(out, RESULTS, names)
    pages = load_pages(RESULTS)
    REPORT.write_text(pages.page())
    written = [str(REPORT.relative_to(ROOT))]
    if readme:
        README.write_text(put_measured(README.read_text(), pages.measured()))
        written.append(README.name)
    print(f"took {', '.join(taken) or 'nothing new'}; wrote {', '.join(written)}")
    return list(dict.fromkeys(pages.stale))


def load_pages(folder: Path) -> Pages:
    """The pages of the files in a folder."""
    return Pages(load_results(folder), frozenset(path.stem for path in folder.glob("*.png")))


def main() -> int:
    """Take, and write."""
    parser = argparse.ArgumentParser(prog="python -m perf.collect", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches whose files are taken (default: all)")
    parser.add_argument("--out", type=Path, help=f"where benches wrote (default: {OUT}, where it is there)")
    parser.add_argument("--readme", action="store_true", help="make README.md's table again, too")
    given = parser.parse_args()
    try:
        if given.out is not None and not given.out.is_dir():
            raise ValueError(f"{given.out} is not a folder: give the one that benches wrote to")
        stale = collect(given.out or OUT, given.names, given.readme)
    except (ValueError, json.JSONDecodeError) as wrong:
        print(wrong, file=sys.stderr)
        return 2
    for words in stale:
        print(f"not found: {words}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
