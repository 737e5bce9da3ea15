"""Feast's side of :mod:`perf.protocol`: its own point-in-time join, in an interpreter that has it.

``python peer_feast.py FOLDER`` reads ``events.parquet`` (``user_id``, ``ts`` and ``created`` in UTC, ``found``) and
``requests.parquet`` (``user_id``, ``event_timestamp``, ``row``) there, and writes ``plain.parquet`` and
``created.parquet``: ``row`` and the joined ``found``, without and with ``filter_by_created_timestamp``. It imports
nothing of this package.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path


def main(folder: Path) -> None:
    """Join both ways."""
    import pandas
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Int64
    from feast.value_type import ValueType

    config = RepoConfig(
        project="protocol", provider="local", registry=str(folder / "registry.db"), offline_store={"type": "duckdb"},
        online_store={"type": "sqlite", "path": str(folder / "online.db")}, entity_key_serialization_version=3,
    )  # fmt: skip
    store = FeatureStore(config=config)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(path=str(folder / "events.parquet"), timestamp_field="ts", created_timestamp_column="created")
    view = FeatureView(
        name="history", entities=[user], ttl=timedelta(0), schema=[Field(name="found", dtype=Int64)], source=source
    )
    store.apply([user, view])
    requests = pandas.read_parquet(folder / "requests.parquet")
    for name, created in (("plain", False), ("created", True)):
        job = store.get_historical_features(requests, ["history:found"], filter_by_created_timestamp=created)
        joined = job.to_df()
        joined["found"] = joined["found"].fillna(0).astype("int64")
        joined[["row", "found"]].to_parquet(folder / f"{name}.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
