"""Exporting preferences, and what annotators flagged, as JSON lines.

Adding a format is one small module with `FORMAT` and `rows(record)`, and its name in `preferences/formats.py`.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from plumbline.errors import UserError
from plumbline.preferences.formats import EXPORTED, check_format
from plumbline.preferences.service import PreferenceService


class Exporter(Protocol):
    """A module that writes one format."""

    FORMAT: str

    def rows(self, record: Any) -> Iterable[dict[str, Any]]:
        """The rows that a `JudgementRecord` (of the format `flags`: a `FlagRecord`) becomes: none, one or several."""


EXPORTERS = {name: cast(Exporter, import_module(f"{__name__}.{name}")) for name in EXPORTED}


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote: `rows` rows, made of `records` judgements or flags, `simulated` of them simulated."""

    format: str
    path: Path
    rows: int
    records: int
    simulated: int


def export_preferences(
    service: PreferenceService, path: str | Path, *, format: str = EXPORTED[0], replace: bool = False
) -> ExportReport:
    """Write the project's current judgements, or flags, to a file, in a stream; the file appears whole or not at all.

    Args:
        path: `.jsonl`, or `.jsonl.gz` to compress.
        format: one of `EXPORTERS`.
        replace: write over a file that is there.

    Raises:
        UserError: unknown format, another kind of file, one that is there, nothing to write, or the file cannot be
            written.
    """
    path = Path(path)
    check_format(format, EXPORTED)
    if not path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        raise UserError(f"{path}: exports are JSON lines; name a .jsonl or .jsonl.gz file.")
    if path.exists() and not replace:
        raise UserError(f"{path} is there already: name another file, or replace it with --force.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        report = _write(service, path, partial, EXPORTERS[format])
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)
    return report


def _write(service: PreferenceService, path: Path, partial: Path, exporter: Exporter) -> ExportReport:
    flagged = exporter.FORMAT == "flags"
    records = simulated = written = 0
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(partial, "wt", encoding="utf-8") as file:
        for record in service.flags() if flagged else service.judgements():
            records += 1
            simulated += record.simulated
            for row in exporter.rows(record):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                written += 1
    if not records and flagged:
        raise UserError(f"project {service.project!r} has no flags.")
    if not records:
        raise UserError(f"project {service.project!r} has no judgements yet: collect or import some first.")
    return ExportReport(exporter.FORMAT, path, written, records, simulated)
