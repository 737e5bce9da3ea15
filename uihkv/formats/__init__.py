"""Event files of every format that is known, and how the format of one is told."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath
from pathlib import Path
from typing import Literal, get_args

from uihkv.errors import FormatError, SchemaError
from uihkv.formats import arrow, csv, parquet
from uihkv.formats.source import Source, Wanted

Format = Literal["parquet", "arrow", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "parquet": parquet.SUFFIXES,
    "arrow": arrow.SUFFIXES,
    "csv": csv.SUFFIXES,
}


def check_format(format: str | None) -> None:
    """Refuse a format that is not known."""
    if format is not None and format not in FORMATS:
        raise SchemaError(f"format is {format!r}; one of {', '.join(FORMATS)} is expected")


def list_files(paths: str | PathLike[str] | Iterable[str | PathLike[str]], format: Format | None = None) -> list[Path]:
    """The files that paths name, in the order given; a folder stands for its event files by name.

    Args:
        paths: a file, several, or folders. Files and folders below a folder whose names begin with ``.`` or ``_`` are
            not events and are passed over, and so are suffixes of no format, or of another than the one given.
        format: of all files.

    Raises:
        FormatError: for a path that does not exist, or a folder without event files.

    """
    given = [paths] if isinstance(paths, str | PathLike) else list(paths)
    suffixes = [suffix for one, those in _SUFFIXES.items() if format in (None, one) for suffix in those]
    files: list[Path] = []
    for path in (Path(fspath(one)) for one in given):
        if path.is_dir():
            found = sorted(
                file
                for file in path.rglob("*")
                if file.name.lower().endswith(tuple(suffixes))
                and file.is_file()
                and not any(part[0] in "._" for part in file.relative_to(path).parts)
            )
            if not found:
                raise FormatError(
                    f"folder {path} holds no files of {', '.join(suffixes)}; name the files or another folder"
                )
            files.extend(found)
        elif path.exists():
            files.append(path)
        else:
            raise FormatError(f"{path} does not exist; give a file or a folder of them")
    if not files:
        raise FormatError("no files given; give one event file or more, or a folder of them")
    return files


def open_source(path: Path, wanted: Wanted, format: Format | None = None) -> Source:
    """Open a file, in the format that is given, or else that its suffix or its first bytes tell.

    Raises:
        FormatError: when the format cannot be told, or the file cannot be read in it.
        SchemaError: when two of its columns have one name.

    """
    known = format or _tell_format(path)
    if known == "parquet":
        return parquet.ParquetSource.open(path, wanted)
    if known == "arrow":
        return arrow.ArrowSource.open(path, wanted)
    return csv.CsvSource.open(path, wanted)


def _tell_format(path: Path) -> Format:
    for format, suffixes in _SUFFIXES.items():
        if path.name.lower().endswith(suffixes):
            return format
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error})") from error
    if begin.startswith(parquet.MAGIC):
        return "parquet"
    if begin.startswith(arrow.MAGIC):
        return "arrow"
    raise FormatError(
        f"{path}: neither its name nor its first bytes tell its format; give format, one of {', '.join(FORMATS)}"
    )
