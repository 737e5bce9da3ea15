"""Write ``docs/reference/cli.md`` from the commands' own help, and ``docs/commands.md`` from what they print.

``python -m docs.generate`` does; sessions are those of :mod:`docs.sessions`. Tests compare both pages with what this
makes, so they cannot be forgotten.
"""

from __future__ import annotations

import inspect
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reference" / "cli.md"

HEAD = """# Command line

<!-- Made by `python -m docs.generate` from the commands' help; do not edit. -->

`uihkv COMMAND --help` says the same. Every command says in a table of at most 80 columns what it did, or with `--json`
in one object for machines. Exit status: 0 done, 1 failed (one line on standard error says why), 2 wrong usage, 130
interrupted. Progress is shown only where standard error is a terminal.

`uihkv --install-completion` sets up completion of commands and options for your shell; `--show-completion` prints it.
"""


def build_page() -> str:
    """The page's text."""
    return HEAD + "".join(f"\n{section}" for section in _sections())


def list_commands() -> dict[str, Any]:
    """Every command that this package brings, by name: the store's, and those that ``pyproject.toml`` registers."""
    from uihkv.cli import BUILT_IN, GROUP, load_command

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    others = {name: EntryPoint(name, value, GROUP) for name, value in project["entry-points"][GROUP].items()}
    return {name: load_command(entry) for name, entry in {**BUILT_IN, **others}.items()}


def command_help(command: Any) -> str:
    """The text of a command's help."""
    return inspect.cleandoc(command.callback.__doc__ or "")


def _sections() -> Iterator[str]:
    for name, command in list_commands().items():
        context = command.make_context(name, [], resilient_parsing=True, terminal_width=80)
        usage = " ".join(["uihkv", name, *map(_bare, command.collect_usage_pieces(context))])
        first, _, rest = command_help(command).partition("\n")
        lines = [f"## uihkv {name}", "", first, "", "```", f"Usage: {usage}", *rest.splitlines(), "", "```", ""]
        while lines[-3] == "":
            del lines[-3]
        records = [record for parameter in command.params if (record := _record(parameter, context))]
        if records:
            lines += ["| option | |", "|---|---|", *records, ""]
        yield "\n".join(lines)


def _bare(piece: str) -> str:
    """An argument as it is written: without braces."""
    return piece.replace("{", "").replace("}", "")


def _record(parameter: Any, context: Any) -> str | None:
    """An option or argument as a row of a table."""
    if parameter.param_type_name == "argument":
        names, text = f"`{parameter.metavar or parameter.name}`", parameter.help or ""
    else:
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            return None
        names, text = f"`{record[0].strip()}`", record[1]
    cells = [" ".join(cell.split()).replace("|", "\\|") for cell in (names, text)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Write both pages and the pictures."""
    from docs import sessions

    PAGE.write_text(build_page())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        page = sessions.build_page(folder, lambda name, shown: sessions.draw(name, shown, folder))
    if not sessions.PAGE.exists() or sessions.same_form(page) != sessions.same_form(sessions.PAGE.read_text()):
        sessions.PAGE.write_text(page)


if __name__ == "__main__":
    main()
