"""What every importer makes of its sample, counted beside a plain reader: ``python -m tests.importers.table``.

The samples are tiny logs in each format's true form (:mod:`tests.importers.logs`), one log as Parquet, CSV and JSON
lines, a git repository, and a file of fat rows; the plain readers take them apart with ``csv``, ``json``, Arrow and git
alone. A line ends in "equal" when the store gives back, event for event and in order, what the plain reader found. The
last line is the round trip of fat rows, with examples for users: each, read back, has the events of its fat row.
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.importers import test_fatrows as fat_rows
from tests.importers.logs import SAMPLES
from tests.importers.repositories import make_repository, plain_log
from tests.importers.test_public_logs import read_back
from uihkv import Column, Schema, Store
from uihkv.importers import import_log
from uihkv.importers.fatrows import import_fat_rows
from uihkv.importers.gitlog import import_git
from uihkv.ingest import ingest

HEAD = f"{'sample':17} {'files':29} {'events':>6} {'plain':>5} {'users':>5} {'plain':>5}"
SCHEMA = Schema([Column("item_id", "int64"), Column("dwell", "float32")])
MAPPING = {"who": "user_id", "when": "ts", "what": "item_id"}


def count_all(folder: Path) -> list[str]:
    """The table's lines, its head first."""
    lines = [HEAD]
    for name, sample in SAMPLES.items():
        here = folder / name.replace(" ", "-")
        here.mkdir()
        files = sample.write(here)
        result = import_log(sample.format, here / "store", files, shards=2, batch_rows=7)
        lines.append(_line(name, files, here / "store", result.events, sample.histories(files)))
    rows = _draw_rows()
    for name, (write, read) in _GENERIC.items():
        file, store = folder / f"log.{name}", folder / f"{name}-store"
        write(file, rows)
        if name == "jsonl":
            events = import_log(
                "jsonl", store, file, columns=SCHEMA, rename=MAPPING, shards=2, batch_rows=7, order="rows"
            ).events
        else:
            with Store.create(store, SCHEMA, 2) as made:
                events = ingest(made, file, rename=MAPPING, batch_rows=7).rows
        plain = defaultdict(list)
        for user, ts, item, dwell in read(file):
            plain[int(user)].append((int(ts), int(ts), int(item), float(dwell)))
        lines.append(_line(name, [file], store, events, plain))
    repository = make_repository(folder / "repository")
    events = import_git(repository, folder / "git-store", shards=2, batch_rows=7).events
    lines.append(_line("git log", [repository], folder / "git-store", events, plain_log(repository)))
    return [*lines, *_fat_rows(folder)]


def _line(name: str, files: list[Path], store: Path, events: int, plain: dict[Any, list[Any]]) -> str:
    return _show(name, files, events, read_back(store), plain)


def _show(name: str, files: list[Path], events: int, found: dict[Any, list[Any]], plain: dict[Any, list[Any]]) -> str:
    counted = sum(map(len, plain.values()))
    names = ", ".join(file.name for file in files)
    names = names if len(names) <= 29 else f"{names[:26]}..."
    same = "equal" if found == plain and events == counted else "DIFFERENT"
    return f"{name:17} {names:29} {events:6} {counted:5} {len(found):5} {len(plain):5} {same}"


def _fat_rows(folder: Path) -> Iterator[str]:
    """Histories that the windows of fat rows show, and those windows again, example by example."""
    store, slim = folder / "fat-store", folder / "slim.parquet"
    rows = fat_rows.draw_rows(1, users=6, events=300, max_len=50)
    fat = fat_rows.write(folder / "fat.parquet", rows)
    result = import_fat_rows(fat, store, slim, asked="asked", shards=2)
    plain: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        window = list(zip(*(row[f"history_{name}"] for name in fat_rows.NAMES), strict=True))
        history = plain[row["user_id"]]
        assert row["true_version"] - len(window) <= len(history), "windows reach each other"
        history[row["true_version"] - len(window) :] = window
    plain = {user: events for user, events in plain.items() if events}
    found = {user: [(ts, *values) for ts, _, *values in events] for user, events in read_back(store).items()}
    yield _show("fat rows", [fat], result.events, found, plain)
    examples = fat_rows.read_examples(store, slim, fat_rows.NAMES, result.longest)
    back, copied = ({n: row["history_ts"] for n, row in enumerate(some)} for some in (examples, rows))
    line = _show("fat rows, back", [slim], result.copied, back, copied)
    yield line if fat_rows.same(examples, rows, fat_rows.NAMES) else line.replace("equal", "DIFFERENT")


def _draw_rows() -> list[dict[str, Any]]:
    draw = random.Random("generic")
    return [
        {"who": draw.randrange(5), "when": 1000 * n, "what": draw.randrange(99), "dwell": draw.randrange(9) / 4}
        for n in range(60)
    ]


def _write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), file)


def _write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _read_parquet(file: Path) -> Iterable[Iterable[Any]]:
    return (row.values() for row in pq.read_table(file).to_pylist())


def _read_csv(file: Path) -> Iterable[Iterable[Any]]:
    return (row.values() for row in csv.DictReader(file.read_text().splitlines()))


def _read_lines(file: Path) -> Iterable[Iterable[Any]]:
    return (json.loads(line).values() for line in file.read_text().splitlines())


_GENERIC: dict[str, tuple[Callable[..., None], Callable[[Path], Iterable[Iterable[Any]]]]] = {
    "parquet": (_write_parquet, _read_parquet),
    "csv": (_write_csv, _read_csv),
    "jsonl": (_write_lines, _read_lines),
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        print("\n".join(count_all(Path(made))))
