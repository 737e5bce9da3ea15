"""Ways to feed a trainer with the same examples and their newest events, each as what its users would write.

Every way gives, epoch after epoch, batches as torch tensors in the process that trains: ``row`` and ``label`` of each
example, ``offsets: int64[B+1]``, and every column of the histories back to back.

- :mod:`perf.feeding.task`: what is to be fed, and what ways share;
- :mod:`perf.feeding.ways`: the loader, memory-mapped columns, SPDL, a CSV line of JSON lists; every way by its name;
- :mod:`perf.feeding.fatrows`: fat rows in Parquet, in MosaicML's shards, in LitData's chunks;
- :mod:`perf.feeding.serve`: the process of one way, which does what :mod:`perf.feeders` tells it.
"""
