"""The streaming trainer of :mod:`perf.protocol`, in a process of its own: ``python -m perf.protocol_trainer STORE``.

It takes logged examples from its standard input, as an Arrow IPC stream, reads their histories as they come, and
compares each with what was served: the column ``served`` has the digest. Its answer is one JSON line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from loader import ArrowStream, Loader, StreamExamples, TenantHistory
from perf.digest import digest_sequences
from perf.protocol_run import WINDOW, count_leaks
from uihkv import Projection, Store


def main(path: Path) -> None:
    """Train until the stream ends."""
    examples = different = leaked = 0
    with Store.open(path, readonly=True) as store:
        wanted = Projection(("visible_at", "ts", *store.schema.names), max_len=WINDOW)
        stream = StreamExamples(ArrowStream(sys.stdin), deadline_s=120, poll_s=0.05, requested_at=None)
        with Loader(store, stream, wanted, batch_size=4096, prefetch=2) as loader:
            for batch in loader:
                history = batch.history
                assert isinstance(history, TenantHistory)  # the loader was not asked to deduplicate
                columns = {name: history[name].values.numpy() for name in history}
                offsets = history.offsets.numpy()
                found = digest_sequences(offsets, columns)
                different += int(np.count_nonzero(found != batch.examples["served"].numpy()))
                leaked += count_leaks(offsets, columns["visible_at"], batch.examples["as_of"].numpy())
                examples += len(batch)
            freshness = loader.stats().freshness
    assert freshness is not None  # a stream has it
    print(json.dumps({"examples": examples, "different": different, "leaked": leaked, "waited": freshness.waited}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
