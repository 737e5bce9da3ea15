"""Every format's importer against a plain reader of the same files: counts, values, order, resuming, bad lines."""

from __future__ import annotations

import gzip
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.importers.conftest import Log
from tests.importers.logs import SAMPLES, Sample
from uihkv import FormatError, Pointers, Projection, SchemaError, Store
from uihkv.importers import ImportProgress, import_log, make_importer


@pytest.fixture(params=list(SAMPLES))
def sample(request: pytest.FixtureRequest) -> Sample:
    return SAMPLES[request.param]


def read_back(path: Path) -> dict[Any, list[tuple[Any, ...]]]:
    """Every history of a store as ``(ts, visible_at, *values)``."""
    with Store.open(path, readonly=True) as store, store.snapshot() as snapshot:
        users = snapshot.users()
        heads = snapshot.head(users)
        histories = snapshot.read(Pointers(heads.user_id, heads.version), Projection(store.schema.readable))
        columns = [
            histories.strings(name).to_pylist()
            if histories.dtype(name) == "string"
            else histories.values(name).tolist()
            for name in store.schema.readable
        ]
        rows = list(zip(*columns, strict=True))
        bounds = histories.offsets.tolist()
        found = {user: rows[bounds[n] : bounds[n + 1]] for n, user in enumerate(users.tolist())}
        assert sum(map(len, found.values())) == store.stats().events
    return found


def test_events_equal_those_of_a_plain_reader(
    sample: Sample, tmp_path: Path, request: pytest.FixtureRequest, log_import: Log
) -> None:
    files = sample.write(tmp_path)
    expected = sample.histories(files)
    seen: list[ImportProgress] = []

    result = import_log(sample.format, tmp_path / "store", files, shards=2, batch_rows=7, progress=seen.append)

    count = sum(map(len, expected.values()))
    assert read_back(tmp_path / "store") == expected
    assert (result.events, result.appended, result.replayed, result.created) == (count, count, 0, True)
    assert result.order == ("time" if sample.by_time else "rows")
    assert [at.share for at in seen if at.stage == "read"][-1] == 1.0
    assert seen[-1].share == 1.0 and seen[-1].events == count
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]  # nothing is left beside the store
    first = min(expected)
    name = request.node.callspec.params["sample"]
    log_import(name, len(files), count, len(expected), f"user {first}: {expected[first][0]}")


def test_an_import_killed_at_a_batch_is_completed_by_the_next(sample: Sample, tmp_path: Path) -> None:
    files = sample.write(tmp_path)
    expected = sample.histories(files)
    count = sum(map(len, expected.values()))

    child = os.fork()
    if not child:
        try:
            import_log(
                sample.format,
                tmp_path / "store",
                files,
                shards=2,
                batch_rows=7,
                source="log",
                progress=_die_while_writing,
            )
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with Store.open(tmp_path / "store") as store:
        assert store.sources() == {"log": 14}

    with pytest.raises(SchemaError, match="not the files that it began with"):
        import_log(sample.format, tmp_path / "store", files, batch_rows=5, source="log", order="time")
    again = import_log(sample.format, tmp_path / "store", files, batch_rows=7, source="log")
    once_more = import_log(sample.format, tmp_path / "store", files, batch_rows=7, source="log")

    assert read_back(tmp_path / "store") == expected
    assert (again.appended, again.replayed, again.created) == (count - 14, 14, False)
    assert (once_more.appended, once_more.replayed) == (0, count)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(SchemaError, match="does not take"):
        other = "kuairand" if sample.format != "kuairand" else "otto"
        import_log(other, tmp_path / "store", SAMPLES[other].write(tmp_path))


def test_an_import_without_a_source_that_is_killed_leaves_no_half_store(tmp_path: Path) -> None:
    sample = SAMPLES["taobao"]
    files = sample.write(tmp_path)
    child = os.fork()
    if not child:
        try:
            import_log("taobao", tmp_path / "store", files, batch_rows=7, progress=_die_while_writing)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "store").exists()
    import_log("taobao", tmp_path / "store", files)
    assert read_back(tmp_path / "store") == sample.histories(files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["UserBehavior.csv", "store"]  # leftovers are gone, too


def _die_while_writing(at: ImportProgress) -> None:
    if at.stage == "write" and at.events >= 14:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.bad])
