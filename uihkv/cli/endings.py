"""How does a command end? The one place that turns errors into exit statuses.

0 only on success. 2 for wrong usage, which is typer's to find. 1 for a failed operation, with one line on standard
error that says what was found, what was expected and what to do. 130 after an interrupt, and nothing printed; nor is
anything printed when the reader of the output is gone. Any other exception is a fault in this package and keeps its
traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from uihkv.errors import UihkvError

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class CommandError(UihkvError):
    """What a command was told to do cannot be done, and no error of the store says why."""


@contextmanager
def ending(ctx: Any) -> Iterator[None]:
    """Leave with the exit status of what happens inside; ``ctx`` is that of the command line as a whole."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # What is still buffered has no reader: let the flush at exit go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except (UihkvError, OSError) as error:
        name = " ".join(filter(None, (ctx.info_name, ctx.invoked_subcommand)))
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        raise typer.Exit(FAILED) from None


def one_line(error: BaseException) -> str:
    """An error's message and notes, without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        places = [os.fsdecode(place) for place in (error.filename, error.filename2) if isinstance(place, str | bytes)]
        message = ": ".join([" and ".join(places), error.strerror] if places else [error.strerror])
    else:
        message = str(error) or type(error).__name__
    notes = getattr(error, "__notes__", [])
    return " ".join("; ".join([message, *notes]).split())
