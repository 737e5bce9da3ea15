"""Train on a Kafka topic of requests: each message an example with its logged pointer, as a line of JSON.

    pip install 'uihkv[kafka]'
    python examples/kafka_stream.py STORE TOPIC --servers localhost:9092

A message is such as ``{"user_id": 7, "version": 12, "last_ts": 1700000000000, "candidate": 3, "label": 1}``. The tests
run :func:`batches` on messages of their own; the consumer itself was not run against a broker.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from loader import Loader, StreamExamples
from uihkv import Projection, Store

COLUMNS = ("user_id", "version", "last_ts", "candidate", "label")


async def batches(messages: AsyncIterator[Any], size: int = 64) -> AsyncIterator[dict[str, list[Any]]]:
    """Messages as columns, ``size`` rows at a time."""
    rows: list[dict[str, Any]] = []
    async for message in messages:
        rows.append(json.loads(message.value))
        if len(rows) == size:
            yield {name: [row[name] for row in rows] for name in COLUMNS}
            rows = []
    if rows:
        yield {name: [row[name] for row in rows] for name in COLUMNS}


async def consume(topic: str, servers: str) -> AsyncIterator[Any]:
    """Messages of a topic, from where the group stopped."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, group_id="trainer", auto_offset_reset="earliest")
    await consumer.start()
    try:
        async for message in consumer:
            yield message
    finally:
        await consumer.stop()


def main() -> None:
    """Say what arrives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("topic")
    parser.add_argument("--servers", default="localhost:9092")
    given = parser.parse_args()
    stream = StreamExamples(batches(consume(given.topic, given.servers)), late="hold", linger_s=1.0)
    with (
        Store.open(given.store, readonly=True) as store,
        Loader(store, stream, Projection(max_len=1024), batch_size=64) as loader,
    ):
        for batch in loader:
            print(f"{len(batch)} examples, {batch.events} events, {loader.stats().freshness}")


if __name__ == "__main__":
    main()