def test_bad_lines_are_refused_by_file_and_line_or_skipped_and_counted(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    file, *others = sample.write(tmp_path)
    good = file.read_text().splitlines()
    expected = sample.histories([file, *others])
    for line, words in sample.bad:
        file.write_text("\n".join([*good, line]) + "\n")
        with pytest.raises(SchemaError) as refused:
            import_log(sample.format, tmp_path / "store", [file, *others])
        assert f"{file}, line {len(good) + 1}: " in str(refused.value), line
        assert words in str(refused.value), line
        assert not (tmp_path / "store").exists()
    bad = [line for line, _ in sample.bad]
    # among good ones and in a row; a line that depends on those before it stays at the end
    file.write_text("\n".join([*good[:2], *bad[:-1], *good[2:], bad[-1]]) + "\n")
    result = import_log(sample.format, tmp_path / "store", [file, *others], on_bad="skip")
    assert result.skipped == len(bad)
    assert f"{file}, line 3: " in str(result.first_skipped)
    assert read_back(tmp_path / "store") == expected


def test_a_packed_file_is_unpacked_on_the_way(tmp_path: Path) -> None:
    sample = SAMPLES["taobao"]
    (plain,) = sample.write(tmp_path)
    packed = tmp_path / "UserBehavior.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    import_log("taobao", tmp_path / "store", packed)
    assert read_back(tmp_path / "store") == sample.histories([plain])
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(FormatError, match="cannot be read"):
        import_log("taobao", tmp_path / "other", packed)
    assert not (tmp_path / "other").exists()


def test_lines_are_the_same_in_blocks_of_any_size(tmp_path: Path) -> None:
    from uihkv.importers.lines import read_blocks

    (file,) = SAMPLES["otto"].write(tmp_path)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().removesuffix(b"\n"))
    for size in (1, 7, 100, 1 << 20):
        blocks = list(read_blocks(file, size))
        assert b"".join(block.data for block in blocks) == file.read_bytes()[3:]
        assert [block.first_line for block in blocks] == [
            1 + sum(block.data.count(b"\n") for block in blocks[:n]) for n in range(len(blocks))
        ]


@pytest.mark.parametrize(
    ("format", "name", "text", "words"),
    [
        ("kuairand", "log.csv", "user_id,video_id\n1,2\n", "no time_ms"),
        ("retailrocket", "events.csv", "", "empty"),
        ("movielens", "ratings.txt", "1::2::3::4\n", "ends in none of"),
        ("yambda", "listens.parquet", "no parquet", "cannot be read as Parquet"),
        ("nonsense", "x", "", "format 'nonsense' is not there"),
    ],
)
def test_files_of_another_format_are_refused(format: str, name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises((FormatError, SchemaError), match=words):
        import_log(format, tmp_path / "store", tmp_path / name)
    with pytest.raises((FormatError, SchemaError)):
        import_log(format, tmp_path / "store", tmp_path / "nowhere")
    assert not (tmp_path / "store").exists()


def test_more_files_follow_under_one_source_where_rows_are_in_order(tmp_path: Path) -> None:
    sample = SAMPLES["otto"]
    (file,) = sample.write(tmp_path)
    lines = file.read_text().splitlines(keepends=True)
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text("".join(lines[:5]))
    second.write_text("".join(lines[5:]))
    one = import_log("otto", tmp_path / "store", first, source="s", batch_rows=4)
    both = import_log("otto", tmp_path / "store", [first, second], source="s", batch_rows=4)
    assert (both.replayed, both.appended) == (one.events, both.events - one.events)
    assert read_back(tmp_path / "store") == sample.histories([file])


def test_options_that_a_format_does_not_have_are_refused() -> None:
    with pytest.raises(SchemaError, match="no options"):
        make_importer("otto", rename={})
