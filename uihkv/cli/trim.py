"""``uihkv trim``: take old events away."""

from __future__ import annotations

from typing import Annotated

import typer

from uihkv.cli.arguments import Json, StorePath
from uihkv.cli.output import fact_table, print_json, print_table, progress_bar
from uihkv.cli.stores import open_store
from uihkv.cli.users import parse_user


def trim(
    store: StorePath,
    user: Annotated[
        str | None,
        typer.Argument(metavar="USER", help="Whose events; write -- before an id below 0.", show_default=False),
    ] = None,
    before: Annotated[
        int | None, typer.Option(min=0, metavar="V", help="Keep this user's events from version V on, not none.")
    ] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Take all events, and forget the name of a string id.")
    ] = False,
    visible_before: Annotated[
        int | None,
        typer.Option(metavar="TICKS", help="Of all users, what became visible before this moment."),
    ] = None,
    json: Json = False,
) -> None:
    """Take the oldest events of one user away, or of all users by age.

    Asks nothing. Versions are never reused; a pointer whose events are gone
    says so when it is read. The bytes leave the disk with a copy (uihkv
    compact --copy-to) and the deletion of the old folder. Run again after an
    interruption, it does the rest.

    Examples: uihkv trim store 42                   all events of user 42
              uihkv trim store 42 --before 1000     all but those from 1000 on
              uihkv trim store --visible-before 1700000000000
    """
    if (user is None) == (visible_before is None):
        raise typer.BadParameter("give a USER, or --visible-before for all users", param_hint="USER")
    if before is not None and user is None:
        raise typer.BadParameter("it needs a USER; for all users give --visible-before", param_hint="--before")
    if erase and (user is None or before is not None):
        raise typer.BadParameter("it goes with a USER alone", param_hint="--erase")
    with open_store(store, readonly=False) as opened, progress_bar("trim", "a first run compiles kernels") as bar:
        if user is not None:
            parsed = parse_user(opened.schema, user)
            result = opened.erase(parsed) if erase else opened.trim(parsed, before)
        else:
            assert visible_before is not None  # one of the two is given
            result = opened.trim_by_age(visible_before, progress=bar)
    if json:
        print_json(result.describe())
    else:
        print_table(fact_table(f"trimmed from {store}", result.describe()))
