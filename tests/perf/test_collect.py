"""The report and README.md's table are what the benches' files say, and say what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perf import __main__ as runner
from perf.__main__ import BENCHES, note_failure, run_apart, run_benches
from perf.answers import Comparison, Difference, Measured
from perf.collect import BEGIN, END, Pages, load_pages, put_measured, take_results
from perf.harness import Interval, Report, Samples, Section, Settings, run_bench
from perf.results import Pick, Result, StalePickError, load_results

ROOT = Path(__file__).parents[2]


def bench(name: str, title: str, rows: list[dict[str, Any]], **also: Any) -> Result:
    return Result(
        {
            "bench": name, "question": "How?\n\nSo.", "when": "2026-01-02T03:04:05+00:00", "machine": None,
            "run": {"arguments": ["--out", "elsewhere", "--seed", "7"], "seed": 7, "full": False, "took_s": 60.0},
            "noise": {"figures": 2, "noisy": 1}, "sections": [{"title": title, "rows": rows}], **also,
        }
    )  # fmt: skip


def samples(*values: float) -> Any:
    return Samples(np.array(values)).describe()


def reads(*times: float) -> dict[str, Result]:
    rows = [
        {"events": 128 << place, "way": "Lance", "us": samples(1.0, 2.0), "times ours": samples(one, one)}
        for place, one in enumerate(times)
    ]
    return {"read": bench("read", "Against others: so many", rows)}


def line(page: str, begins: str) -> str:
    return next(one for one in page.splitlines() if one.startswith(begins))


@pytest.fixture(autouse=True)
def one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = Pick("read", "Against others", "times ours", {"way": "Lance"})
    others = Comparison("peers", "{way}", "random users, {events} events", figures)
    monkeypatch.setattr("perf.collect.COMPARISONS", [others])
    monkeypatch.setattr("perf.collect.MEASURED", [Measured("reads over Lance's", ((figures, "{events} events"),))])


def test_a_changed_number_changes_the_report() -> None:
    page = Pages(reads(2.5, 40.0)).page()
    assert "Lance 2.5 to 40" in line(page, "1. **How fast")
    assert "Lance 2.5 to 60" in line(Pages(reads(2.5, 60.0)).page(), "1. **How fast")
    assert "| 128 | Lance | ~1.5 (1.25 to 1.75) | 2.5 (2.5 to 2.5) |" in page
    assert "noisy: 1 of 2 figures" in page


def test_of_many_peers_the_line_names_the_nearest_and_the_farthest_and_the_table_all() -> None:
    rows = [{"events": 128, "way": "Lance", "times ours": samples(4.0)}]
    rows += [{"events": 128, "way": f"way {one}", "times ours": samples(float(one))} for one in range(2, 9)]
    rows += [{"events": 256, "way": "way 8", "times ours": samples(0.5)}]
    others = Comparison("peers", "{way}", "{events} events", Pick("read", "Against others", "times ours"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perf.collect.COMPARISONS", [others])
        page = Pages({"read": bench("read", "Against others", rows)}).page()
        patch.setattr("perf.collect.COMPARISONS", [others, replace(others, against="a bound", first=True)])
        chosen = line(Pages({"read": bench("read", "Against others", rows)}).page(), "1. **How fast")
    answer = line(page, "1. **How fast")
    assert "above 1 in every case against 7 of 8; nearest way 8 0.5 to 8, way 2 2, way 3 3; farthest way 7 7;" in answer
    assert "| way 8 | 8 / 0.5 (128 / 256 events) | `python -m perf.read --seed 7` |" in page
    assert "a bound 0.5 to 8;" in chosen and "nearest" not in chosen


def test_every_number_stands_beside_its_file_and_command() -> None:
    answer = line(Pages(reads(2.5)).page(), "1. **How fast")
    assert "results/read.json" in answer
    assert "`python -m perf.read --seed 7`" in answer, "the seed belongs to it, where it was written does not"


def test_what_has_not_run_is_named_with_its_command() -> None:
    page = Pages({}).page()
    assert "not run: `python -m perf.read`" in line(page, "1. **How fast")
    assert all("not run" in line(page, f"| {name} ") and f"perf.{name}" in page for name in BENCHES)
    assert "| not run |" in Pages({}).measured()


def test_a_machine_that_was_busy_is_told() -> None:
    document = dict(reads(2.5)["read"].document)
    busy = document | {"run": document["run"] | {"cores": {"others": 0.4, "stolen": 0.0}}}
    assert "too noisy to tell.**" in Pages({"read": Result(busy)}).page()
    assert "too noisy to tell.**" not in Pages(reads(2.5)).page()


def test_time_of_benches_that_ran_at_once_counts_once() -> None:
    ran = {
        name: bench(name, "So", [], when=f"2026-01-02T03:{end}:00+00:00")
        for name, end in (("read", "04"), ("fuzz", "10"), ("held", "10"))
    }
    assert "These 3 short forms took 2.0 minutes" in Pages(ran).runs()
    long = {"run": {"arguments": ["--minutes", "60"], "seed": 0, "full": False, "took_s": 3600.0}}
    assert "These 3 short forms took 2.0 minutes" in Pages(ran | {"soak": bench("soak", "So", [], **long)}).runs()
    assert "short forms" not in Pages({}).runs()


def test_a_peer_that_is_better_is_listed() -> None:
    better = Pages(reads(0.8, 3.0)).others()
    assert "Lance (our speed over theirs): 0.8 (random users, 128 events)" in better
    assert "256 events" not in better
    assert "Nowhere" in Pages(reads(1.5)).others()


def test_a_change_that_could_not_be_told_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = Difference("length", "{column} at {length}", Pick("length", "Gain", ("NE", "HR@10")), neutral=1.0)
    monkeypatch.setattr("perf.collect.DIFFERENCES", [gains])
    row = {"length": "64", "NE": Interval(0.98, 0.9, 1.1), "HR@10": Interval(1.5, 1.2, 1.9)}
    plain = {name: asdict(one) if isinstance(one, Interval) else one for name, one in row.items()}
    said = line(Pages({"length": bench("length", "Gain of length", [plain])}).page(), "1. **What did length")
    assert "HR@10 at 64 1.5 (1.2 to 1.9); none that could be told in 1 more;" in said
    assert "NE" not in said


def test_a_pick_of_a_column_that_is_gone_is_told() -> None:
    pages = Pages({"read": bench("read", "Against others", [{"way": "Lance", "times": 1.0}])})
    assert "not found: read.json" in pages.page()
    assert pages.stale


def test_a_ratio_of_columns_is_formed_within_repetitions() -> None:
    rows = [{"ours": samples(1, 2, 4), "theirs": samples(2, 4, 8)}]
    [figure] = Pick("read", "T", "theirs", over="ours").find({"read": bench("read", "T", rows)})
    assert (figure.value, figure.low, figure.high, figure.noisy) == (2, 2, 2, False)


def test_a_pick_that_matches_no_row_is_an_error() -> None:
    with pytest.raises(StalePickError, match="no figure"):
        Pick("read", "T", "x", {"way": "Vortex"}).find({"read": bench("read", "T", [{"way": "Lance", "x": 1.0}])})


def measure(settings: Settings) -> Report:
    noisy, steady = Samples(np.array([1.0, 2.0, 3.0])), Samples(np.array([1.0, 1.0, 1.0]) / 3)
    return Report([Section("Ways", [{"way": "a", "ratio": noisy}, {"way": "b", "ratio": steady}])])


def test_a_bench_leaves_all_that_its_figures_depend_on_and_a_picture(tmp_path: Path) -> None:
    run_bench("lookup", "How?", measure, ["--out", str(tmp_path), "--seed", "3"])
    document = json.loads((tmp_path / "lookup.json").read_text())
    assert {"cpu", "cores", "memory_bytes", "page_bytes", "kernel", "python", "revision", "changed"} <= {
        *document["machine"]
    }
    assert {"numpy", "numba", "lmdb", "torch"} <= {*document["machine"]["packages"]}
    assert document["run"]["seed"] == 3 and len(document["run"]["load"]) == 2
    assert document["noise"] == {"figures": 2, "noisy": 1}
    assert document["sections"][0]["rows"][1]["ratio"]["values"] == [0.333333] * 3, "every repetition, to six digits"
    assert (tmp_path / "lookup.png").read_bytes()[:4] == b"\x89PNG", "one without charts gets its table's figures"
    assert take_results(tmp_path, tmp_path / "kept") == ["lookup"]
    assert take_results(tmp_path, tmp_path / "kept") == [], "only what is newer"
    page = load_pages(tmp_path / "kept").page()
    assert "![lookup](results/lookup.png)" in page and "`python -m perf.lookup --seed 3`" in page


def test_a_bench_that_fails_or_hangs_is_told_and_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_apart([sys.executable, "-c", "raise SystemExit(3)"], 60) == "exit status 3"
    assert "not done" in run_apart([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    assert run_apart([sys.executable, "-c", "print('said later')"], 60, aside=True) == ""
    assert "said later" in capsys.readouterr().out
    note_failure(tmp_path / "lookup.json", "lookup", "exit status 3", ["--seed", "0"], begin=0)
    page = Pages(load_results(tmp_path)).page()
    assert "failed: exit status 3" in line(page, "| [lookup]")


def test_all_benches_run_though_some_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benches = {"one": "", "footprint": "", "fuzz": "", "last": ""}
    monkeypatch.setattr(runner, "BENCHES", benches)
    monkeypatch.setattr(runner, "run_apart", lambda command, *_: "" if "last" in command[2] else "exit status 1")
    ran = run_benches(list(benches), tmp_path, 0, full=False)
    assert [one.name for one in ran] == ["one", "last", "footprint", "fuzz"], "what is not timed comes last"
    assert {one.name for one in ran if one.failed} == {"one", "footprint", "fuzz"} == set(load_results(tmp_path))


def test_files_that_are_too_large_to_keep_are_refused(tmp_path: Path) -> None:
    document = dict(reads(1.0)["read"].document) | {"facts": "x" * (1 << 19)}
    (tmp_path / "read.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="bytes"):
        take_results(tmp_path, tmp_path / "kept")


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        put_measured("no table here", "|")
    assert put_measured(f"a\n{BEGIN}\nold\n{END}\nz", "| new |") == f"a\n{BEGIN}\n| new |\n{END}\nz"


def test_the_command_line_says_what_it_takes() -> None:
    said = subprocess.run([sys.executable, "-m", "perf.collect", "nothing"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 2 and "run python -m perf.nothing" in said.stderr
