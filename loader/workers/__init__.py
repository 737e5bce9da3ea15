"""Processes that read for the loader, so that decoding takes nothing from the training process but memory bandwidth.

- :mod:`loader.workers.wire`: what is said between them, as msgpack and raw bytes; nothing is pickled.
- :mod:`loader.workers.worker`: the process: a store, a snapshot a pass, shared slabs.
- :mod:`loader.workers.pool`: the loader's side: starts, asks, watches and ends them.

A worker is a fresh interpreter that imports neither torch nor the user's program: programs need no
``if __name__ == "__main__"``, and examples of any kind work, since they stay in the loader's process. A batch's
pointers go over (some tens of bytes an example); its histories come back in memory that both processes map, without a
copy. That memory has no name in the file system, so that nothing is left behind however the processes end.

Which worker makes a batch is decided as they come free, and batches are handed over in order: what is in them depends
on pointers alone. So a worker reads whatever shards its batch needs. Pages are shared by all processes in any case,
and giving each worker shards of its own would make every batch wait for all of them; where shards are to be owned,
ranks own them (``split="shards"``).
"""
