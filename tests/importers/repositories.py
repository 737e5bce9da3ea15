"""A git repository of every oddity, and its history as git itself tells it, commit by commit.

The reader shares no line with the importer: it asks git for each commit alone, and takes apart what that prints.
"""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

AUTHORS = ("ada@example.org", "bob@example.org", "cy d'or@example.org")
NAMES = ("README.md", "src/main.py", 'a b/ü\tq"x.py', "data.bin", "Makefile", "src/x\ny.py")


def make_repository(made: Path) -> Path:
    """Thirty commits of three authors: odd names, a binary file, a rename, a merge, an empty commit, two clocks."""
    made.mkdir()

    def git(*arguments: str, author: int = 0, written: int = 1_700_000_000, committed: int = 1_700_000_000) -> None:
        who = {"NAME": "x", "EMAIL": AUTHORS[author]}
        environment = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
        dates = {"GIT_AUTHOR_DATE": f"{written} +0000", "GIT_COMMITTER_DATE": f"{committed} +0000"}
        lonely = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        subprocess.run(
            ["git", "-C", str(made), *arguments],
            check=True,
            capture_output=True,
            env=os.environ | environment | dates | lonely,
        )

    git("init", "-q", "-b", "main")
    for number in range(30):
        for name in NAMES[number % 3 :: 2]:
            path = made / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(
                b"\0\1" * (number + 1) if name == "data.bin" else f"{number}\n".encode() * (number % 5 + 1)
            )
        git("add", ".")
        when = {
            "author": number % 3,
            "written": 1_700_000_000 + 50 * (number ^ 3),
            "committed": 1_700_000_000 + 100 * number,
        }
        git("commit", "-q", "-m", "x", "--allow-empty", **when)
        if number == 10:
            git("mv", "Makefile", "makefile.mk")
            git("commit", "-q", "-m", "renamed", **when)
        if number == 20:
            git("commit", "-q", "-m", "empty", "--allow-empty", **when)
            git("checkout", "-q", "-b", "side")
            (made / "side.txt").write_text("s")
            git("add", ".")
            git("commit", "-q", "-m", "side", **when)
            git("checkout", "-q", "main")
    git("merge", "-q", "side", "-m", "merged", written=1_700_009_000, committed=1_700_009_000)
    return made


def plain_log(repository: Path) -> dict[int, list[tuple[Any, ...]]]:
    """Commit by commit, each asked for alone."""

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], check=True, capture_output=True, text=True
        ).stdout

    authors: dict[str, int] = {}
    paths: dict[str, int] = {}
    kinds: dict[str, int] = {}
    histories: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for commit in ask("log", "--reverse", "--no-merges", "--format=%H").split():
        address, written, committed = ask("show", "-s", "--format=%ae%n%at%n%ct", commit).splitlines()
        for line in filter(None, ask("show", "--no-renames", "--numstat", "--format=", commit).splitlines()):
            added, deleted, path = line.split("\t", 2)  # git quotes odd names, one to one
            user = authors.setdefault(address, len(authors))
            item = paths.setdefault(path, len(paths))
            file = path.strip('"').rsplit("/", 1)[-1]
            kind = kinds.setdefault("." + file.rsplit(".", 1)[1] if "." in file[1:] else "", len(kinds))
            latest = histories[user][-1][1] if histories[user] else 0
            numbers = (0, 0, 1) if added == "-" else (int(added), int(deleted), 0)
            histories[user].append((1000 * int(written), max(1000 * int(committed), latest), item, kind, *numbers))
    return histories
