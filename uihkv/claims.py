"""Sources that several writers store together: who has what, and when it may be said that all is there.

Writers that each own some shards append under one source without its claim (``Store.append_parsed``): each shard keeps
its own offset, and nobody can say that all shards are done but who knows of all writers. That one claims the
offset (:func:`claim_offset`), in the home shard, after the fact.

A *job* is a source that is stored in another order than its rows': while it runs, each shard's place in it is kept
under a name of its own, the source's and a fingerprint, so that it is not taken for an offset of rows, and so that a
job of other files or settings finds out. :func:`finish_job` turns it into the offset, after which a shard no longer
knows the job; a writer of it that is late (a process of an ingest that was killed, or a second ingest of the same
files) is told from the first by that offset, which it gives with its appends.

What an offset is, and what a claim rests on: :mod:`uihkv.sources`.
"""

from __future__ import annotations

from dataclasses import replace

from uihkv.rewrite import ShardAccess
from uihkv.sources import home_of

SEPARATOR = "\0"
"""Between a source's name and a job's fingerprint; no source's name has it."""


def job_name(source: str, fingerprint: str) -> str:
    """The name under which shards keep their place in a job."""
    return f"{source}{SEPARATOR}{fingerprint}"


def own_offsets(access: ShardAccess, name: str) -> list[int]:
    """Each shard's own offset of a source or job."""
    offsets = []
    for number in range(access.shards):
        with access.reading(number) as view:
            offsets.append(view.shard.source(view.transaction, name).own)
    return offsets


def find_jobs(access: ShardAccess, source: str) -> set[str]:
    """Names of the source's jobs that were not finished."""
    found: set[str] = set()
    for number in range(access.shards):
        with access.reading(number) as view:
            names = view.shard.sources(view.transaction)
        found.update(name for name in names if name.startswith(source + SEPARATOR))
    return found


def claim_offset(access: ShardAccess, source: str, offset: int, *, ended_job: str | None = None) -> None:
    """Say that every shard has all of a source up to an offset; true before it is called."""
    own = dict(enumerate(own_offsets(access, source)))
    home = home_of(source, access.shards)
    with access.writing(home) as view:
        record = view.shard.source(view.transaction, source)
        own[home] = record.own
        view.shard.put_source(view.transaction, source, record.advance(offset, own, access.shards))
        if ended_job is not None:
            view.shard.drop_source(view.transaction, ended_job)


def finish_job(access: ShardAccess, source: str, job: str, offset: int) -> None:
    """End a job of which every shard has all: its source then stands at an offset.

    The home shard comes last: while it has the job, a shard whose own offset of the source is there already has all
    of the job, so that this may be repeated after a crash.
    """
    home = home_of(source, access.shards)
    for number in range(access.shards):
        with access.writing(number) as view:
            record = view.shard.source(view.transaction, source)
            if record.own < offset:
                view.shard.put_source(view.transaction, source, replace(record, own=offset))
            if number != home:
                view.shard.drop_source(view.transaction, job)
    claim_offset(access, source, offset, ended_job=job)
