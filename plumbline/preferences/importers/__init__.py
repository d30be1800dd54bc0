"""Importing preferences that people gave elsewhere.

Adding a format is one small module with `FORMAT`, `detect(row)` and `judgements(row)` (see `base.Importer`), and its
name in `preferences/formats.py`. Faulty rows are set aside in `<file>.rejected.jsonl` with their line and the reason,
the rest goes in; a judgement is known by its contents, so nothing is taken twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from plumbline.errors import DataError, UserError, counted
from plumbline.preferences.formats import IMPORTED, check_format
from plumbline.preferences.importers.base import Importer, RowFault, annotator_of, as_new_judgement
from plumbline.preferences.importers.files import RawRow, raw_rows
from plumbline.preferences.records import NewJudgement
from plumbline.preferences.screening import Findings, Screen
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.validation import task_fault

IMPORTERS = {name: cast(Importer, import_module(f"{__name__}.{name}")) for name in IMPORTED}
"""By format; the first one that recognises a row decides."""

ROWS_TO_DETECT = 50


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        read: rows of the file.
        taken: judgements that went into the store; a row may hold none or several.
        present: judgements that the store had already.
        repeated: judgements that the file holds more than once; only the first counts above.
        rejected: rows that were set aside, in `rejected_path`.
        personal: the personal data in the rows.
    """

    format: str
    read: int
    taken: int
    present: int
    repeated: int
    rejected: int
    rejected_path: Path | None
    personal: Findings = field(default_factory=Findings)

    @property
    def summary(self) -> str:
        """One line for the user: what became of the rows, then of the judgements in them."""
        rows = f"{counted(self.read, 'row')} read as {self.format}"
        judgements = f"{counted(self.taken, 'judgement')} taken"
        if self.rejected:
            rows += f", {self.rejected:,} set aside"
        if self.present:
            judgements += f", {self.present:,} there already"
        if self.repeated:
            judgements += f", {self.repeated:,} left out that the file holds twice"
        return f"{rows}: {judgements}"


def import_preferences(
    path: str | Path,
    service: PreferenceService,
    *,
    format: str | None = None,
    rejected_path: Path | None = None,
    screen: Screen | None = None,
) -> ImportReport:
    """Read a file of preferences into the store.

    Args:
        path: `.jsonl` or `.json` (each also `.gz`), or `.parquet`.
        format: one of `IMPORTERS`; detected from the first rows when not given.
        rejected_path: where faulty rows go; default `<file>.rejected.jsonl` beside the file, or in the working
            directory where that folder cannot be written.
        screen: what becomes of personal data; default: it is reported.

    Raises:
        UserError: no such file, an empty one, an unknown format, nothing in it is of any known format, or all its rows
            had to be set aside.
    """
    path = Path(path)
    importer, rows = _opened(path, format)
    try:
        with _Rejected(rejected_path or _beside(path)) as rejected:
            reading = _Reading(importer, service.project, rejected, screen or Screen())
            taken = service.take(reading.judgements(rows))
    except OSError as error:
        raise UserError(f"{path}: rows to be set aside cannot be written ({error.strerror or error}).") from error
    if rejected.rows == reading.read:
        what = f"{path}: nothing was taken; {counted(reading.read, 'row')} read as {importer.FORMAT}, all set aside in "
        if reading.withheld == reading.read:
            raise UserError(f"{what}{rejected.path}, because they hold personal data.")
        raise UserError(
            f"{what}{rejected.path} with their reasons. Is it another format? Known are {', '.join(IMPORTERS)}."
        )
    place = rejected.path if rejected.rows else None
    return ImportReport(
        importer.FORMAT,
        reading.read,
        taken.taken,
        taken.present,
        reading.repeated,
        rejected.rows,
        place,
        reading.personal,
    )


def judgements_by(name: str, path: Path, *, format: str | None = None) -> int:
    """How many judgements of a file are by an annotator, who is named as in the store.

    Raises:
        UserError: the file cannot be imported.
    """
    importer, rows = _opened(path, format)
    return sum(one.casefold() == name.casefold() for raw in rows for one in _annotators_in(importer, raw))


