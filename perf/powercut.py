"""What a disk may hold after a power cut: every write of a real run recorded, and lost again at will.

A program runs under strace, which notes each write, flush and rename with its bytes. From the recording, :func:`cut`
makes the files as a power cut at a given moment may leave them: what was flushed is there; of what was only written,
each page is there or not, as chance has it; directory entries (directories made, files created, names that go or
change, also of whole directories) are there up to some one of them, since file systems journal them in order: at least
up to the last one of a directory that was flushed. Without chance it is what a killed process leaves: all that
was written until then.

What changes files in a way that is not replayed (a shared map that is written to, a copy within the kernel) is recorded
too, and refused where it concerns the files that are cut.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PAGE = 4096
CHANGING = ("pwrite64", "pwritev", "writev", "write", "ftruncate", "fdatasync", "fsync", "rename", "openat", "mkdir",
            "rmdir", "unlink", "unlinkat")  # fmt: skip
"""System calls that change what is on disk, or when it is; openat where it makes files."""
OTHER = ("pwritev2", "msync", "link", "linkat", "symlink", "symlinkat", "renameat", "renameat2", "mkdirat", "truncate",
         "fallocate", "copy_file_range", "sendfile", "splice", "mmap")  # fmt: skip
"""Those that would, and are not replayed."""
UNKNOWN = "unknown"
_UNSHARED = "lock.mdb"
"""LMDB's locks live in memory; the file's content says nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One system call that changes what is on disk, or says something on standard output."""

    begin: float
    end: float
    call: str
    path: str
    offset: int = 0
    data: bytes = b""
    to: str = ""
    durable: bool = False


@cache
def can_trace() -> bool:
    """Whether strace is here and allowed to trace."""
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True)
    return tried.returncode == 0


def record(program: str, arguments: Sequence[str], folder: Path) -> list[Step]:
    """Run a Python program and note what it does to disks, in order."""
    folder.mkdir()
    done = subprocess.run(
        ["strace", "-ff", "--seccomp-bpf", "-o", str(folder / "trace"), "-ttt", "-T", "-y", "-xx", "-s", "268435456",
         "-e", f"trace={','.join((*CHANGING, *OTHER, 'lseek', 'close'))}", sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [step for trace in folder.glob("trace.*") for step in _parse(trace.read_text())]
    return sorted(steps, key=lambda step: step.begin)


_LINE = re.compile(r"(?P<at>[\d.]+) (?P<call>\w+)\((?P<given>.*)\) += (?P<got>-?\d+).*?<(?P<took>[\d.]+)>$")
_FILE = re.compile(r"^(?P<fd>\d+)<(?P<path>[^>]*)>")
_FOLDER = re.compile(r"^(?:\d+|AT_FDCWD)<(?P<path>[^>]*)>, ")
_STRING = re.compile(r'"([^"]*)"')


def _text(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _parse(trace: str) -> Iterator[Step]:
    """Steps of one thread. Positions of its files are its own: LMDB seeks right before it writes."""
    position: dict[str, int] = {}
    durable: set[str] = set()
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None or int(found["got"]) < 0:
            continue
        call, given = found["call"], found["given"]
        begin = float(found["at"])
        end = begin + float(found["took"])
        strings = [_text(part) for part in _STRING.findall(given)]
        if call == "openat":
            fd = found["got"]
            durable.discard(fd)
            if "O_DSYNC" in given:
                durable.add(fd)
            if "O_CREAT" in given:
                yield Step(begin, end, "truncate" if "O_TRUNC" in given else "create", strings[0].decode())
            continue
        if call == "rename":
            yield Step(begin, end, call, strings[0].decode(), to=strings[1].decode())
            continue
        if call in ("mkdir", "rmdir", "unlink", "unlinkat"):
            within = _FOLDER.match(given)
            name = strings[0].decode()
            path = name if within is None else str(Path(_text(within["path"]).decode()) / name)
            yield Step(begin, end, call if call == "mkdir" else "remove", path)
            continue
        if call in OTHER:
            path = _concerned(call, given, strings)
            if path:
                yield Step(begin, end, UNKNOWN, path, to=call)
            continue
        place = _FILE.match(given)
        if place is None:
            continue
        fd, path = place["fd"], _text(place["path"]).decode(errors="replace")
        if call == "lseek":
            position[fd] = int(found["got"])
        elif call in ("pwrite64", "pwritev"):
            data = b"".join(strings)
            yield Step(begin, end, "write", path, int(given.rsplit(",", 1)[1]), data, durable=fd in durable)
        elif call in ("write", "writev"):
            data = b"".join(strings)
            yield Step(
                begin, end, "write" if fd != "1" else "say", path, position.get(fd, 0), data, durable=fd in durable
            )
            position[fd] = position.get(fd, 0) + len(data)
        elif call in ("fdatasync", "fsync"):
            yield Step(begin, end, "sync", path)
        elif call == "ftruncate":
            yield Step(begin, end, "size", path, int(given.rsplit(",", 1)[1]))


def _concerned(call: str, given: str, strings: Sequence[bytes]) -> str:
    """The file that a call changes which is not replayed; empty: none that matters."""
    if call == "mmap" and not ("MAP_SHARED" in given and "PROT_WRITE" in given):
        return ""
    found = re.findall(r"<([^>]*)>", given)
    path = _text(found[0]).decode(errors="replace") if found else strings[0].decode() if strings else ""
    return "" if path.endswith(_UNSHARED) else path


def said(steps: Sequence[Step], moment: float) -> list[str]:
    """Lines that the program had printed by then: what it had acknowledged."""
    return b"".join(step.data for step in steps if step.call == "say" and step.end <= moment).decode().splitlines()


@dataclass(eq=False)
class _File:
    """A file's bytes on the disk, and the writes that it may not have yet."""

    content: bytearray
    pending: list[Step] = field(default_factory=list)

    def put(self, step: Step, lost: random.Random | None = None) -> None:
        """Take a write whole, or page by page as chance has it."""
        if step.call == "size":
            self.content[step.offset :] = bytes(max(0, step.offset - len(self.content)))
            return
        missing = step.offset + len(step.data) - len(self.content)
        self.content.extend(bytes(max(0, missing)))
        at = 0
        while at < len(step.data):
            until = min(len(step.data), at + PAGE - (step.offset + at) % PAGE)
            if lost is None or lost.random() < 0.5:
                self.content[step.offset + at : step.offset + until] = step.data[at:until]
            at = until

    def flush(self, moment: float) -> None:
        """What had been written by then is on the disk."""
        for step in self.pending:
            if step.end <= moment:
                self.put(step)
        self.pending = [step for step in self.pending if step.end > moment]


