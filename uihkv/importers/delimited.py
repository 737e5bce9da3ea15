"""Logs of one event a line, its values separated: what a format says of its columns, and how its files are read by it.

A format gives a :class:`Layout`: separator, types of the columns it wants, and what they become. Files with a header
are read by its names, in whatever order they stand; files without one by the layout's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv

from uihkv.errors import FormatError
from uihkv.importers.lines import parse_block, read_blocks, split_header
from uihkv.importers.protocol import BadLines, Part
from uihkv.importers.tables import make_events

_ONE_CHARACTER = b"\x1f"
"""Stands for a separator of several characters, which Arrow's reader does not take: ASCII's unit separator."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a line is made up.

    Attributes:
        separator: between values.
        types: Arrow types of the columns that are read, by the file's names.
        build: from a table of these to the columns of events.
        names: all columns of a line, in order; None: the first line names them.
        quotes: values may stand in double quotes.

    """

    separator: str
    types: Mapping[str, Any]
    build: Callable[[pa.Table], Mapping[str, Any]]
    names: tuple[str, ...] | None = None
    quotes: bool = False


def read_delimited(files: Sequence[Path], layout: Layout | Callable[[Path], Layout], bad: BadLines) -> Iterator[Part]:
    """Events of files, by one layout or by each file's own.

    Raises:
        FormatError: for a file that cannot be read, or whose header lacks a column.
        SchemaError: for bad lines, unless they are skipped.

    """
    for number, path in enumerate(files):
        own = layout if isinstance(layout, Layout) else layout(path)
        if own.names is None:
            found, blocks = split_header(path, own.separator.encode())
            check_header(path, found, list(own.types))
        else:
            found, blocks = list(own.names), read_blocks(path)

        def parse(data: bytes, _: int, own: Layout = own, found: list[str] = found) -> pa.RecordBatch:
            separator = own.separator
            if len(separator) > 1:
                if _ONE_CHARACTER in data:
                    raise pa.ArrowInvalid("the line has a control character")
                data, separator = data.replace(separator.encode(), _ONE_CHARACTER), _ONE_CHARACTER.decode()
            return make_events(own.build(parse_delimited(data, found, own.types, separator, quotes=own.quotes)))

        for block in blocks:
            for events in parse_block(path, block, parse, bad):
                yield Part(events, number, block.share)


def parse_delimited(
    data: bytes, names: Sequence[str], wanted: Mapping[str, Any], separator: str, *, quotes: bool = False
) -> pa.Table:
    """Columns of lines of delimited text.

    Args:
        data: whole lines.
        names: all columns of a line, in order.
        wanted: types of those that are read; what is empty is null.
        separator: one character.
        quotes: values may stand in double quotes.

    Raises:
        pa.ArrowInvalid: for a line with another number of values, an empty line, or a value not of its type.

    """
    return pcsv.read_csv(
        pa.BufferReader(data),
        read_options=pcsv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(data) + 1),
        parse_options=pcsv.ParseOptions(
            delimiter=separator, quote_char='"' if quotes else False, ignore_empty_lines=False
        ),
        convert_options=pcsv.ConvertOptions(
            column_types=dict(wanted), include_columns=list(wanted), null_values=[""], strings_can_be_null=True
        ),
    )


def check_header(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a file whose header lacks a column.

    Raises:
        FormatError: naming what is missing.

    """
    missing = [name for name in wanted if name not in found]
    if missing:
        raise FormatError(
            f"{path}: its first line has no {', '.join(missing)}; found {', '.join(found)[:200]}: it is not of this "
            "format, or its header was removed"
        )
