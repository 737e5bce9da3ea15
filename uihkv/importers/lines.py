"""Text logs as blocks of whole lines, and which line it was that could not be parsed.

A block is parsed at once, by code that takes all of its lines as one piece of memory. Only when that fails it is
halved, again and again, until the lines that are bad stand alone; so naming a line costs nothing where there is none,
and a parser need not know where it is. Memory holds one block. Files whose names end in ``.gz`` are unpacked on the
way.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, TypeVar, cast

import pyarrow as pa

from uihkv.errors import FormatError, SchemaError
from uihkv.importers.protocol import BadLines

BLOCK_BYTES = 1 << 22
MAX_LINE_BYTES = 1 << 28

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Some Windows programs put it before the first line."""

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file.

    Attributes:
        data: the lines, with their ends; the last of a file may have none.
        first_line: number of the first, from 1.
        share: how much of the file has been read with it, 0 to 1.

    """

    data: bytes
    first_line: int
    share: float


def read_blocks(path: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """A file's lines, about ``block_bytes`` at a time.

    Raises:
        FormatError: for a file that is not there, cannot be read or unpacked, or has a line of more than 256 MB.

    """
    with _open_text(path) as (packed, text):
        size = max(path.stat().st_size, 1)
        mark = text.read(len(_BYTE_ORDER_MARK))
        line, rest = 1, b"" if mark == _BYTE_ORDER_MARK else mark
        while piece := text.read(block_bytes):
            data = rest + piece
            end = data.rfind(b"\n") + 1
            data, rest = data[:end], data[end:]
            if len(rest) > MAX_LINE_BYTES:
                raise FormatError(
                    f"{path}: a line of more than {MAX_LINE_BYTES} bytes after line {line - 1}: not of this format"
                )
            if data:
                yield Block(data, line, min(packed.tell() / size, 1.0))
                line += data.count(b"\n")
        if rest:
            yield Block(rest, line, 1.0)


@contextmanager
def _open_text(path: Path) -> Iterator[tuple[BufferedReader, IO[bytes]]]:
    """The file as it lies, whose position tells how far one is, and its text."""
    try:
        with path.open("rb") as packed:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=packed) as text:
                    yield packed, cast(IO[bytes], text)
            else:
                yield packed, packed
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FormatError(f"{path} cannot be read ({what}); check the path, or fetch the file again") from error


def split_header(path: Path, separator: bytes) -> tuple[list[str], Iterator[Block]]:
    """The names in a file's first line, and the lines below it.

    Raises:
        FormatError: as :func:`read_blocks`; for an empty file, or a header that is not UTF-8.

    """
    blocks = read_blocks(path)
    first = next(blocks, None)
    if first is None:
        raise FormatError(f"{path} is empty; its first line names the columns")
    header, _, rest = first.data.partition(b"\n")
    try:
        names = [name.strip().strip('"') for name in header.decode().strip("\r").split(separator.decode())]
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: its first line is not UTF-8 ({error.reason}); it is not of this format") from error

    def below() -> Iterator[Block]:
        if rest:
            yield Block(rest, 2, first.share)
        yield from blocks

    return names, below()


def parse_block(path: Path, block: Block, parse: Callable[[bytes, int], Parsed], bad: BadLines) -> Iterator[Parsed]:
    """What the block's lines mean: in one piece, or around the lines that are bad.

    Args:
        path: the file, for messages.
        block: its lines.
        parse: takes lines and the number of the first, gives what they mean, and raises for what it cannot take.
        bad: told of each line that it cannot take.

    """
    try:
        parsed = parse(block.data, block.first_line)
    except (pa.ArrowException, SchemaError) as error:
        lines = block.data.splitlines(keepends=True) if b"\n" in block.data[:-1] else [block.data]
        if b"\r" in block.data:  # bytes split at lone carriage returns, too, which are no ends of lines here
            lines = [line + b"\n" for line in block.data.removesuffix(b"\n").split(b"\n")]
        if len(lines) == 1:
            reason = str(error).splitlines()[0].rstrip(".")
            bad.refuse(path, f"line {block.first_line}", _shorten(reason), block.data)
            return
        middle = len(lines) // 2
        for some, first in ((lines[:middle], block.first_line), (lines[middle:], block.first_line + middle)):
            yield from parse_block(path, Block(b"".join(some), first, block.share), parse, bad)
        return
    yield parsed


def _shorten(reason: str) -> str:
    """A parser's message without the row of the piece that it was given: the line is named already."""
    for noise in ("CSV parse error: ", "JSON parse error: ", "Row #1: ", "In CSV column "):
        reason = reason.replace(noise, "column " if noise.endswith("column ") else "")
    return reason.replace(" in row 0", "")
