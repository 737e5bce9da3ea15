"""What ran this, and what it used: facts that a figure is worthless without."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from perf.peers import FEAST_INTERPRETER, INTERPRETER

PACKAGES = (
    "uihkv", "numpy", "numba", "llvmlite", "lmdb", "lz4", "xxhash", "pyarrow", "torch", "uvloop", "msgpack",
    "matplotlib", "duckdb", "polars", "pylance", "vortex-data", "datasets", "rocksdict", "spdl", "litdata",
    "mosaicml-streaming", "torchdata", "lightning", "torchrec", "ray", "feast", "timefence", "pandas",
)  # fmt: skip
"""Those that a figure may depend on."""

# What a bench writes itself does not make its code another: results and pages are no code.
_CODE = (".", ":!perf/results", ":!*.md")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the versions on it.

    Attributes:
        cpu: the processor's model.
        cores: cores that this process may use.
        memory_bytes: main memory.
        page_bytes: a page of it.
        kernel: operating system and its release.
        python: version of Python.
        packages: versions of the packages that matter here; absent ones are left out.
        peers: the same of other interpreters that benches may ask, by the variable that names them.
        revision: git revision of the code; empty outside of git.
        changed: whether files of the code differ from it.

    """

    cpu: str
    cores: int
    memory_bytes: int
    page_bytes: int
    kernel: str
    python: str
    packages: dict[str, str]
    peers: dict[str, dict[str, str]] = field(default_factory=dict)
    revision: str = ""
    changed: bool = False

    def describe(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def describe_machine() -> Machine:
    """Look at the machine, now."""
    revision, changed = _revision()
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    others = {name: os.environ[name] for name in (INTERPRETER, FEAST_INTERPRETER) if name in os.environ}
    return Machine(
        cpu=_cpu_model(),
        cores=count_cores(),
        memory_bytes=page_bytes * os.sysconf("SC_PHYS_PAGES"),
        page_bytes=page_bytes,
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := installed_version(name))},
        peers={name: _ask_versions(python) for name, python in others.items()},
        revision=revision,
        changed=changed,
    )


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed_version(package: str) -> str | None:
    """Version of an installed package; None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _ask_versions(python: str) -> dict[str, str]:
    """Versions of the packages of another interpreter; none where it does not run."""
    code = (
        "import json, sys; from importlib.metadata import distributions; names = set(sys.argv[1:]); "
        "print(json.dumps({d.name: d.version for d in distributions() if d.name in names}))"
    )
    try:
        said = subprocess.run([python, "-c", code, *PACKAGES], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    found: dict[str, str] = json.loads(said)
    return dict(sorted(found.items()))


def _revision() -> tuple[str, bool]:
    try:
        return _git("rev-parse", "--short=12", "HEAD"), bool(
            _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        )
    except (OSError, subprocess.CalledProcessError):
        return "", False


def _git(*words: str) -> str:
    root = Path(__file__).parents[1]
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Whom the cores worked for so far; subtract two for what lay between.

    Attributes:
        wall_s: the clock on the wall.
        busy_s: work on all cores of the machine, whoever's.
        stolen_s: time in which a virtual machine's cores waited for the real ones.
        own_s: processor time of this process and of its children that have ended.

    """

    wall_s: float
    busy_s: float
    stolen_s: float
    own_s: float

    @classmethod
    def now(cls) -> CoreTime:
        """Of the machine since it started (``/proc/stat``; no work of others is seen where there is none)."""
        own = sum(
            usage.ru_utime + usage.ru_stime
            for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
        )
        path = Path("/proc/stat")
        if not path.exists():
            return cls(time.monotonic(), own, 0.0, own)
        tick = os.sysconf("SC_CLK_TCK")
        user, nice, system, _, _, interrupt, soft, stolen, *_ = (
            int(word) / tick for word in path.read_text().split("\n", 1)[0].split()[1:]
        )
        return cls(time.monotonic(), user + nice + system + interrupt + soft, stolen, own)

    def __sub__(self, earlier: CoreTime) -> CoreTime:
        return CoreTime(
            self.wall_s - earlier.wall_s, self.busy_s - earlier.busy_s, self.stolen_s - earlier.stolen_s,
            self.own_s - earlier.own_s,
        )  # fmt: skip

    def shares(self, cores: int) -> dict[str, float]:
        """Of what the cores could have worked: what others' processes took, and what was stolen."""
        room = max(self.wall_s * cores, 1e-9)
        return {"others": max(0.0, self.busy_s - self.own_s) / room, "stolen": self.stolen_s / room}


@dataclass(frozen=True, slots=True)
class Counters:
    """What this process has read, written and held so far; subtract two for what lay between.

    Attributes:
        read_bytes, write_bytes: bytes that went to and from devices (``/proc/self/io``; 0 where there is none).
        rchar, wchar: bytes that passed through read and write calls, whether or not a device saw them.
        major_faults: page faults that waited for a device.
        user_s, system_s: processor time of all threads.
        peak_bytes: most resident memory ever held; not a difference even after subtraction.

    """

    read_bytes: int
    write_bytes: int
    rchar: int
    wchar: int
    major_faults: int
    user_s: float
    system_s: float
    peak_bytes: int

    @classmethod
    def now(cls) -> Counters:
        """The counters of this process."""
        io = {"read_bytes": 0, "write_bytes": 0, "rchar": 0, "wchar": 0}
        path = Path("/proc/self/io")
        if path.exists():
            for line in path.read_text().splitlines():
                key, value = line.split(":")
                if key in io:
                    io[key] = int(value)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        unit = 1 if sys.platform == "darwin" else 1024
        return cls(
            **io, major_faults=usage.ru_majflt, user_s=usage.ru_utime, system_s=usage.ru_stime,
            peak_bytes=usage.ru_maxrss * unit,
        )  # fmt: skip

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters(
            read_bytes=self.read_bytes - earlier.read_bytes,
            write_bytes=self.write_bytes - earlier.write_bytes,
            rchar=self.rchar - earlier.rchar,
            wchar=self.wchar - earlier.wchar,
            major_faults=self.major_faults - earlier.major_faults,
            user_s=self.user_s - earlier.user_s,
            system_s=self.system_s - earlier.system_s,
            peak_bytes=self.peak_bytes,
        )

    def describe(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)
