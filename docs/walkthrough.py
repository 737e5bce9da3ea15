# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A walk-through
#
# From a real event log to batches, in one sitting: the first 20,000 events of the log that ships with the package
# (who touched which file of a repository, and when that arrived there). The tests run this page as a script; as a
# notebook it opens with jupytext (`docs/walkthrough.py`).

# %%
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import loader
from uihkv import Column, Pointers, Projection, Schema, Store

folder = Path(tempfile.mkdtemp())
log = pq.read_table(Path(loader.__file__).parent / "demo" / "data" / "ansible-events.parquet").slice(0, 20_000)
log.slice(0, 3).to_pylist()

# %% [markdown]
# ## A store
#
# A schema names the columns beside `user_id` and `ts`. The log's rows stand in the order in which they arrived;
# `arrived_at` is when each became visible.

# %%
schema = Schema(
    [Column("item_id", "int64"), Column("kind", "uint16"), Column("added", "int32"), Column("deleted", "int32")],
    time_unit="ms",
)
store = Store.create(folder / "store", schema, shards=4)
events = log.select(["user_id", "ts", "item_id", "kind", "added", "deleted"])
result = store.append(events, visible_at=log["arrived_at"].to_numpy(), source="log", offset=log.num_rows - 1)
result

# %% [markdown]
# The same batch again stores nothing: its source and offset are known.

# %%
again = store.append(events, visible_at=log["arrived_at"].to_numpy(), source="log", offset=log.num_rows - 1)
assert (again.appended, again.replayed) == (0, 20_000)

# %% [markdown]
# ## Read
#
# `head` names all that a user has now. A read gives flat columns with offsets.

# %%
snapshot = store.snapshot()
users, counts = np.unique(log["user_id"].to_numpy(), return_counts=True)
busiest = users[np.argsort(-counts)][:3]
pointers = snapshot.head(busiest)
histories = snapshot.read(pointers, Projection(["item_id", "ts"], max_len=5))
histories.padded("item_id", 5)

# %% [markdown]
# ## As of then
#
# What had become visible strictly before a moment? And what would a join on event time have taken for it? Each event is
# asked about: its user, at the moment before it became visible.

# %%
moment = log["arrived_at"].to_numpy()
resolved = snapshot.resolve(log["user_id"].to_numpy(), moment)
late = (log["ts"].to_numpy() < moment).sum()
print(f"{late:,} of {log.num_rows:,} events arrived after they happened")

# %% [markdown]
# ## Prefixes stay
#
# An event arrives with a very old `ts`. It goes to the end of its history, and no older prefix changes.

# %%
before = snapshot.read(pointers, Projection(["item_id"]))
store.append({"user_id": busiest, "ts": [0, 0, 0], "item_id": [1, 2, 3], "kind": [0, 0, 0], "added": [0, 0, 0],
              "deleted": [0, 0, 0]})  # fmt: skip
with store.snapshot() as later:
    after = later.read(pointers, Projection(["item_id"]))
    assert np.array_equal(before.values("item_id"), after.values("item_id"))
    assert (later.head(busiest).version == pointers.version + 1).all()

# %% [markdown]
# ## Slim examples
#
# Every fourth event is an example: its history is what was visible before, its item the candidate. As Parquet it is a
# few columns; a fat row would hold the history itself.

# %%
rows = np.arange(0, log.num_rows, 4)
slim = resolved[rows].to_arrow()
slim = slim.append_column("candidate", log["item_id"].take(rows))
slim = slim.append_column("label", pa.array((log["added"].to_numpy()[rows] > 10).astype(np.float32)))
pq.write_table(slim, folder / "slim.parquet")
lengths = snapshot.read(Pointers.from_arrow(slim), Projection(["item_id"], max_len=1024)).lengths
print(f"{len(rows):,} examples would copy {lengths.sum():,} events")

# %% [markdown]
# ## Train
#
# Batches with their histories, made ahead of the step.

# %%
with loader.Loader(
    store,
    loader.ParquetExamples(folder / "slim.parquet"),
    projection=Projection(["item_id", "kind"], max_len=64, where={"added": (1, None)}),
    batch_size=256,
    seed=1,
) as batches:
    first = next(iter(batches))
    print(first.history["item_id"].padded(64).shape, first.examples["label"].mean())
    passing = iter(batches)
    next(passing), next(passing)
    state = batches.state_dict()
    passing.close()
    batches.load_state_dict(state)
    rest = sum(len(batch) for batch in batches)
    assert rest == len(rows) - 2 * 256

# %% [markdown]
# ## Look after it
#
# How much is there, is it sound, and what goes when a user asks to be forgotten?

# %%
stats = store.stats()
print(f"{stats.users:,} users, {stats.events:,} events, {stats.bytes / stats.events:.1f} bytes an event on disk")
assert store.verify(isolated=False).ok
gone = store.erase(busiest[:1])
with store.snapshot() as now:
    assert now.read(now.head(busiest[:1]), on_trimmed="truncate").lengths.tolist() == [0]
print(f"erased {gone.events:,} events")

# %%
snapshot.close()
store.close()
