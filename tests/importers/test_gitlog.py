"""A repository's history as events, against git's own log taken apart line by line."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.importers.conftest import Log
from tests.importers.repositories import AUTHORS, NAMES, make_repository, plain_log
from tests.importers.test_public_logs import read_back
from uihkv import FormatError, Store
from uihkv.importers import ImportProgress
from uihkv.importers.gitlog import import_git


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("git") / "repository")


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
