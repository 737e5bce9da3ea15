"""Every command of ``uihkv`` as it was typed and what it printed: the page ``docs/commands.md`` and its pictures.

``python -m docs.generate`` runs them, in a folder of its own, on data that is made here, 80 columns wide; so the page
shows what commands print, and nothing else. A test runs them again. What may differ from machine to machine, sizes and
times, is compared by its form (:func:`same_form`). Commands that measure, or take a minute, were captured by hand
(``docs/captured``).
"""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
PAGE = HERE / "commands.md"
PICTURES = HERE / "pictures"
CAPTURED = HERE / "captured"

HEAD = """# Commands, and what they print

<!-- Made by `python -m docs.generate`, which runs them; do not edit. -->

Each command once, as typed and with what it printed in a terminal of 80 columns, in the order in which a store needs
them. The log is made up: 20,000 events of 496 users in a month, of which one in twenty arrives up to an hour late. All
options are in the [reference](reference/cli.md).
"""

SCHEMA = """time_unit = "ms"
[columns]
item_id = "int64"
action  = "uint8"
dwell   = { dtype = "float32", default = 0.0 }
"""


@dataclass(frozen=True)
class Session:
    """Lines that are typed for one command.

    Attributes:
        command: which.
        lines: what is typed, one behind the other.
        text: what a reader should know before.
        pictures: files in ``docs/pictures``: a .png that the lines make, an .svg of what they print.

    """

    command: str
    lines: tuple[str, ...]
    text: str = ""
    pictures: tuple[str, ...] = ()


SESSIONS = (
    Session("create", ("cat schema.toml", "uihkv create store --schema schema.toml --shards 4")),
    Session(
        "ingest",
        (
            "uihkv ingest store events.parquet --visible-at seen --source clicks",
            "uihkv ingest store events.parquet --visible-at seen --source clicks",
            "uihkv ingest bulk events.parquet --visible-at seen --schema schema.toml --shards 4",
        ),
        "Run again with the same source, it stores nothing twice. With `--schema` the store is built aside, as for a "
        "first load larger than memory.",
    ),
    Session("examples", ("uihkv examples store -o examples.parquet --every 8 --label dwell",)),
    Session("resolve", ("uihkv resolve store asked.parquet -o slim.parquet --as-of asked --delay 500",)),
    Session(
        "slim",
        ("uihkv slim live streamed.parquet -o plain.parquet",),
        "`streamed.parquet` are examples whose newest events were inline, since the store did not have them yet.",
    ),
    Session(
        "audit",
        ("uihkv audit store slim.parquet --as-of asked --delay 60000",),
        "Pointers logged half a second behind the clock, against resolving with a minute's delay.",
    ),
    Session("stats", ("uihkv stats store --details --plot stats.png",), pictures=("stats.png", "stats.svg")),
    Session("show", ("uihkv show store 3 --last 3", "uihkv show store 3 --version 100 --last 2 --json")),
    Session("verify", ("uihkv verify store",), pictures=("verify.svg",)),
    Session("trim", ("uihkv trim store 3 --before 1000", "uihkv trim store --visible-before 1700200000000")),
    Session("compact", ("uihkv compact store --copy-to copy",)),
    Session("backup", ("uihkv backup store backup",)),
    Session("import", ("head -3 ratings.csv", "uihkv import movielens rated ratings.csv --source ml")),
    Session("import-git", ("uihkv import-git repository commits --names",)),
    Session("import-fatrows", ("uihkv import-fatrows fat.parquet migrated -o migrated.parquet --asked asked",)),
    Session(
        "bench",
        (),
        "On a virtual machine of two cores, over what `uihkv demo --quick` made.",
    ),
    Session("demo", (), "From an installed wheel, outside of the repository.", pictures=("demo.svg",)),
)

FAILED = "uihkv stats nowhere"
"""A line that fails, shown at the end."""

VARIES = re.compile(r"[\d.,]+(?= ?(?:[kMGT]?B|[mµn]?s|seconds|%|/s)\b)")


def build_page(folder: Path, picture: Callable[[str, str], None] | None = None) -> str:
    """Run all sessions in a folder, and give the page; ``picture`` gets a picture's name and the text that it shows."""
    from docs.generate import command_help, list_commands

    commands = list_commands()
    lines = [HEAD]
    with chdir(folder):
        make_data(Path())
        for session in SESSIONS:
            first, _, _ = command_help(commands[session.command]).partition("\n")
            lines += [f"## uihkv {session.command}\n", f"{first}\n"]
            lines += [f"{session.text}\n"] if session.text else []
            shown = "\n".join(run_line(line) for line in session.lines) or captured(session.command)
            lines.append(f"```text\n{shown}```\n")
            for name in session.pictures:
                lines.append(f"![uihkv {session.command}](pictures/{name})\n")
                if picture is not None:
                    picture(name, shown)
        lines += ["## When something is wrong\n", "One line on standard error, and exit status 1.\n"]
        lines += [f"```text\n{run_line(FAILED, fails=True)}```\n", *_importers(Path("importers"))]
    return "\n".join(lines)


def run_line(line: str, fails: bool = False) -> str:
    """A line after its prompt, and what it prints."""
    words = shlex.split(line)
    if words[0] == "uihkv":
        from typer.testing import CliRunner

        from uihkv.cli import app

        done = CliRunner().invoke(app, words[1:], prog_name="uihkv", env={"COLUMNS": "80"})
        if done.exit_code != fails:
            raise RuntimeError(f"{line}: {done.output}{done.exception!r}")
        told = done.output
    else:
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return "".join(f"{shown.rstrip()}\n" for shown in [f"$ {line}", *told.splitlines()])


