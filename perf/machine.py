"""What ran this, and what it used: facts that a figure is worthless without."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "uihkv", "numpy", "numba", "llvmlite", "lmdb", "lz4", "xxhash", "pyarrow", "torch",
    "pylance", "vortex-data", "datasets",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the versions on it.

    Attributes:
        cpu: the processor's model.
        cores: cores that this process may use.
        memory_bytes: main memory.
        kernel: operating system and its release.
        python: version of Python.
        packages: versions of the packages that matter here; absent ones are left out.
        revision: git revision of the code, ``+`` behind it where files differ from it; empty outside of git.
        load: load average of the last minute when this was taken, a hint at noise.

    """

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    packages: dict[str, str]
    revision: str
    load: float

    def describe(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def describe_machine() -> Machine:
    """Look at the machine, now."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := installed_version(name))},
        revision=_revision(),
        load=os.getloadavg()[0],
    )


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


def _revision() -> str:
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return revision + ("+" if changed else "")


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
