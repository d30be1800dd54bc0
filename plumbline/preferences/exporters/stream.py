"""An export as a stream of bytes, for a file or for a browser."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any

import orjson

from plumbline.conversations import Split, split_of
from plumbline.preferences.exporters.base import Exporter
from plumbline.preferences.service import PreferenceService

CHUNK = 256 * 1024
"""Bytes that are handed on together."""


@dataclass(frozen=True)
class ExportOptions:
    """What is exported.

    Attributes:
        pseudonyms: people have random names instead of their own.
        simulated: with judgements by simulated annotators.
        split: of this split alone.
        validation, test: shares of these splits, which the hash of a prompt decides.
    """

    pseudonyms: bool = False
    simulated: bool = True
    split: Split | None = None
    validation: float = 0.1
    test: float = 0.1


class Export:
    """One export; the counts are right when all chunks were taken.

    Attributes:
        rows: rows written so far.
        records: judgements (or flags) that went into them; `simulated` of them are simulated.
        annotators: judgements by annotator's name.
    """

    def __init__(self, service: PreferenceService, exporter: Exporter, options: ExportOptions) -> None:
        self.service, self.exporter, self.options = service, exporter, options
        self.rows = self.records = self.simulated = 0
        self.annotators: Counter[str] = Counter()
        self._file, self._judgements = hashlib.sha256(), hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Digest of the bytes so far."""
        return self._file.hexdigest()

    @property
    def snapshot(self) -> str:
        """Names the exported judgements, in whatever format; 32 hexadecimal digits."""
        return self._judgements.hexdigest()[:32]

    def chunks(self) -> Generator[bytes]:
        """The bytes, in large pieces."""
        buffer = bytearray()
        for piece in self._pieces():
            buffer += piece
            if len(buffer) >= CHUNK:
                yield self._taken(buffer)
                buffer.clear()
        yield self._taken(buffer)

    def _taken(self, buffer: bytearray) -> bytes:
        chunk = bytes(buffer)
        self._file.update(chunk)
        return chunk

    def _pieces(self) -> Iterator[bytes]:
        suffix = self.exporter.SUFFIX
        if suffix == "csv":
            return _as_csv(self._rows())
        if suffix == "json":
            return _as_array(self._rows())
        return (as_json(row, orjson.OPT_APPEND_NEWLINE) for row in self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        options = self.options
        records: Iterable[Any] = (
            self.service.flags(pseudonyms=options.pseudonyms)
            if self.exporter.FORMAT == "flags"
            else self.service.judgements(pseudonyms=options.pseudonyms)
        )
        for _, group in groupby(records, key=attrgetter("task_id")):
            of_task = [record for record in group if options.simulated or not record.simulated]
            if not of_task:
                continue
            split = split_of(of_task[0].prompt, validation=options.validation, test=options.test)
            if options.split not in (None, split):
                continue
            self.records += len(of_task)
            self.simulated += sum([record.simulated for record in of_task])
            self.annotators.update([record.annotator for record in of_task])
            ids = [getattr(record, "judgement_id", record.task_id) for record in of_task]
            self._judgements.update("".join([f"{one}\n" for one in ids]).encode())
            for row in self.exporter.rows(of_task, split):
                self.rows += 1
                yield row


def as_json(row: Any, options: int = 0) -> bytes:
    """A row as compact JSON in UTF-8, by orjson with these options."""
    try:
        return orjson.dumps(row, option=options)
    except TypeError:  # a number of more than 64 bits, or half of a surrogate pair, in what somebody imported
        end = b"\n" if options & orjson.OPT_APPEND_NEWLINE else b""
        return json.dumps(row, ensure_ascii=True, separators=(",", ":"), default=_unwrapped).encode() + end


def _unwrapped(fragment: orjson.Fragment) -> Any:
    return orjson.loads(orjson.dumps(fragment))


def _as_array(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    before = b"[\n"
    for row in rows:
        yield before + as_json(row)
        before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"


def _as_csv(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """As Python's `csv` writes it with `QUOTE_NONNUMERIC`, in a third of the time: a task's texts are quoted once."""
    head = True
    for row in rows:
        if head:
            yield _csv_line(row)
            head = False
        yield _csv_line(row.values())


def _csv_line(cells: Iterable[Any]) -> bytes:
    # Quotes around every text: no line's end or comma in it can begin another cell.
    line = ",".join([_quoted(cell) if cell is None or isinstance(cell, str) else str(cell) for cell in cells])
    return f"{line}\n".encode(errors="replace")  # half of a surrogate pair is no UTF-8


@lru_cache(maxsize=256)
def _quoted(cell: str | None) -> str:
    return '""' if cell is None else '"' + cell.replace('"', '""') + '"'
