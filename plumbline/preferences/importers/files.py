"""Reading files of preferences row by row, where a faulty row does not stop the rest."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.datafiles import read_rows
from plumbline.errors import DataError


@dataclass(frozen=True)
class RawRow:
    """A row of a file: its parsed value, or why it could not be parsed; `shown` is what to set aside."""

    line: int
    value: Any
    fault: str | None
    shown: Any


def raw_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a `.jsonl`, `.json` (each also `.gz`) or `.parquet` file.

    Only JSON lines can be faulty one by one; the others are read whole or not at all.

    Raises:
        DataError: another kind of file, or one that cannot be read.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")) or (name.endswith(".json") and _begins_like_lines(path)):
        yield from _json_lines(path)
    elif name.endswith(".json"):
        yield from _json_list(path)
    else:
        for line, row in read_rows(path):
            yield RawRow(line, row, None, row)


def _json_lines(path: Path) -> Iterator[RawRow]:
    for line, raw in enumerate(_lines(path), 1):
        if not raw.strip():
            continue
        shown = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
        try:
            value = _parse(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield RawRow(line, None, f"not UTF-8 (byte {error.start}): save the file as UTF-8", shown)
        except json.JSONDecodeError as error:
            yield RawRow(line, None, f"not valid JSON: {error.msg}", shown)
        else:
            yield RawRow(line, value, None, value)


def _json_list(path: Path) -> Iterator[RawRow]:
    try:
        rows = _parse(b"".join(_lines(path)).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(path, None, f"not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            return
        raise DataError(path, error.lineno, f"not valid JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(rows, list):
        raise DataError(path, None, f"expected a list of rows, found {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        yield RawRow(number, row, None, row)


def _parse(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise json.JSONDecodeError(f"{constant} is no number", text, text.find(constant))

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None


def _begins_like_lines(path: Path) -> bool:
    """Whether the first line of a `.json` file is an object of its own: JSON lines under another name."""
    first = next((raw for raw in _lines(path) if raw.strip()), b"").strip()
    return first.startswith((b"{", b"\xef\xbb\xbf{")) and first.endswith(b"}")


def _lines(path: Path) -> Iterator[bytes]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            yield from file
    except (OSError, EOFError) as error:
        raise DataError(path, None, f"cannot be read: {error}") from None
