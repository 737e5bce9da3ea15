"""``uihkv demo``: the main job, end to end, on real data that ships with the package.

The command line finds this function by its entry point. torch and the loader are imported when it runs, so that
the other commands stay fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uihkv.cli.arguments import Json


def demo(
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder for store, examples and picture: new, empty, or an earlier demo's."
        ),
    ] = Path("demo-out"),
    every: Annotated[int, typer.Option(min=1, metavar="K", help="An example for every so many events.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Passes over the training examples.")] = 1,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of weights, order and negatives.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="The log's first tenth only: a look in seconds, poor metrics.")
    ] = False,
    json: Json = False,
) -> None:
    """Train two models from versioned pointers, and weigh fat rows against them.

    A real event log goes into a store; every k-th event becomes an example
    with a versioned pointer; two tenants, of 64 and 1,024 events, train from
    one pass over the examples; then they are evaluated on later events. About
    two minutes on two cores.

    Example: uihkv demo --quick
    """
    import json as codec

    from rich.console import Console

    from loader.demo.progress import Stages
    from loader.demo.report import build_table, draw_picture
    from loader.demo.run import QUICK_EVENTS, Settings, run_demo

    with Stages() as stages:
        figures = run_demo(Settings(out, every, epochs, seed, QUICK_EVENTS if quick else None), stages)
    picture = draw_picture(figures, out / "demo.png")
    if json:
        typer.echo(codec.dumps({**figures.describe(), "picture": str(picture)}))
        return
    Console().print(build_table(figures))
    typer.echo(f"picture: {picture}")
