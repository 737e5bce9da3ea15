"""Operations whose process gets SIGKILL on entering each of its system calls, while another one has the store open.

What a replayed recording cannot show: locks that the killed process held, its places among the readers, what it had in
shared memory. The process is forked from one that has all loaded, strace attaches to it and kills it on entering the
N-th call of a name; the survivor, which holds a snapshot meanwhile, must then see and do what
:meth:`perf.cutstores.Case.judge` wants, in time.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from perf.cutstores import FAULTS, OPERATIONS, STUCK, Case, Say, folder_of
from perf.powercut import CHANGING
from uihkv import Store

LIMIT_S = 60
"""How long a survivor may take."""
_CALL = re.compile(r"^(?:\[pid +(\d+)\] )?(\w+)\((.*)$")


@dataclass(frozen=True, slots=True)
class Point:
    """On entering which call: the N-th of a name in some thread."""

    call: str
    number: int


def list_points(name: str, before: Path, scratch: Path) -> list[Point]:
    """Every system call of an operation that changes files."""
    folder = scratch / folder_of(name)
    shutil.copytree(before / folder_of(name), folder)
    trace = scratch / "calls"
    process, go, _ = _begin(lambda say: OPERATIONS[name].run(folder, say))
    with _strace(process, ["-e", f"trace={','.join(CHANGING)}", "-o", str(trace)]):
        os.write(go, b"g")
        os.close(go)
        os.waitpid(process, 0)
    counts: Counter[tuple[str, str]] = Counter()
    points = set()
    for line in trace.read_text().splitlines():
        found = re.match(r"^(\d+) +(\w+)\((.*)$", line)
        if found is None:
            continue
        thread, call, given = found.groups()
        counts[thread, call] += 1
        if call != "openat" or "O_CREAT" in given:
            points.add(Point(call, counts[thread, call]))
    shutil.rmtree(folder)
    return sorted(points, key=lambda point: (CHANGING.index(point.call), point.number))


def kill_at(case: Case, point: Point, before: Path, scratch: Path) -> tuple[bool, str | None]:
    """Do an operation, killed at a point: whether it was, and what was wrong afterwards."""
    folder = scratch / folder_of(case.name)
    shutil.copytree(before / folder_of(case.name), folder)
    ready, told = os.pipe()
    wait, release = os.pipe()
    survivor = os.fork()
    if not survivor:
        _survive(case, folder, told, wait)
    os.close(told)
    os.close(wait)
    try:
        os.read(ready, 1)
        process, go, heard = _begin(lambda say: case.operation.run(folder, say))
        inject = f"inject={point.call}:signal=SIGKILL:when={point.number}"
        with _strace(process, ["-e", f"trace={point.call}", "-e", inject, "-o", "/dev/null"]):
            os.write(go, b"g")
            os.close(go)
            status = os.waitpid(process, 0)[1]
        acknowledged = bool(os.read(heard, 1))
        os.close(heard)
        os.write(release, b"1" if acknowledged else b"0")
        fault = _outcome(survivor)
    finally:
        os.close(release)
        os.close(ready)
        with suppress(ChildProcessError, ProcessLookupError):  # it was waited for
            os.kill(survivor, signal.SIGKILL)
            os.waitpid(survivor, 0)
        shutil.rmtree(folder)
    return os.WIFSIGNALED(status), fault


def _begin(work: Callable[[Say], None]) -> tuple[int, int, int]:
    """A process that waits for a byte, and then works: its number, where the byte goes, and where it acknowledges."""
    wait, go = os.pipe()
    heard, say = os.pipe()
    process = os.fork()
    if process:
        os.close(wait)
        os.close(say)
        return process, go, heard
    try:
        os.close(go)
        os.read(wait, 1)
        work(lambda _: os.write(say, b"a"))
        os._exit(0)
    finally:
        os._exit(1)


def _survive(case: Case, folder: Path, told: int, wait: int) -> None:
    """Hold the store open while the other one is killed, then look and go on."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if (folder / "store").exists():
            with Store.open(folder / "store") as store, store.snapshot():
                os.write(told, b"r")
                acknowledged = os.read(wait, 1) == b"1"
                signal.alarm(LIMIT_S)
                fault = case.judge(folder, acknowledged)
        else:
            os.write(told, b"r")
            acknowledged = os.read(wait, 1) == b"1"
            signal.alarm(LIMIT_S)
            fault = case.judge(folder, acknowledged)
        os._exit(10 + FAULTS.index(fault) if fault else 0)
    finally:
        os._exit(1)


def _outcome(survivor: int) -> str | None:
    status = os.waitpid(survivor, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return None
    code = os.WEXITSTATUS(status) - 10 if os.WIFEXITED(status) else -1
    return FAULTS[code] if 0 <= code < len(FAULTS) else STUCK


class _strace:  # noqa: N801 - a context manager, used as a verb
    """Strace attached to a process while inside; left when the process has ended."""

    def __init__(self, process: int, options: Sequence[str]) -> None:
        self._process = process
        self._tracer = subprocess.Popen(
            ["strace", "-f", "-p", str(process), *options], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )

    def __enter__(self) -> None:
        complaint = self._tracer.stderr
        assert complaint is not None  # it is a pipe
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            if select.select([complaint], [], [], 1)[0]:
                break
        status = Path(f"/proc/{self._process}/status").read_text()
        if not re.search(r"^TracerPid:\s+[1-9]", status, re.MULTILINE):
            raise RuntimeError(f"strace does not attach: {complaint.readline().decode(errors='replace')}")

    def __exit__(self, *_: object) -> None:
        self._tracer.communicate(timeout=LIMIT_S)
