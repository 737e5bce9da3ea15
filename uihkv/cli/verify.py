"""``uihkv verify``: is everything there, and as it was written?"""

from __future__ import annotations

from typing import Annotated

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.endings import CommandError
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store
from uihkv.errors import StoreNotFoundError

SHOWN = 20
"""Problems that are listed; the rest are counted, and ``--json`` has all."""


def verify(
    store: StorePath,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make right what can be derived from what is there.")
    ] = False,
    json: Json = False,
) -> None:
    """Read all of a store, and name what is wrong and where.

    Checks every checksum and decodes every value; the ranges, tails and order
    of every history; bounds and zones against their data; the sources and the
    manifest. Readers and writers need not stop. Ends with exit status 1 when
    something is wrong. Repair can only write bounds and zones anew: all else
    is there once, and comes back from a backup.

    Example: uihkv verify store
    """
    from uihkv.verify import verify_store

    with progress_bar("verify", "a first run compiles kernels") as bar:
        try:
            report = verify_store(store.absolute(), progress=bar)
        except StoreNotFoundError:
            raise CommandError(f"{store} does not exist; uihkv create makes a store") from None
        if repair and any(problem.repairable for problem in report.problems):
            with open_store(store, readonly=False) as opened:
                report = opened.verify(repair=True, progress=bar)
    if json:
        print_json({"ok": report.ok, **report.describe()})
    else:
        facts = {name: value for name, value in report.describe().items() if name not in ("problems", "repaired")}
        facts |= {"problems": len(report.problems), "repaired": len(report.repaired)}
        print_table(fact_table(f"{store} is " + ("as it was written" if report.ok else "damaged"), facts))
        for problem in report.problems[:SHOWN]:
            typer.echo(str(problem))
        if len(report.problems) > SHOWN:
            typer.echo(f"and {len(report.problems) - SHOWN} more")
    if not report.ok:
        count = f"{len(report.problems)} problem" + "s" * (len(report.problems) > 1)
        raise CommandError(f"{store}: {count}; restore what is damaged from a backup")
