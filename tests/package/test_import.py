"""What an import loads: a store's words and nothing heavy, so that commands and short scripts start at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numba", "llvmlite", "pyarrow", "matplotlib", "uvloop", "asyncio")


@pytest.mark.parametrize(
    "statement",
    [
        "import uihkv",
        "import loader",
        "import uihkv.cli; uihkv.cli.BUILT_IN['create'].load()",
        "from loader.bench import bench; from loader.demo.command import demo",
    ],
)
def test_an_import_loads_nothing_heavy(statement: str) -> None:
    script = f"import sys; {statement}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names_are_there_and_documented() -> None:
    import loader
    import uihkv

    for package in (uihkv, loader):
        assert sorted(package.__all__) == list(package.__all__)
        for name in package.__all__:
            assert getattr(package, name).__doc__, name