def captured(command: str) -> str:
    """What a command printed when it was run by hand."""
    return (CAPTURED / f"{command}.txt").read_text()


def same_form(page: str) -> str:
    """A page without what differs from machine to machine: the numbers of lines with sizes or times, and space."""
    lines = [re.sub(r"[\d.,]+", "#", line) if VARIES.search(line) else line for line in page.splitlines()]
    return "\n".join(" ".join(re.sub("[─━]+", "─", line).split()) for line in lines)


def draw(name: str, shown: str, folder: Path) -> None:
    """Make a picture: what a session has drawn itself, or what it printed."""
    if name.endswith(".png"):
        (PICTURES / name).write_bytes((folder / name).read_bytes())
        return
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown.rstrip("\n")))
    plain = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)  # no fonts from the network
    (PICTURES / name).write_text(
        console.export_svg(title=f"uihkv {Path(name).stem}", code_format=plain, unique_id=Path(name).stem)
    )


def _importers(folder: Path) -> Iterator[str]:
    """What every importer makes of its sample, beside a plain reader."""
    from tests.importers import table

    folder.mkdir()
    yield "## Every importer, counted\n"
    yield (
        " ".join(inspect.cleandoc(table.__doc__ or "").split("\n\n")[1].split())
        .replace("``", "`")
        .replace("(:mod:`tests.importers.logs`)", "(`tests/importers/logs.py`)")
        + "\n"
    )
    yield "\n".join(["```text", "$ python -m tests.importers.table", *table.count_all(folder), "```", ""])


def make_data(folder: Path) -> None:
    """The files that sessions take."""
    rng = np.random.default_rng(1)
    (folder / "schema.toml").write_text(SCHEMA)
    n, begin, month = 20_000, 1_700_000_000_000, 30 * 86_400_000
    ts = begin + np.sort(rng.integers(0, month, n))
    seen = ts + np.where(rng.random(n) < 0.05, rng.integers(0, 3_600_000, n), rng.integers(0, 900, n))
    order = np.argsort(seen, kind="stable")
    events = {
        "user_id": (rng.zipf(1.4, n) % 500)[order], "ts": ts[order], "seen": seen[order],
        "item_id": rng.integers(0, 3000, n), "action": rng.choice(np.arange(3, dtype=np.uint8), n, p=[0.7, 0.2, 0.1]),
        "dwell": rng.gamma(2, 4, n).round(1).astype(np.float32),
    }  # fmt: skip
    _write(folder / "events.parquet", events)
    asked = {"user_id": rng.integers(0, 60, 500), "asked": begin + rng.integers(0, month, 500)}
    _write(folder / "asked.parquet", {**asked, "label": rng.integers(0, 2, 500).astype(np.float32)})
    rated = [
        f"{user},{rng.integers(1, 999)},{rng.integers(1, 11) / 2},{1147860000 + rng.integers(9999)}"
        for user in range(1, 40)
        for _ in range(25)
    ]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rated, ""]))
    _make_fat_rows(folder / "fat.parquet", rng)
    _make_live(folder)
    _make_repository(folder / "repository")


def _make_fat_rows(path: Path, rng: np.random.Generator) -> None:
    histories: dict[int, list[tuple[int, int]]] = {user: [] for user in range(20)}
    rows: list[dict[str, Any]] = []
    for moment in range(1, 1500):
        user = int(rng.integers(0, 20))
        history = histories[user]
        if history and rng.random() < 0.3:
            window = history[-50:]
            rows.append({
                "user_id": user, "asked": 1000 * moment, "label": moment % 2, "history_ts": [ts for ts, _ in window],
                "history_item_id": [item for _, item in window],
            })  # fmt: skip
        history.append((1000 * moment, int(rng.integers(0, 500))))
    pq.write_table(pa.Table.from_pylist(rows), path)


def _make_live(folder: Path) -> None:
    """A store that has caught up with the inline tails of ``streamed.parquet``."""
    from uihkv import Column, Pointers, Schema, Store
    from uihkv.inline import InlineTail

    schema, items = Schema([Column("item_id", "int64")]), np.arange(9)
    with Store.create(folder / "live", schema, shards=1) as store:
        store.append({"user_id": np.full(9, 7), "ts": 10 * items, "item_id": items}, backfill=True)
    tail = np.concatenate([items[5:7], items[3:8]])
    inline = InlineTail.of(schema, [5, 2, 3], [0, 2, 2, 7], {"ts": 10 * tail, "item_id": tail})
    table = Pointers([7, 7, 7], [5, 2, 3], [40, 10, 20]).to_arrow().append_column("label", pa.array([1, 0, 1]))
    for name, column in zip(("inline_start", "inline"), inline.to_arrow(schema).columns, strict=True):
        table = table.append_column(name, column)
    pq.write_table(table, folder / "streamed.parquet")


def _make_repository(folder: Path) -> None:
    """Twelve commits of three authors, at fixed moments."""
    folder.mkdir()
    lonely = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*words: str, who: str = "ada", when: int = 1_700_000_000) -> None:
        names = {"NAME": who, "EMAIL": f"{who}@example.org", "DATE": f"{when} +0000"}
        told = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in names.items()}
        subprocess.run(
            ["git", "-C", str(folder), *words], check=True, capture_output=True, env=os.environ | lonely | told
        )

    git("init", "-q", "-b", "main")
    for number in range(12):
        for name in ("README.md", f"part{number % 4}.py"):
            (folder / name).write_text(f"{number}\n" * (number + 1))
        git("add", ".")
        git("commit", "-q", "-m", "x", who=("ada", "bob", "cy")[number % 3], when=1_700_000_000 + 60 * number)


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    pq.write_table(pa.table(dict(columns)), path)
