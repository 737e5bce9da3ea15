"""The loader in other people's trainers: one module a library, which imports it when it is imported itself.

- :mod:`loader.adapters.dataset`: ``torch.utils.data.DataLoader`` and torchdata's ``StatefulDataLoader``;
- :mod:`loader.adapters.nodes`: torchdata's ``nodes``;
- :mod:`loader.adapters.lightning`: a ``LightningDataModule``;
- :mod:`loader.adapters.torchrec`: ``KeyedJaggedTensor``, and batches in TorchRec's train pipelines;
- :mod:`loader.adapters.hstu`: history and candidates as open HSTU trainers take them; needs torch alone;
- :mod:`loader.adapters.ray`: shards owned by actors, batches streamed to trainers, stores built by tasks.

``torch.nested`` needs none: ``batch.history["item_id"].nested()`` is the same memory.
"""
