"""A repository's history as events, against git's own log taken apart line by line."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.importers.conftest import Log
from tests.importers.test_public_logs import read_back
from uihkv import FormatError, Store
from uihkv.importers import ImportProgress
from uihkv.importers.gitlog import import_git

AUTHORS = ("ada@example.org", "bob@example.org", "cy d'or@example.org")
NAMES = ("README.md", "src/main.py", 'a b/ü\tq"x.py', "data.bin", "Makefile", "src/x\ny.py")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty commits of three authors: odd names, a binary file, a rename, a merge, an empty commit, two clocks."""
    made = tmp_path_factory.mktemp("git") / "repository"
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


def test_events_equal_those_of_gits_own_log(repository: Path, tmp_path: Path, log_import: Log) -> None:
    seen: list[ImportProgress] = []
    result = import_git(repository, tmp_path / "store", shards=2, batch_rows=10, progress=seen.append)
    expected = plain_log(repository)
    assert read_back(tmp_path / "store") == expected
    assert result.appended == result.events == sum(map(len, expected.values())) > 80
    assert [at.share for at in seen if at.stage == "read"][-1] == 1.0
    log_import("git log", 1, result.events, len(expected), f"user 0: {expected[0][0]}")


def test_an_import_killed_at_a_batch_is_completed_by_the_next(repository: Path, tmp_path: Path) -> None:
    def die(at: ImportProgress) -> None:
        if at.stage == "write" and at.events >= 20:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            import_git(repository, tmp_path / "store", shards=2, batch_rows=10, source="git", progress=die)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    again = import_git(repository, tmp_path / "store", batch_rows=10, source="git")
    assert again.replayed == 20
    assert read_back(tmp_path / "store") == plain_log(repository)


def test_names_are_stored_where_they_are_asked_for(repository: Path, tmp_path: Path) -> None:
    import_git(repository, tmp_path / "numbers", shards=1)
    import_git(repository, tmp_path / "store", names=True, shards=2, batch_rows=10)
    numbers, named = read_back(tmp_path / "numbers"), read_back(tmp_path / "store")
    assert sorted(named) == sorted(AUTHORS)
    paths: dict[int, str] = {}
    for user, address in enumerate(AUTHORS):
        for plain, event in zip(numbers[user], named[address], strict=True):
            assert plain[:2] + plain[4:] == event[:2] + event[4:]
            assert paths.setdefault(plain[2], event[2]) == event[2]
            assert event[3] == Path(event[2]).suffix
    assert {*NAMES, "makefile.mk", "side.txt"} == set(paths.values())


def test_git_says_what_is_wrong_and_nothing_is_made(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for path, revision, words in (
        (tmp_path / "plain", "HEAD", "not a git repository"),
        (repository, "no-such-branch", "no-such-branch"),
        (repository, "--output=/tmp/x", "output"),
        (tmp_path / "nowhere", "HEAD", "is no folder"),
    ):
        with pytest.raises(FormatError, match=words):
            import_git(path, tmp_path / "store", revision=revision)
    assert not (tmp_path / "store").exists()


def test_a_branch_is_imported_alone(repository: Path, tmp_path: Path) -> None:
    import_git(repository, tmp_path / "store", revision="side", shards=1)
    with Store.open(tmp_path / "store") as store:
        assert 0 < store.stats().events < sum(map(len, plain_log(repository).values()))
