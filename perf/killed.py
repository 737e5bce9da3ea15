"""A training process that is killed at random moments and started again: is its stream of batches whole?

``python -m perf.killed STORE EXAMPLES LOG WORKERS`` trains: it goes on from the last whole line of its log, and after
each batch appends one line, the batch's digest and the loader's state. :func:`kill_at_random` starts it, kills it with
SIGKILL at random moments, starts it again, and gives the digests of all whole lines: the concatenated stream.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from loader import Batch, Loader, ParquetExamples
from perf.processes import list_tree
from uihkv import Projection, Store

PROJECTION = Projection(max_len=256)
BATCH = 32
STEP_S = 0.003
"""How long it takes over a batch, so that an epoch outlives its kills."""

_ENDED_WITHIN_S = 10.0


def digest_batch(batch: Batch) -> str:
    """Hash of everything in a batch."""
    digest = xxhash.xxh3_128()
    plain = batch.history.expand()
    digest.update(batch.pointers.version.tobytes())
    for tensor in (*batch.examples.values(), plain.offsets, *plain.values.values()):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_loader(store: Store, examples: Path, workers: int) -> Loader:
    """The loader of the process that is killed."""
    return Loader(store, ParquetExamples(examples), PROJECTION, batch_size=BATCH, seed=3, num_workers=workers)


def train(store: Path, examples: Path, log: Path, workers: int) -> None:
    """Go through one epoch, from where the log ends."""
    done = read_log(log)
    with (
        Store.open(store, readonly=True) as opened,
        make_loader(opened, examples, workers) as loader,
        log.open("a") as out,
    ):
        if done:
            loader.load_state_dict(done[-1]["state"])
        if log.stat().st_size and not log.read_text().endswith("\n"):
            out.write("\n")  # the line in which it was killed
        for batch in loader:
            out.write(json.dumps({"digest": digest_batch(batch), "state": loader.state_dict()}) + "\n")
            out.flush()
            time.sleep(STEP_S)


def read_log(log: Path) -> list[dict[str, Any]]:
    """The whole lines of a log."""
    found = []
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def kill_at_random(
    store: Path, examples: Path, log: Path, workers: int, kills: int, seed: int, step_s: float
) -> list[str]:
    """Digests of the batches of an epoch whose process was killed so often, each time after some new batches.

    Args:
        store, examples: what it trains on.
        log: a new file.
        workers: worker processes of its loader.
        kills: how often it is killed.
        seed: of the moments.
        step_s: longest time that a process lives after its first new batch.

    Raises:
        RuntimeError: when the process ends by itself before it was killed so often, or leaves a worker process behind.

    """
    rng = np.random.default_rng(seed)
    command = [sys.executable, "-m", "perf.killed", str(store), str(examples), str(log), str(workers)]
    log.touch()
    started: list[int] = []
    for kill in range(kills + 1):
        before = log.stat().st_size
        with subprocess.Popen(command) as process:
            while process.poll() is None and kill < kills:
                if log.stat().st_size > before:
                    time.sleep(rng.random() * step_s)
                    started = list_tree(process.pid)[1:]
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.002)
        if process.returncode != (0 if kill == kills else -signal.SIGKILL):
            raise RuntimeError(f"the training process ended with status {process.returncode} after {kill} kills")
        _wait_for_end(started)
    return [line["digest"] for line in read_log(log)]


def _wait_for_end(pids: Sequence[int]) -> None:
    """Of what the killed process had started: it notices, and ends."""
    until = time.monotonic() + _ENDED_WITHIN_S
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()]:
        if time.monotonic() > until:
            raise RuntimeError(f"processes {left} are still there {_ENDED_WITHIN_S:g} s after their parent was killed")
        time.sleep(0.02)


def read_whole(store: Path, examples: Path) -> list[str]:
    """Digests of the batches of an epoch that nothing interrupts."""
    with Store.open(store, readonly=True) as opened, make_loader(opened, examples, 0) as loader:
        return [digest_batch(batch) for batch in loader]


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
