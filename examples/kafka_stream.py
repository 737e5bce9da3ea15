"""Train on a Kafka topic of requests: each message an example with its logged pointer, as a line of JSON.

    pip install 'uihkv[kafka]'
    python examples/kafka_stream.py STORE TOPIC --servers localhost:9092

A message is such as ``{"user_id": 7, "version": 12, "last_ts": 1700000000000, "candidate": 3, "label": 1}``.

The loader makes batches ahead of the training, so the group's offsets must not follow what was read: they follow what
was trained on (:meth:`Topic.trained`). A trainer that is killed goes on there; what it had only read comes again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from loader import Batch, Loader, StreamExamples
from uihkv import Projection, Store

COLUMNS = ("user_id", "version", "last_ts", "candidate", "label")


def columns(messages: Iterable[Any]) -> dict[str, list[Any]]:
    """Messages as columns of examples, and where each stands in the topic."""
    messages = list(messages)
    rows = [json.loads(message.value) for message in messages]
    made = {name: [row[name] for row in rows] for name in COLUMNS}
    return made | {place: [getattr(message, place) for message in messages] for place in ("partition", "offset")}


class Topic:
    """A topic's messages from where the group stopped, as a feed for :class:`loader.StreamExamples`.

    Args:
        name: the topic.
        servers: of the cluster, ``"host:port"`` with commas between.
        group: whose offsets tell where to begin, and how far training is.
        quiet_s: end after so long without a message; None: never.

    """

    def __init__(self, name: str, servers: str, group: str = "trainer", quiet_s: float | None = None) -> None:
        self.name = name
        self.settings = {"bootstrap_servers": servers, "group_id": group}
        self.quiet_s = quiet_s
        self.waiting: dict[int, set[int]] = {}  # of each partition, what was read and not trained on
        self.read: dict[int, int] = {}  # of each partition, the offset to read next

    async def __aiter__(self) -> AsyncIterator[dict[str, list[Any]]]:
        """Batches of what arrives."""
        from aiokafka import AIOKafkaConsumer

        self.loop = asyncio.get_running_loop()
        self.consumer = AIOKafkaConsumer(
            self.name, **self.settings, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await self.consumer.start()
        try:
            silent_s = 0.0
            while self.quiet_s is None or silent_s < self.quiet_s:
                found = [message for part in (await self.consumer.getmany(timeout_ms=200)).values() for message in part]
                silent_s = 0.0 if found else silent_s + 0.2
                for message in found:
                    self.waiting.setdefault(message.partition, set()).add(message.offset)
                    self.read[message.partition] = message.offset + 1
                if found:
                    yield columns(found)
        finally:
            await self.consumer.stop()

    def trained(self, batch: Batch) -> dict[int, int]:
        """Commit, of each partition of the batch, the first offset that was not trained on."""
        from aiokafka import TopicPartition

        parts, offsets = batch.examples["partition"].tolist(), batch.examples["offset"].tolist()
        for part, offset in zip(parts, offsets, strict=True):
            self.waiting[part].discard(offset)
        done = {part: min(self.waiting[part], default=self.read[part]) for part in set(parts)}
        places = {TopicPartition(self.name, part): offset for part, offset in done.items()}
        asyncio.run_coroutine_threadsafe(self.consumer.commit(places), self.loop).result()
        return done


def main() -> None:
    """Say what arrives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("topic")
    parser.add_argument("--servers", default="localhost:9092")
    given = parser.parse_args()
    topic = Topic(given.topic, given.servers)
    with (
        Store.open(given.store, readonly=True) as store,
        Loader(
            store, StreamExamples(aiter(topic), late="hold", linger_s=1.0), Projection(max_len=1024), batch_size=64
        ) as loader,
    ):
        for batch in loader:
            print(f"{len(batch)} examples, {batch.events} events, {loader.stats().freshness}")  # or a step of training
            topic.trained(batch)


if __name__ == "__main__":
    main()
