"""What came out: the closing table, the same as JSON, and a picture.

All figures are of the run at hand. The ratio is of bytes on disk: fat rows, over the store and the slim examples
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from loader.demo.evaluate import CUTOFF, Metrics
from loader.demo.examples import COMPRESSION, COMPRESSION_LEVEL


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run.

    Attributes:
        events: in the store.
        users: with a history.
        train_examples: asked before the split.
        evaluate_examples: asked after it.
        store_bytes: of the store's files, with all columns of all events.
        slim_bytes: of all slim examples, as Parquet.
        fat_bytes: of the same examples as fat rows, as Parquet in order of arrival.
        fat_sorted_bytes: the same rows sorted by user and version.
        fat_events: events copied into the fat rows.
        examples_per_s: trained, each by all tenants.
        wait_share: of the training time, waiting for batches.
        metrics: by tenant, and of the baseline.
        losses: of every step, by tenant.
        seconds: of every step of the demo.

    """

    events: int
    users: int
    train_examples: int
    evaluate_examples: int
    store_bytes: int
    slim_bytes: int
    fat_bytes: int
    fat_sorted_bytes: int
    fat_events: int
    examples_per_s: float
    wait_share: float
    metrics: Mapping[str, Metrics]
    losses: Mapping[str, Sequence[float]]
    seconds: Mapping[str, float]

    @property
    def examples(self) -> int:
        """All examples."""
        return self.train_examples + self.evaluate_examples

    @property
    def ratio(self) -> float:
        """Fat rows in order of arrival, over store and slim examples."""
        return self.fat_bytes / (self.store_bytes + self.slim_bytes)

    @property
    def sorted_ratio(self) -> float:
        """Fat rows sorted by user, over store and slim examples."""
        return self.fat_sorted_bytes / (self.store_bytes + self.slim_bytes)

    def describe(self) -> dict[str, Any]:
        """Plain values for JSON: all fields but the losses, of which the last tenth's mean is kept."""
        plain = asdict(self)
        plain["losses"] = {name: float(np.mean(losses[-(-len(losses) * 9 // 10) :] or losses)) for name, losses in
                           self.losses.items()}  # fmt: skip
        return {**plain, "examples": self.examples, "ratio": self.ratio, "sorted_ratio": self.sorted_ratio}


def build_table(figures: Figures) -> Table:
    """The closing table."""
    packed = COMPRESSION if COMPRESSION_LEVEL is None else f"{COMPRESSION}, level {COMPRESSION_LEVEL}"
    table = Table(title="uihkv demo", show_header=False, title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("events / users", f"{figures.events:,} / {figures.users:,}")
    table.add_row(
        "examples (train + evaluate)",
        f"{figures.examples:,} ({figures.train_examples:,} + {figures.evaluate_examples:,})",
        end_section=True,
    )
    table.add_row("store: every event once, all columns", _bytes(figures.store_bytes))
    table.add_row(f"slim examples (Parquet, {packed})", _bytes(figures.slim_bytes))
    table.add_row(f"fat rows (Parquet, {packed})", _bytes(figures.fat_bytes))
    table.add_row("fat rows / (store + slim examples)", f"{figures.ratio:.1f}x")
    table.add_row(
        "the same, fat rows sorted by user", f"{figures.sorted_ratio:.1f}x ({_bytes(figures.fat_sorted_bytes)})"
    )
    copies = figures.fat_events / figures.events
    table.add_row("events copied into fat rows", f"{figures.fat_events:,} ({copies:.0f} of each)", end_section=True)
    table.add_row("training, examples/s", f"{figures.examples_per_s:,.0f}")
    table.add_row("share of the time it waited for data", f"{figures.wait_share:.1%}", end_section=True)
    for name, metrics in figures.metrics.items():
        table.add_row(f"HR@{CUTOFF} / NDCG@{CUTOFF}, {name}", f"{metrics.hit_rate:.4f} / {metrics.ndcg:.4f}")
    return table


def draw_picture(figures: Figures, path: Path) -> Path:
    """The losses and the bytes, side by side, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, losses in figures.losses.items():
        window = max(1, len(losses) // 25)
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        left.plot(np.arange(window, len(losses) + 1), smooth, label=f"{name} (mean of {window} steps)")
    left.set(title="Training loss (sampled softmax)", xlabel="step", ylabel="loss, nats")
    left.legend(frameon=False)
    bars = [
        ("store +\nslim examples", figures.store_bytes, figures.slim_bytes),
        ("fat rows,\nsorted by user", figures.fat_sorted_bytes, 0),
        ("fat rows,\nas they arrive", figures.fat_bytes, 0),
    ]
    names = [name for name, _, _ in bars]
    first = np.array([size for _, size, _ in bars]) / 1e6
    second = np.array([size for _, _, size in bars]) / 1e6
    stored = right.bar(names, first, color=["tab:blue", "tab:gray", "tab:gray"], width=0.6)
    slim = right.bar(names, second, bottom=first, color="tab:cyan", width=0.6)
    for place, total in enumerate(first + second):
        right.annotate(f"{total:.1f} MB", (place, total), ha="center", va="bottom")
    right.set_ylim(0, 1.12 * float((first + second).max()))
    right.legend([stored[0], slim[0]], ["store", "slim examples"], frameon=False, loc="upper left")
    right.set(title=f"Bytes on disk, {figures.examples:,} examples", ylabel="MB")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return path


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