@dataclass(frozen=True, slots=True)
class _Change:
    """Of names: one that goes, or none; one that comes, or none; what it names, None: a directory."""

    gone: str
    name: str
    file: _File | None


_Names = dict[str, _File | None]


@dataclass
class _Folder:
    """Names as the program sees them, names as the disk has them, and the changes between."""

    live: _Names
    disk: _Names = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)

    def change(self, step: Step) -> None:
        if step.call == "rename":
            self._note(_Change(step.path, step.to, self.live[step.path]))
        elif step.call == "remove":
            self._note(_Change(step.path, "", None))
        elif step.call == "mkdir":
            self._note(_Change("", step.path, None))
        elif step.path not in self.live or step.call == "truncate":
            self._note(_Change("", step.path, _File(bytearray())))

    def _note(self, change: _Change) -> None:
        _apply(self.live, change)
        self.pending.append(change)

    def settle(self, count: int) -> None:
        """The first so many changes are on the disk."""
        for change in self.pending[:count]:
            _apply(self.disk, change)
        del self.pending[:count]

    def flush(self, path: str) -> None:
        """A directory was flushed: its entries are on the disk, and all that the journal has before them."""
        concerned = [
            index
            for index, change in enumerate(self.pending)
            if path in (change.gone.rpartition("/")[0], change.name.rpartition("/")[0])
        ]
        self.settle(concerned[-1] + 1 if concerned else 0)


def _apply(names: _Names, change: _Change) -> None:
    """Take the change; a directory goes with all that is in it."""
    if change.gone:
        inside = {name: names[name] for name in names if name == change.gone or name.startswith(f"{change.gone}/")}
        for name, file in inside.items():
            del names[name]
            if change.name:
                names[change.name + name.removeprefix(change.gone)] = file
    else:
        names[change.name] = change.file


def cut(
    before: Path, where: Path, steps: Sequence[Step], moment: float, target: Path, lost: random.Random | None
) -> None:
    """Make the files as they may be when the machine stops at a moment.

    Args:
        before: a copy of the files as they were when the recording began.
        where: the folder in which the recorded program found them.
        steps: the recording.
        moment: when it stops: what ended before it has happened, what only began before it has or has not.
        target: a folder that is made, for the outcome.
        lost: decides what of the unflushed is lost; None: nothing is, the process was killed.

    """
    root = f"{where}/"
    found = {root + str(path.relative_to(before)): path for path in before.rglob("*")}
    files = {name: _File(bytearray(path.read_bytes())) if path.is_file() else None for name, path in found.items()}
    folder = _Folder(dict(files))
    folder.disk = dict(folder.live)
    for step in steps:
        if step.begin > moment or not (step.path.startswith(root) or step.path == str(where)):
            continue
        if step.call == UNKNOWN:
            raise ValueError(f"{step.to} changed {step.path}, which is not replayed")
        if step.call in ("create", "truncate", "rename", "mkdir", "remove"):
            folder.change(step)
        elif step.call == "sync" and step.end <= moment:
            file = folder.live.get(step.path)
            if file is not None:
                file.flush(step.begin)
            else:
                folder.flush(step.path)
        elif step.call in ("write", "size"):
            file = folder.live.setdefault(step.path, _File(bytearray()))
            assert file is not None
            if step.durable and step.end <= moment:
                file.put(step)
            else:
                file.pending.append(step)
    folder.settle(len(folder.pending) if lost is None else lost.randint(0, len(folder.pending)))
    target.mkdir(parents=True, exist_ok=True)
    for name, file in folder.disk.items():
        path = target / name.removeprefix(root)
        if file is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        for step in file.pending:
            if lost is not None or step.end <= moment:
                file.put(step, lost)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
