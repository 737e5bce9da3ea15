"""The pages that are kept with the code are what the kept files of benches give."""

from __future__ import annotations

import re
from pathlib import Path

from perf.__main__ import BENCHES
from perf.answers import COMPARISONS, DIFFERENCES, MEASURED
from perf.collect import README, REPORT, RESULTS, load_pages, put_measured

ROOT = Path(__file__).parents[2]


def test_the_kept_pages_are_what_the_kept_files_give() -> None:
    pages = load_pages(RESULTS)
    report = REPORT.read_text()
    first = (pages.answers(), pages.others(), pages.comparisons(), pages.machines())
    for part in (*first, *map(pages.bench, pages.results)):
        assert part in report, "run: python -m perf.collect"
    page = README.read_text()
    assert page == put_measured(page, pages.measured()), "run: python -m perf.collect --readme"
    assert not pages.stale


def test_every_bench_that_kept_pages_name_is_there() -> None:
    named = {comparison.pick.bench for comparison in COMPARISONS}
    named |= {difference.pick.bench for difference in DIFFERENCES}
    named |= {pick.bench for measured in MEASURED for pick, _ in measured.seen}
    assert named <= set(BENCHES)
    assert {path.stem for path in RESULTS.glob("*.json")} <= set(BENCHES)
    commands = set(re.findall(r"python -m perf[. ](\w+)", README.read_text() + REPORT.read_text()))
    assert named <= commands, "each stands beside what makes it again"
    assert all((ROOT / "perf" / f"{name}.py").exists() for name in commands)


def test_what_is_kept_is_small() -> None:
    sizes = {path.name: path.stat().st_size for path in RESULTS.iterdir()}
    assert max(sizes.values(), default=0) <= 1 << 18, sizes
    assert sum(sizes.values()) < 4 << 20
