"""Stores of every released format open, verify and read the same, and can be written to."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.golden.make import HERE, IDS, KINDS, batch, describe
from uihkv import Pointers, Store
from uihkv.manifest import STORE_FORMAT

GOLDEN = sorted(path.name.removesuffix(".json") for path in HERE.glob("*.json"))


def test_the_format_in_force_is_among_them() -> None:
    assert {f"format{STORE_FORMAT}-{kind}" for kind in KINDS} <= set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_store_of_old_reads_the_same(name: str, tmp_path: Path) -> None:
    with tarfile.open(HERE / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path / "store", filter="data")
    expected = json.loads((HERE / f"{name}.json").read_text())
    with Store.open(tmp_path / "store", readonly=True) as store:
        assert store.verify(isolated=False).problems == ()
        found = describe(store)
        for key, value in expected.items():
            assert found[key] == value, key
    with Store.open(tmp_path / "store") as store:
        ids = IDS[store.schema.user_id]
        store.append(batch(store.schema, 20), backfill=True, source="log", offset=20)
        store.compact()
        assert store.verify(isolated=False).problems == ()
        with store.snapshot() as snapshot:
            assert (snapshot.head(ids).version > expected["heads"]).all()
            for at, user in enumerate(ids):  # old pointers still give their prefix
                head = expected["heads"][at]
                history = snapshot.read(Pointers([user], [head], [expected["last_ts"][at]]), on_trimmed="truncate")
                assert history.lengths.tolist() == [expected["histories"][2 * at]["length"]]
                assert history.values("ts").tobytes().hex() == expected["histories"][2 * at]["columns"]["ts"][1]
