"""Arguments and options that several commands share, each with one name and one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the store.", show_default=False)]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
