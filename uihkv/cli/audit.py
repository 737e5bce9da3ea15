"""``uihkv audit``: logged pointers against resolved ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.endings import CommandError
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store

if TYPE_CHECKING:
    from uihkv.audit import AuditReport, Spread


def audit(
    store: StorePath,
    examples: Annotated[
        Path, typer.Argument(metavar="EXAMPLES", help="A Parquet file, or a folder of them.", show_default=False)
    ],
    as_of: Annotated[str, typer.Option(metavar="COLUMN", help="The moment of each example's request.")] = "as_of",
    delay: Annotated[
        int, typer.Option(min=0, metavar="TICKS", help="How long events took to reach the serving side.")
    ] = 0,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, metavar="X", help="Share of examples that may leak; above it, status 1.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """Compare pointers logged by serving with what resolving would give.

    Equal: both name the same prefix. Ahead: the resolved prefix has events
    that the request had not seen, which is leakage. Behind: it lacks events
    that the request had seen. The least delay without leakage is worked out
    exactly; resolve examples without logged pointers with it.

    Example: uihkv audit store examples.parquet --as-of ts --threshold 0.001
    """
    from uihkv.audit import audit_file

    with open_store(store) as opened, progress_bar("audit", "a first run compiles kernels") as bar:
        report = audit_file(opened, examples, as_of=as_of, delay=delay, progress=bar)
        unit = opened.schema.time_unit
    if json:
        print_json({**report.describe(), "time_unit": unit, "threshold": threshold})
    else:
        _print(report, unit, examples)
    if report.ahead_share > threshold:
        raise CommandError(
            f"{report.ahead:,} of {report.examples:,} examples ({report.ahead_share:.3%}) would see events that their "
            f"request had not, the threshold is {threshold:.3%}; resolve with --delay {report.delays[0].delay}"
        )


def _print(report: AuditReport, unit: str, examples: Path) -> None:
    facts: dict[str, object] = {"examples": report.examples, f"delay, {unit}": report.delay}
    for name in ("equal", "ahead", "behind"):
        count = getattr(report, name)
        facts[name] = f"{count:,} ({count / report.examples:.3%})" if report.examples else "0"
    if report.trimmed:
        facts["left out, trimmed"] = report.trimmed
    print_table(fact_table(f"logged against resolved pointers of {examples}", facts))
    if report.examples > report.equal:
        table = Table(title="how far they differ", title_justify="left")
        for name in ("", "p50", "p90", "p99", "max"):
            table.add_column(name, justify="right" if name else "left")
        for name, spread in (
            ("ahead, events", report.ahead_events), (f"ahead, {unit}", report.ahead_time),
            ("behind, events", report.behind_events), (f"behind, {unit}", report.behind_time),
        ):  # fmt: skip
            table.add_row(name, *_cells(spread))
        print_table(table)
    table = Table(title=f"least delay, {unit}", title_justify="left")
    for name in ("examples that may leak", "delay", "ahead", "behind"):
        table.add_column(name, justify="right")
    for one in report.delays:
        table.add_row(f"{one.leaking_share:.1%}", f"{one.delay:,}", f"{one.ahead:.3%}", f"{one.behind:.3%}")
    print_table(table)
    if report.worst_users:
        table = Table(title="users with the most leaked events", title_justify="left")
        for name in ("user", "examples", "ahead", "events"):
            table.add_column(name, justify="right")
        for user in report.worst_users:
            table.add_row(str(user.user_id), f"{user.examples:,}", f"{user.ahead:,}", f"{user.events:,}")
        print_table(table)


def _cells(spread: Spread) -> list[str]:
    values = (spread.p50, spread.p90, spread.p99, spread.max)
    return ["-" if value is None else f"{value:,}" for value in values]