def _annotators_in(importer: Importer, raw: RawRow) -> list[str]:
    if not isinstance(raw.value, dict):
        return []
    try:
        return [annotator_of(one, importer.FORMAT) for one in importer.judgements(raw.value)]
    except RowFault:
        return []


def _opened(path: Path, format: str | None) -> tuple[Importer, Iterator[RawRow]]:
    """The rows of a file, and who reads them."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it.")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file to import.")
    if format is not None:
        check_format(format, IMPORTED)
    rows = raw_rows(path)
    first = list(islice(rows, ROWS_TO_DETECT))
    if not first:
        raise UserError(f"{path}: the file has no rows.")
    return IMPORTERS[format] if format else _detect(path, first), chain(first, rows)


def _detect(path: Path, rows: Iterable[RawRow]) -> Importer:
    for raw in rows:
        if isinstance(raw.value, dict):
            for importer in IMPORTERS.values():
                if importer.detect(raw.value):
                    return importer
    raise UserError(
        f"{path}: none of its first rows has a known form; known are {', '.join(IMPORTERS)}. "
        "Say which one with --format to see what is wrong with each row."
    )


@dataclass
class _Reading:
    """Turns rows into judgements, each once; sets aside what cannot be used."""

    importer: Importer
    project: str
    rejected: _Rejected
    screen: Screen
    read: int = 0
    repeated: int = 0
    withheld: int = 0
    personal: Findings = field(default_factory=Findings)
    _keys: set[str] = field(default_factory=set, init=False)

    def judgements(self, rows: Iterable[RawRow]) -> Iterator[NewJudgement]:
        for raw in rows:
            self.read += 1
            if raw.fault is not None:
                self.rejected.add(raw, raw.fault)
                continue
            try:
                found = [as_new_judgement(one, self.importer.FORMAT, self.project) for one in self._of(raw.value)]
                found = self._screened(raw, found)
            except RowFault as fault:
                self.rejected.add(raw, str(fault))
                continue
            for judgement in found:
                key = judgement.judgement_id or judgement.key
                self.repeated += key in self._keys
                if key not in self._keys:
                    self._keys.add(key)
                    yield judgement

    def _screened(self, raw: RawRow, found: list[NewJudgement]) -> list[NewJudgement]:
        """The judgements as they may enter the store."""
        kinds: Counter[str] = Counter()
        for judgement in found:
            kinds |= self.screen.kinds_of_judgement(judgement)  # of one row, so mostly of the same texts
        self.personal.add(raw.line, kinds)
        if not kinds or self.screen.action == "report":
            return found
        if self.screen.action == "set_aside":
            self.withheld += 1
            raise RowFault(f"personal data: {', '.join(sorted(kinds))}")
        masked = [self.screen.masked_judgement(judgement) for judgement in found]
        for judgement in masked:
            if fault := task_fault(judgement.task):
                raise RowFault(f"with personal data masked, {fault}")
        return masked

    def _of(self, row: Any) -> Iterable[Any]:
        if not isinstance(row, dict):
            raise RowFault(f"expected an object with named fields, found {type(row).__name__}")
        return self.importer.judgements(row)


@dataclass
class _Rejected:
    """The file of rows that were set aside; it appears whole at the end, and only when there are any."""

    path: Path
    rows: int = 0
    _file: IO[str] | None = field(default=None, init=False)

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")

    def add(self, raw: RawRow, reason: str) -> None:
        self._file = self._file or self._partial.open("w", encoding="utf-8")
        self._file.write(json.dumps({"line": raw.line, "reason": reason, "row": raw.shown}) + "\n")
        self.rows += 1

    def __enter__(self) -> _Rejected:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        self._file.close()
        if error is None or isinstance(error, DataError):
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink()


def _beside(path: Path) -> Path:
    name = f"{path.name}.rejected.jsonl"
    return path.with_name(name) if os.access(path.parent, os.W_OK) else Path.cwd() / name
