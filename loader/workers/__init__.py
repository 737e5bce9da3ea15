"""Processes that read for the loader, so that decoding takes nothing from the training process but memory bandwidth.

- :mod:`loader.workers.wire`: what is said between them, as msgpack and raw bytes; nothing is pickled.
- :mod:`loader.workers.shared`: slabs that both processes map, and which of them are free.
- :mod:`loader.workers.worker`: the process: a store, a snapshot a pass, shared slabs.
- :mod:`loader.workers.pool`: the loader's side: starts, asks, watches and ends them.

A worker is a fresh interpreter that imports neither torch nor the user's program: programs need no
``if __name__ == "__main__"``, and examples of any kind work, since they stay in the loader's process. A batch's
pointers go over (some tens of bytes an example); its histories come back in memory that both processes map, without a
copy. That memory has no name in the file system, so that nothing is left behind however the processes end.

Which worker makes a batch is decided as they come free, and batches are handed over in order: what is in them depends
on pointers alone. So a worker reads whatever shards its batch needs. Pages are shared by all processes in any case.
Were each worker given shards of its own, every batch would wait for all of them and be put together once more: of
batches of 13.7 MB, two owners took 1.1 ms a half and 4.4 ms to join the halves, one worker 1.4 ms for the whole; of
2.6 MB, 0.6 and 1.0 against 0.8. Where shards are to be owned, ranks own them (``split="shards"``).
"""
