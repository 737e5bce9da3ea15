"""Is an operation all there or not at all, wherever it is cut off: at every system call, by a kill or a power cut?

Every operation that changes a store's files is recorded once (:mod:`perf.powercut`). For each system call of it that
changes files, the files are made as they may be left right before, in the midst and after: by a killed process, by a
power cut that loses all that was not flushed, and by power cuts that keep pages and names as chance has it. Each is
opened, compared with what was acknowledged, verified, and lived to its end (:mod:`perf.cutstores`). Then real
processes are killed on entering each of these calls, while another one has the store open (:mod:`perf.cutkills`).

The short form takes some of the points and one random power cut each; ``--full`` takes all of them, and eight.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from perf.cutkills import kill_at, list_points
from perf.cutstores import ACKNOWLEDGED, FAULTS, OPERATIONS, Case, folder_of, prepare
from perf.harness import Report, Section, Settings, run_bench
from perf.powercut import Step, can_trace, cut, record
from perf.report import Cell

PROGRAM = "import sys; from perf.cuts import do_all; do_all(sys.argv[1])"


class LosesAll(random.Random):
    """The chance by which nothing survives that was not flushed."""

    def random(self) -> float:
        """No page."""
        return 1.0

    def randint(self, a: int, b: int) -> int:
        """No name."""
        return a


@dataclass(slots=True)
class Tally:
    """What came of the cuts of one operation.

    Attributes:
        points: system calls that change files.
        killed, cut: states that were made of these, by kills and by power cuts, and judged.
        faults: how often each was found.
        words: where.

    """

    points: int = 0
    killed: int = 0
    cut: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recording:
    """What all operations did to disks, one after the other.

    Attributes:
        before, root: the folders of all operations, as they were before, and where they are.
        steps: all that happened.

    """

    before: Path
    root: Path
    steps: list[Step]

    def case(self, name: str) -> Case:
        """An operation, with what may be there."""
        return Case.of(name, self.before / folder_of(name), self.root / folder_of(name))

    def steps_of(self, name: str) -> tuple[list[Step], list[Step], float]:
        """All steps in the operation's folder, those that count as points, and when it was acknowledged."""
        begin, acknowledged, end = (self._said(f"{word} {name}") for word in ("begin", ACKNOWLEDGED, "end"))
        where = str(self.root / folder_of(name))
        mine = [step for step in self.steps if step.path == where or step.path.startswith(f"{where}/")]
        return mine, [step for step in mine if begin <= step.begin <= end], acknowledged

    def _said(self, line: str) -> float:
        wanted = f"{line}\n".encode()
        return next(step.end for step in self.steps if step.call == "say" and step.data == wanted)


def do_all(root: str) -> None:
    """Do every operation, and say so: the program that is recorded."""
    for name, operation in OPERATIONS.items():
        say = partial(_say, name)
        say("begin")
        operation.run(Path(root) / folder_of(name), say)
        say("end")


def _say(name: str, word: str) -> None:
    os.write(1, f"{word} {name}\n".encode())


def make_recording(scratch: Path) -> Recording:
    """Record all operations."""
    prepare(scratch / "root")
    shutil.copytree(scratch / "root", scratch / "before")
    steps = record(PROGRAM, [str(scratch / "root")], scratch / "traces")
    return Recording(scratch / "before", scratch / "root", steps)


def moments(points: Sequence[Step]) -> Iterator[tuple[int, float, bool]]:
    """Each point, a moment, and whether a kill there differs from one at another moment."""
    for index, step in enumerate(points):
        if index == 0:
            yield index, step.begin - 1e-7, True
        yield index, (step.begin + step.end) / 2, False
        yield index, step.end, True


def replay(recording: Recording, name: str, scratch: Path, *, every: int = 1, subsets: int = 1, seed: int = 0) -> Tally:
    """Cut an operation off at every so many-th of its points, and judge what is left."""
    case = recording.case(name)
    mine, points, acknowledged_at = recording.steps_of(name)
    chance = random.Random(f"{seed} {name}")
    tally = Tally(points=len(points))
    before, where = recording.before / folder_of(name), recording.root / folder_of(name)
    first = chance.randrange(every)
    target = scratch / folder_of(name)
    for index, moment, differs in moments(points):
        if index % every != first % min(every, len(points)):
            continue
        ways: list[random.Random | None] = [LosesAll(), *[chance] * subsets]
        for lost in [None, *ways] if differs else ways:
            cut(before, where, mine, moment, target, lost)
            acknowledged = acknowledged_at <= moment and (lost is None or case.operation.durable)
            fault = case.judge(target, acknowledged)
            shutil.rmtree(target)
            if lost is None:
                tally.killed += 1
            else:
                tally.cut += 1
            if fault is not None:
                tally.faults[fault] += 1
                step = points[index]
                tally.words.append(
                    f"{name}, {'killed' if lost is None else 'power cut'} at {step.call} {step.path}: {fault}"
                )
    return tally


def kill(recording: Recording, name: str, scratch: Path, *, every: int = 1, seed: int = 0) -> Tally:
    """Kill real processes on entering every so many-th of an operation's system calls."""
    case = recording.case(name)
    points = list_points(name, recording.before, scratch)
    tally = Tally(points=len(points))
    first = random.Random(f"{seed} {name}").randrange(every)
    for point in points[first % len(points) :: every]:
        killed, fault = kill_at(case, point, recording.before, scratch)
        tally.killed += killed
        if fault is not None:
            tally.faults[fault] += 1
            tally.words.append(f"{name}, killed at {point.call} {point.number}: {fault}")
    return tally


def measure(settings: Settings) -> Report:
    """Cut everything off, and count."""
    if not can_trace():
        return Report(notes=["needs strace, and a system that lets it trace: nothing was done"])
    recording = make_recording(settings.scratch)
    (scratch := settings.scratch / "cut").mkdir()
    replayed, killed = {}, {}
    for name in OPERATIONS:
        replayed[name] = replay(
            recording, name, scratch, every=settings.pick(4, 1), subsets=settings.pick(1, 8), seed=settings.seed
        )
        killed[name] = kill(recording, name, scratch, every=settings.pick(8, 1), seed=settings.seed)
    words = [word for tally in (*replayed.values(), *killed.values()) for word in tally.words]
    return Report(
        sections=[
            Section("Files made as kills and power cuts leave them, at system calls that change files",
                    [_row(name, tally) for name, tally in replayed.items()]),
            Section("Real processes killed on entering such a call, while another has the store open",
                    [_row(name, tally, real=True) for name, tally in killed.items()]),
        ],
        notes=["events lost: acknowledged ones; torn: a chunk or history that is neither what it was before nor after; "
               "unsound: verify finds problems; stuck: the operation cannot be completed"],
        facts={"findings": words},
    )  # fmt: skip


def _row(name: str, tally: Tally, *, real: bool = False) -> dict[str, Cell]:
    done: dict[str, Cell] = {"killed": tally.killed} if real else {"killed": tally.killed, "power cuts": tally.cut}
    return {"operation": name, "crash points": tally.points, **done, **{fault: tally.faults[fault] for fault in FAULTS}}


def main() -> None:
    """The bench; a finding is status 1."""
    found: list[str] = []

    def run(settings: Settings) -> Report:
        report = measure(settings)
        found.extend(report.facts.get("findings", []))
        return report

    run_bench("cuts", __doc__, run)
    if found:
        print("\n".join(["found:", *found[:20]]), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
