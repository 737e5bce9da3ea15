"""A trainer on a topic, over Kafka's protocol: librdkafka's mock cluster is a broker that talks TCP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from loader import Loader, StreamExamples
from uihkv import Projection, Store

pytest.importorskip("aiokafka", reason="aiokafka is not installed: pip install -e '.[dev]'")
confluent = pytest.importorskip(
    "confluent_kafka", reason="confluent-kafka, which brings a broker, is not installed: pip install -e '.[dev]'"
)

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS: dict[str, Any] = {"projection": Projection(["item_id"], max_len=8), "batch_size": 16}


@pytest.fixture
def broker() -> Iterator[tuple[Any, str]]:
    """A producer whose cluster is its own, and where that listens."""
    producer = confluent.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (found,) = producer.list_topics(timeout=10).brokers.values()
    yield producer, f"{found.host}:{found.port}"


def test_a_trainer_reads_a_topic_and_the_next_one_goes_on_after_what_was_trained_on(
    broker: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from kafka_stream import Topic  # type: ignore[import-not-found]
    from tiny_log import make_log  # type: ignore[import-not-found]

    store_path, examples_path = make_log(tmp_path)
    rows = pq.read_table(examples_path).slice(0, 160).to_pylist()
    producer, servers = broker
    for number, row in enumerate(rows):
        producer.produce("requests", json.dumps({**row, "label": row["label"]}).encode(), partition=number % 2)
    assert producer.flush(10) == 0

    seen: list[int] = []
    with Store.open(store_path, readonly=True) as store:
        for take in (3, None):  # the first trainer stops after three batches, though more were made ahead
            topic = Topic("requests", servers, quiet_s=None if take else 2.0)
            stream = StreamExamples(aiter(topic), linger_s=0.3)
            with Loader(store, stream, **SETTINGS) as loader:
                for number, batch in enumerate(loader, 1):
                    with store.snapshot() as snapshot:
                        alone = snapshot.read(batch.pointers, SETTINGS["projection"])
                    assert np.array_equal(batch.history["item_id"].values.numpy(), alone.values("item_id"))
                    places = zip(*(batch.examples[name].tolist() for name in ("offset", "partition")), strict=True)
                    seen += [2 * offset + part for offset, part in places]
                    committed = topic.trained(batch)
                    if number == take:
                        break
                assert committed
    assert sorted(seen) == list(range(160))  # none lost, none twice
