"""``uihkv`` on the command line: which commands are there, and what happens around each.

A command is a function with typer's annotations, named by an entry point ``name = module:function``: those of the store
in :data:`BUILT_IN`, those of packages above it (and of anybody) in the entry-point group ``uihkv.commands``. The
function does its work, raises this package's errors and prints through :mod:`uihkv.cli.output`; how it ends is
:mod:`uihkv.cli.endings`'.

To add a command: write such a function, name it in ``BUILT_IN``. Its docstring is its help: one line that says what
it does, a paragraph of why and what to expect, an example. A line of it is at most 76 characters.

Invariant: only the command that was asked for is imported, and a command imports what is heavy when it runs, so that
``uihkv --help`` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from inspect import cleandoc
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from uihkv.cli.endings import CommandError, ending

GROUP = "uihkv.commands"

BUILT_IN = {
    name: EntryPoint(name, f"uihkv.cli.{name}:{name}", GROUP)
    for name in (
        "create",
        "ingest",
        "examples",
        "resolve",
        "slim",
        "audit",
        "stats",
        "show",
        "verify",
        "trim",
        "compact",
        "backup",
    )
}
"""The store's own commands, in the order in which a store needs them."""

for _name, _function in {"import": "import_", "import-git": "import_git", "import-fatrows": "import_fat_rows"}.items():
    BUILT_IN[_name] = EntryPoint(_name, f"uihkv.cli.imports:{_function}", GROUP)


class _Flags:
    """Flags are shown by their names alone; typer would add ``<bool>`` to each."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class _Command(_Flags, TyperCommand):
    """A command of its own."""


class _Commands(_Flags, TyperGroup):
    """The commands by name, each loaded when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        others = sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in BUILT_IN)
        return [*BUILT_IN, *others]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            entry = BUILT_IN.get(cmd_name) or next(iter(entry_points(group=GROUP, name=cmd_name)), None)
            if entry is None:
                return None
            self.commands[cmd_name] = load_command(entry)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            for name in self.list_commands(ctx):  # typer suggests one of those that it knows
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with ending(ctx):
            return super().invoke(ctx)


def load_command(entry: EntryPoint) -> Any:
    """The entry point's function as a command; where it cannot be loaded, a command that says so."""
    try:
        function: Callable[..., None] = entry.load()
    except (ImportError, AttributeError) as error:
        reason = f"it cannot be loaded from {entry.value} ({error})"

        def function() -> None:
            raise CommandError(f"{reason}; install or remove the package that it comes from")

        function.__doc__ = f"Not available: {reason}."
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(entry.name, cls=_Command, help=escape(cleandoc(function.__doc__ or "")))(function)
    return typer.main.get_command(app)


app = typer.Typer(
    cls=_Commands,
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from uihkv import __version__

        typer.echo(f"uihkv {__version__}")
        raise typer.Exit


@app.callback()
def _describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Histories of user interactions, stored once, read as of any version.

    A store takes events; a training example carries a pointer into it instead
    of a copied history:

      uihkv create store --schema schema.toml     make an empty store
      uihkv ingest store events.parquet           put events in
      uihkv resolve store examples.parquet -o slim.parquet --as-of ts
                                                  give every example its pointer
      uihkv demo                                  all of it, on a real event log
    """


def main() -> None:
    """Run the command line and leave with its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    app(prog_name="uihkv")
