"""The tables of what tenants cost: whose bytes are counted for what, and where the laws cross."""

from __future__ import annotations

import pytest

from perf.storagetables import A_USER, ARRIVING, CODECS, COMPACTED, EXAMPLE, LENGTHS, LIVE, SORTED, SWEPT_A_USER, Found
from perf.workloads import COLUMN_SETS


@pytest.fixture
def found() -> Found:
    """Fat rows of one byte a column and event, and a store that is read at half of that, or all when compacted."""
    orders = (ARRIVING, SORTED)
    parts = {n: {**dict.fromkeys(COLUMN_SETS[20], n), **dict.fromkeys(EXAMPLE, 8), "": 100} for n in LENGTHS}
    files = [(codec, order, n) for codec in CODECS for order in orders for n in LENGTHS]
    jobs = {(order, n, count): n * count for order in orders for n in LENGTHS for count in COLUMN_SETS}
    return Found(
        fat={file: parts[file[2]] for file in files},
        fat_written={file: sum(parts[file[2]].values()) for file in files},
        jobs=jobs,
        ours={(LIVE, *job): size // 2 for job, size in jobs.items()} | {(COMPACTED, *j): s for j, s in jobs.items()},
        swept={count: 1000 + 500 * count for count in SWEPT_A_USER},
        slims={count: 50 + 10 * count for count in SWEPT_A_USER},
        store={LIVE: 4000, COMPACTED: 3000}, store_written=9000, rarely_written=5000, compacting=700,
        slim_written=50 + 10 * A_USER, events=5000, users=3, copied={n: float(n) for n in LENGTHS},
    )  # fmt: skip


def test_a_tenant_of_the_union_is_compared_with_what_the_longest_reads(found: Found) -> None:
    row = next(row for row in found.read(ARRIVING) if (row["length"], row["columns"]) == (256, 5))
    assert (row["own copy"], row["union"], row[LIVE]) == (256 * 5 / 1e6, 65_536 * 5 / 1e6, 128 * 5 / 1e6)
    assert (row["over own copy"], row["over union"]) == ("-50.0 %", "-99.8 %")


def test_own_copies_add_up_and_a_union_is_as_long_and_wide_as_its_widest(found: Found) -> None:
    overhead = 100 + 2 * 8
    rows = {row["tenants"]: row for row in found.tenants()}
    assert rows[2]["own copies"] == pytest.approx((4096 * 20 + 1024 * 5 + 2 * overhead) / 1e6)
    assert rows[2]["union"] == pytest.approx((4096 * 20 + overhead) / 1e6)
    assert rows[8]["union"] == pytest.approx((65_536 * 20 + overhead) / 1e6)
    assert rows[8]["ours"] == rows[1]["ours"]


def test_with_the_examples_that_the_law_names_both_write_the_same(found: Found) -> None:
    count = found._examples_for(found.store_written, 1.0)
    assert 1000 + 500 * count == pytest.approx(9000 + 50 + 10 * count)
    half = found._examples_for(found.store_written, 0.5)
    assert 0.5 * (1000 + 500 * half) == pytest.approx(9000 + 50 + 10 * half)
    last = found.written()[-1]
    assert (last["examples a user"], last["by"]) == (500, "law")
    assert last["fat rows"] == pytest.approx((1000 + 500 * 500) / 1e6)


def test_where_fat_rows_are_read_less_is_said(found: Found) -> None:
    assert found.lost() == []
    found.ours[LIVE, ARRIVING, 256, 2] = 3 * 256 * 2
    (said,) = found.lost()
    assert "1 of 15 tenants read less of a copy of its own" in said
    assert "by 200% of it at most (256 events, 2 columns)" in said
