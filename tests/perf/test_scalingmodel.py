"""The terms of the scaling laws are what a count finds, and the laws predict a store that they have not seen."""

from __future__ import annotations

import numpy as np
import pytest

from perf.scalingmodel import Config, Measured, Model, Terms, covered_events


def test_covered_events_are_the_mean_over_all_versions() -> None:
    lengths = np.array([1, 7, 40])
    for most in (1, 5, 7, 100):
        counted = np.mean([np.minimum(np.arange(1, n + 1), most).mean() for n in lengths])
        assert covered_events(lengths, most) == pytest.approx(counted)


def test_touches_are_different_users_of_each_append() -> None:
    config = Config(20, 30, 3, 50)
    log = config.make_log(0)
    arriving = log.in_arrival_order().user_id
    counted = sum(len(set(arriving[first : first + 50].tolist())) for first in range(0, len(log), 50))
    terms = Terms.of(config, log)
    assert (terms.events, terms.users, terms.touches) == (600, 20, counted)
    assert 12 <= terms.commits <= 36
    assert terms.touched_pages(1e6) == pytest.approx(counted, rel=1e-3)  # each on a page of its own
    assert terms.touched_pages(1e-6) < 1


def test_laws_predict_a_store_that_follows_them_and_not_one_that_does_not() -> None:
    def measured(terms: Terms, factor: float = 1.0) -> Measured:
        stored = factor * (11 * terms.events + 300 * terms.users + 40_000 * terms.shards)
        parts = terms.writing(0.5)
        written = 30 * parts["events"] + 2000 * parts["touches"] + 4096 * parts["pages"] + 9000 * parts["commits"]
        entries = {"live": terms.events / 90 + terms.users, "compacted": terms.events / 900 + terms.users}
        read = {}
        for state in ("live", "compacted"):
            for length in (16, 64):
                size = terms.events / entries[state]
                parts = terms.reading(length, size)
                one = {
                    "bytes read": 8 * parts["fetched"], "pages read": parts["chunks"] + 0.01 * parts["fetched"],
                    "chunks read": parts["chunks"], "read cpu s": 1e-6 + 1e-9 * parts["fetched"],
                }  # fmt: skip
                for count in (2, 5, 20):
                    read[state, length, count] = one
        both = {"live": stored, "compacted": 0.7 * stored}
        return Measured(
            both,
            entries,
            written,
            1e-3,
            read,
        )

    configs = [Config(20 + 9 * n, 400 - 37 * n, 1 + n % 3, 64 << n % 4) for n in range(8)]
    every = [Terms.of(config, config.make_log(0)) for config in configs]
    model = Model.fit([(terms, measured(terms)) for terms in every])
    unseen = Config(50, 500, 2, 256)
    terms = Terms.of(unseen, unseen.make_log(1))
    right = [error for name, error in model.errors(terms, measured(terms)) if name != "append cpu s"]
    assert np.abs(right).max() < 0.01
    assert model.pages_a_user == 0.5
    assert model.chunks("live", terms) == pytest.approx(terms.events / 90)
    wrong = dict(model.errors(terms, measured(terms, factor=2.0)))
    assert wrong["bytes stored, live"] == pytest.approx(-0.5, abs=0.01)
