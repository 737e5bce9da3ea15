"""Every code block of README.md and docs/ runs, in order, a page in a folder of its own.

Blocks of ``python`` of a page share a namespace. In blocks without a language, ``$ uihkv …`` is run by the command
line, and must end well; what stands behind ``$ cat > FILE <<END`` is written to that file. A comment ``<!-- setup``
holds Python that a reader need not see, ``<!-- needs: LIBRARY -->`` and ``<!-- not run: WHY -->`` stand before a block
that is run only where the library is, or not at all.
"""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from uihkv.cli import app

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
LONG = ("demo", "bench")
"""Commands that take longer than a page may, or measure; they have tests of their own."""

PARTS = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|^<!-- needs: (?P<needs>\S+) -->$"
    r"|^<!-- not run: (?P<not_run>.+?) -->$"
    r"|^(?P<fence>`{3,})(?P<language>[^\n]*)\n(?P<block>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)

README_SETUP = """
from pathlib import Path
from loader.demo.eventlog import copy_log
Path("demo-out").mkdir()
copy_log(Path("demo-out/events.parquet"), 5_000)  # the demo's log, as the demo leaves it
"""


@dataclass(frozen=True)
class Block:
    """Something to run, and where it stands."""

    kind: str
    text: str
    line: int


def read_blocks(text: str) -> Iterator[Block]:
    """What a page has to run, in order, and what is left out since it needs a library that is not here."""
    skipping = False
    for part in PARTS.finditer(text):
        line = text.count("\n", 0, part.start()) + 1
        if part["setup"] is not None:
            yield Block("python", part["setup"], line)
        elif part["needs"] is not None:
            skipping = find_spec(part["needs"]) is None
        elif part["not_run"] is not None:
            skipping = True
        else:
            language = part["language"].strip()
            if skipping:
                yield Block("left out", part["block"], line + 1)
            elif language in ("python", "", "console"):
                yield Block("python" if language == "python" else "shell", part["block"], line + 1)
            skipping = False


def run_shell(text: str, place: str) -> None:
    """Lines that begin with ``$ uihkv`` and ``$ cat >``; others are what they print."""
    lines = text.replace("\\\n", " ").splitlines()
    for at, line in enumerate(lines):
        if not line.startswith("$ "):
            continue
        words = shlex.split(line[2:], comments=True)
        if words[:2] == ["cat", ">"]:
            assert words[3:] == ["<<END"], f"{place}: {line}"
            Path(words[2]).write_text("\n".join(lines[at + 1 : lines.index("END", at)]) + "\n")
        elif words[0] == "uihkv" and words[1] not in LONG:
            done = CliRunner().invoke(app, words[1:], prog_name="uihkv")
            assert done.exit_code == 0, f"{place}: {line}\n{done.output}{done.exception!r}"


def run_page(text: str, name: str) -> int:
    """Run a page in the current folder; how many blocks it had."""
    namespace: dict[str, Any] = {"__name__": "page"}
    count = 0
    for block in read_blocks(text):
        if block.kind == "python":
            code = compile("\n" * (block.line - 1) + block.text, name, "exec")
            exec(code, namespace)
        elif block.kind == "shell":
            run_shell(block.text, f"{name}:{block.line}")
        else:
            warnings.warn(f"{name}:{block.line}: not run, it needs what is not installed", stacklevel=1)
            continue
        count += 1
    return count


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page == "README.md":
        exec(README_SETUP, {})
    run_page((ROOT / page).read_text(), page)


def test_blocks_are_found_and_failures_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = "<!-- setup\nx = 1\n-->\n```python\nx += 1\n```\n<!-- needs: no_such_library -->\n```python\n1 / 0\n```\n"
    page += "```python\nassert x == 2\n```\n```toml\n1\n```\n"
    page += "```\n$ cat > a.txt <<END\nhello\nEND\n$ uihkv --version\nuihkv 9\n```\n"
    with pytest.warns(UserWarning, match="page:9: not run"):
        assert run_page(page, "page") == 4
    assert (tmp_path / "a.txt").read_text() == "hello\n"
    with pytest.raises(ZeroDivisionError):
        run_page("```python\n1 / 0\n```\n", "page")
    with pytest.raises(AssertionError, match="page:2"):
        run_page("```\n$ uihkv stats nowhere\n```\n", "page")
