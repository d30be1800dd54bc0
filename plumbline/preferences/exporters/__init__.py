"""Exporting preferences, and what annotators flagged, in a stream.

The same judgements give the same bytes: rows come in an order that contents decide, and nothing in a file tells when it
was written. Adding a format is one small module (see `base.Exporter`), and its name in `preferences/formats.py`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, cast

from plumbline.conversations import Split
from plumbline.errors import UserError
from plumbline.preferences import audit
from plumbline.preferences.exporters.base import Exporter
from plumbline.preferences.exporters.stream import Export, ExportOptions
from plumbline.preferences.formats import EXPORTED, check_format
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import SCHEMA_VERSION

__all__ = [
    "EXPORTERS",
    "BrokenOff",
    "Export",
    "ExportOptions",
    "ExportReport",
    "Split",
    "companion_of",
    "export_preferences",
]

EXPORTERS = {name: cast(Exporter, import_module(f"{__name__}.{name}")) for name in EXPORTED}

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote: `rows` rows, made of `records` judgements or flags, `simulated` of them simulated.

    Attributes:
        sha256: of the file.
        files: the file, its manifest, and what else belongs to it.
    """

    format: str
    path: Path
    rows: int
    records: int
    simulated: int
    sha256: str
    files: tuple[Path, ...]


class BrokenOff(NamedTuple):
    """What was sent of a download that did not end: whole rows, and bytes."""

    rows: int
    bytes: int


def export_preferences(
    service: PreferenceService,
    path: str | Path,
    *,
    format: str = EXPORTED[0],
    replace: bool = False,
    options: ExportOptions | None = None,
) -> ExportReport:
    """Write the project's current judgements, or flags, to a file, in a stream; the file appears whole or not at all.

    `NAME.manifest.json` beside it says what is in it; some formats have a third file. The export is in the audit log.

    Args:
        path: with the format's suffix, such as `.jsonl`, or `.jsonl.gz` to compress.
        format: one of `EXPORTERS`.
        replace: write over files that are there.
        options: what to leave out.

    Raises:
        UserError: unknown format, another kind of file, one that is there, nothing to write, or the file cannot be
            written.
    """
    path = Path(path)
    check_format(format, EXPORTED)
    exporter = EXPORTERS[format]
    _check_suffix(path, exporter)
    companion = companion_of(format)
    beside = [path.with_name(f"{path.name}.{name}") for name in (MANIFEST, *(companion[:1] if companion else ()))]
    there = next((file for file in (path, *beside) if file.exists()), None)
    if there and not replace:
        raise UserError(f"{there} is there already: name another file, or replace it with --force.")
    export = Export(service, exporter, options or ExportOptions())
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        sha256 = _write(export, partial, compressed=path.suffix == ".gz")
        _refuse_empty(export)
        os.replace(partial, path)
        if companion:
            beside[1].write_text(companion[1], encoding="utf-8")
        facts = {"file": path.name, "sha256": sha256, **manifest_of(export)}
        beside[0].write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)
    record_export(export, sha256, actor=None)
    files = (path, *beside)
    return ExportReport(format, path, export.rows, export.records, export.simulated, sha256, files)


def companion_of(format: str) -> tuple[str, str] | None:
    """The name's end and the text of the file that some formats have beside the export."""
    exporter: Any = EXPORTERS[format]
    return (exporter.COMPANION, exporter.companion()) if hasattr(exporter, "COMPANION") else None


def manifest_of(export: Export) -> dict[str, Any]:
    """What is in an export that was written."""
    return {
        "format": export.exporter.FORMAT,
        "project": export.service.project,
        "rows": export.rows,
        "judgements" if export.exporter.FORMAT != "flags" else "flags": export.records,
        "people": export.records - export.simulated,
        "simulated": export.simulated,
        "annotators": dict(sorted(export.annotators.items())),
        "filters": asdict(export.options),
        "snapshot": export.snapshot,
        "store_version": SCHEMA_VERSION,
        "plumbline": _own_version(),
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def record_export(export: Export, sha256: str, *, actor: str | None, broken_off: BrokenOff | None = None) -> None:
    """Write into the audit log that judgements left the store: all of the export, or what was sent of it."""
    service = export.service
    details = {"format": export.exporter.FORMAT, "rows": export.rows, "sha256": sha256, **asdict(export.options)}
    action = "export"
    if broken_off is not None:
        action, details = "export broken off", details | broken_off._asdict()
    with service.turn() as turn:
        audit.record(turn.connection, at=turn.now, project=service.project, actor=actor, action=action, details=details)


def _check_suffix(path: Path, exporter: Exporter) -> None:
    suffix = f".{exporter.SUFFIX}"
    known = (suffix, ".ndjson") if suffix == ".jsonl" else (suffix,)
    if not path.name.removesuffix(".gz").endswith(known):
        what = {"jsonl": "JSON lines", "json": "one JSON array", "csv": "a table"}[exporter.SUFFIX]
        raise UserError(f"{path}: the format {exporter.FORMAT} is {what}; name a {suffix} or {suffix}.gz file.")


def _write(export: Export, partial: Path, *, compressed: bool) -> str:
    """Write the export; returns the digest of the file."""
    with partial.open("wb") as raw:
        # Neither name nor time in the archive's head, so that the same content gives the same bytes.
        file: Any = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compressed else raw
        for chunk in export.chunks():
            file.write(chunk)
        if compressed:
            file.close()
    if not compressed:
        return export.sha256
    with partial.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _refuse_empty(export: Export) -> None:
    project, format = export.service.project, export.exporter.FORMAT
    if export.rows:
        return
    if format == "flags":
        raise UserError(f"project {project!r} has no flags.")
    if export.records:
        takes = "improved responses" if format == "demonstrations" else "judgements that prefer a response"
        raise UserError(f"project {project!r} has nothing for the format {format}, which takes {takes}.")
    left_out = " that these options leave" if export.options != ExportOptions() else " yet"
    raise UserError(f"project {project!r} has no judgements{left_out}: collect or import some first.")


def _own_version() -> str | None:
    with suppress(PackageNotFoundError):
        return version("plumbline")
    return None
