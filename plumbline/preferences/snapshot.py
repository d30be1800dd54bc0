"""Freezing the judgements of a project into one Parquet file that is named by its contents.

The hash is taken over the judgements themselves in an order that their contents decide, so that the same judgements
give the same name however they came in (but for imported ones of people, whose ids each store makes). `snapshot.json`
beside it says who judged, and how many judgements people and simulated annotators gave.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from plumbline.errors import UserError
from plumbline.preferences.records import WORK, JudgementRecord
from plumbline.preferences.service import PreferenceService

MANIFEST = "snapshot.json"
ROWS_AT_ONCE = 1000

_MESSAGE = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
_RESPONSE = pyarrow.struct(
    [(name, pyarrow.string()) for name in ("response_id", "text", "source", "source_hash", "meta")]
)
SCHEMA = pyarrow.schema(
    [
        ("judgement_id", pyarrow.string()),
        ("task_id", pyarrow.string()),
        ("prompt", pyarrow.list_(_MESSAGE)),
        ("responses", pyarrow.list_(_RESPONSE)),
        ("ranks", pyarrow.list_(pyarrow.int8())),
        ("shown_order", pyarrow.list_(pyarrow.string())),
        ("annotator", pyarrow.string()),
        ("simulated", pyarrow.bool_()),
        ("annotator_settings", pyarrow.string()),
        ("judged_at", pyarrow.timestamp("us", tz="UTC")),
        ("seconds", pyarrow.float64()),
        ("strength", pyarrow.float64()),
        ("scores", pyarrow.string()),
        ("reason", pyarrow.string()),
        ("edited", pyarrow.string()),
        ("flags", pyarrow.list_(pyarrow.string())),
        ("supersedes", pyarrow.string()),
        ("origin", pyarrow.string()),
        ("meta", pyarrow.string()),
        ("purpose", pyarrow.string()),
        ("gaps", pyarrow.list_(pyarrow.int8())),
        ("guideline", pyarrow.int32()),
        ("random_sample", pyarrow.bool_()),
    ]
)
"""Columns of a snapshot; `ranks` are in the order of `responses`, open-ended values are JSON text."""


@dataclass(frozen=True)
class Snapshot:
    """A written snapshot.

    Attributes:
        hash: names the judgements, and the Parquet file.
        judgements: how many there are; `people` and `simulated_judgements` add up to it.
        annotators: judgements by annotator's name.
        file_sha256: of the Parquet file, to see that nobody changed it.
    """

    hash: str
    folder: Path
    judgements: int
    people: int
    simulated_judgements: int
    annotators: dict[str, int]
    file_sha256: str

    @property
    def file(self) -> Path:
        """The Parquet file."""
        return self.folder / f"{self.hash}.parquet"


def write_snapshot(service: PreferenceService, folder: Path) -> Snapshot:
    """Write the current judgements to `<hash>.parquet` and their counts to `snapshot.json`, in a stream.

    Raises:
        UserError: there is not one judgement, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(service, folder)
    except OSError as error:
        raise UserError(f"{folder}: the snapshot cannot be written ({error.strerror or error}).") from error


def read_snapshot(folder: Path) -> Snapshot:
    """Read a snapshot's manifest and check its file.

    Raises:
        UserError: there is no snapshot, or its file is missing or was changed.
    """
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        snapshot = Snapshot(folder=folder, **facts)
        found = _sha256(snapshot.file)
    except FileNotFoundError as error:
        raise UserError(f"{folder}: there is no snapshot of preferences ({error.filename} is missing).") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST} is not a snapshot's manifest: {error}.") from None
    if found != snapshot.file_sha256:
        raise UserError(f"{snapshot.file} was changed after it was written: make the snapshot again.")
    return snapshot


def snapshot_rows(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    """The rows of a snapshot, one dict of `SCHEMA` each, in a stream."""
    with pyarrow.parquet.ParquetFile(snapshot.file) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            yield from batch.to_pylist()


def _write(service: PreferenceService, folder: Path) -> Snapshot:
    partial = folder / ".snapshot.parquet.partial"
    digest = hashlib.sha256()
    people: Counter[str] = Counter()
    simulated: Counter[str] = Counter()
    try:
        with pyarrow.parquet.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            rows: list[dict[str, Any]] = []
            for record in service.judgements():
                rows.append(_row(record))
                digest.update(_canonical(record).encode())
                (simulated if record.simulated else people)[record.annotator] += 1
                if len(rows) == ROWS_AT_ONCE:
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA))
                    rows.clear()
            if rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA))
        if not people and not simulated:
            raise UserError(f"project {service.project!r} has no judgements yet: collect or import some first.")
        snapshot = Snapshot(
            hash=digest.hexdigest()[:32],
            folder=folder,
            judgements=people.total() + simulated.total(),
            people=people.total(),
            simulated_judgements=simulated.total(),
            annotators=dict(sorted((people + simulated).items())),
            file_sha256=_sha256(partial),
        )
        os.replace(partial, snapshot.file)
    finally:
        partial.unlink(missing_ok=True)
    facts = {name: value for name, value in asdict(snapshot).items() if name != "folder"}
    (folder / MANIFEST).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return snapshot


def _row(record: JudgementRecord) -> dict[str, Any]:
    return {
        "judgement_id": record.judgement_id,
        "task_id": record.task_id,
        "prompt": record.prompt,
        "responses": [{**response._asdict(), "meta": _json(response.meta)} for response in record.responses],
        "ranks": [record.ranking[response.response_id] for response in record.responses],
        "shown_order": list(record.shown_order),
        "annotator": record.annotator,
        "simulated": record.simulated,
        "annotator_settings": _json(record.annotator_settings),
        "judged_at": record.judged_at,
        "seconds": record.seconds,
        "strength": record.strength,
        "scores": None if record.scores is None else _json(record.scores),
        "reason": record.reason,
        "edited": record.edited,
        "flags": list(record.flags),
        "supersedes": record.supersedes,
        "origin": record.origin,
        "meta": _json(record.meta),
        "purpose": record.purpose,
        "gaps": list(record.gaps),
        "guideline": record.guideline,
        "random_sample": record.random_sample,
    }


def _canonical(record: JudgementRecord) -> str:
    row = _row(record)
    # Columns that came later are left out where they say nothing, so that older snapshots keep their names.
    later: dict[str, Any] = {"purpose": WORK, "gaps": [], "guideline": None, "random_sample": None}
    return _json({name: value for name, value in row.items() if name not in later or value != later[name]}) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
