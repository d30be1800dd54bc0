"""Which models learned from somebody's judgements, and which files of the run folders hold their name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from plumbline.errors import UserError
from plumbline.lineage import Node, lineage_of
from plumbline.preferences.erasure import Erased
from plumbline.preferences.snapshot import MANIFEST
from plumbline.runs import MANIFEST as STAGE_MANIFEST
from plumbline.runs import Manifest

TEXT_FILES = {".csv", ".json", ".jsonl", ".md", ".html", ".log", ".txt", ".yaml", ".yml"}
LARGEST_TEXT = 32 * 1024 * 1024


@dataclass(frozen=True)
class Trained:
    """A model that was made from a snapshot with their judgements, itself or through another model.

    Attributes:
        judgements: how many of the snapshot's judgements are theirs.
    """

    run: str
    stage: str
    folder: str
    hash: str
    snapshot: str
    judgements: int


@dataclass(frozen=True)
class Traces:
    """What is left of somebody in a folder of runs.

    Attributes:
        snapshots: Parquet files with their judgements, and how many.
        models: what was trained on these.
        files: other files that hold the name.
    """

    snapshots: dict[str, int] = field(default_factory=dict)
    models: list[Trained] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def traces_of(erased: Erased, runs: Path) -> Traces:
    """Look through all runs for snapshots with these judgements, models made from them, and files with the name."""
    traces = Traces()
    for file in sorted(runs.glob("*/*/*.parquet")):
        if (file.parent / MANIFEST).is_file() and (theirs := _count(file, erased.answer_ids)):
            traces.snapshots[str(file)] = theirs
    places = {str(Path(file).resolve()): file for file in traces.snapshots}
    for folder in sorted(path.parent for path in runs.glob(f"*/*/{STAGE_MANIFEST}")):
        if (model := _trained(folder, places, traces.snapshots)) is not None:
            traces.models.append(model)
    traces.files.extend(str(file) for file in _texts_with(erased.name, runs))
    return traces


def rewrite_snapshots(traces: Traces, erased: Erased) -> list[str]:
    """Erase somebody from the snapshots, as they were erased from the store; returns the files that were rewritten.

    The file keeps its name, which names the judgements that models were trained on. Removed judgements are dropped.
    `traces.files` is left with the files that hold the name still.
    """
    for name in traces.snapshots:
        _rewrite(Path(name), erased)
    traces.files[:] = [file for file in traces.files if _names(Path(file), erased.name)]
    return list(traces.snapshots)


def _count(file: Path, answer_ids: Collection[str]) -> int:
    with pyarrow.parquet.ParquetFile(file) as parquet:
        batches = parquet.iter_batches(columns=["judgement_id"])
        return sum(one in answer_ids for batch in batches for one in batch.column(0).to_pylist())


def _trained(folder: Path, places: dict[str, str], snapshots: dict[str, int]) -> Trained | None:
    try:
        manifest = Manifest.read(folder)
        if manifest is None or manifest.model is None:
            return None
        node = lineage_of(folder)
    except UserError:  # damaged, or of a newer plumbline: not for us to tell
        return None
    for source in _snapshots_of(node):
        name = places.get(str(Path(source).resolve()))
        if name:
            run = folder.parent.name
            return Trained(run, manifest.stage, str(folder), manifest.output_hash, name, snapshots[name])
    return None


def _snapshots_of(node: Node) -> Iterator[str]:
    for one in node.walk():
        if "snapshot" in one.facts:
            yield one.facts["snapshot"]


def _texts_with(name: str, runs: Path) -> Iterator[Path]:
    for file in sorted(runs.rglob("*")):
        if file.suffix in TEXT_FILES and file.is_file() and file.stat().st_size <= LARGEST_TEXT and _names(file, name):
            yield file


def _names(file: Path, name: str) -> bool:
    text = file.read_text(encoding="utf-8", errors="replace")
    return name in text or json.dumps(name)[1:-1] in text


def _rewrite(file: Path, erased: Erased) -> None:
    partial = file.with_name(f".{file.name}.partial")
    theirs = pyarrow.array(sorted(erased.answer_ids), pyarrow.string())
    rows = 0
    try:
        with (
            pyarrow.parquet.ParquetFile(file) as source,
            pyarrow.parquet.ParquetWriter(partial, source.schema_arrow, compression="zstd") as writer,
        ):
            for batch in source.iter_batches(batch_size=1000):
                table = _without(pyarrow.Table.from_batches([batch]), theirs, erased)
                rows += table.num_rows
                writer.write_table(table)
        _rewrite_facts(file.parent / MANIFEST, partial, rows, erased)
        _rewrite_manifest(file.parent / STAGE_MANIFEST, erased)
        os.replace(partial, file)  # last: as long as the file has their judgements, a rerun finds all of it
    finally:
        partial.unlink(missing_ok=True)


def _rewrite_facts(path: Path, parquet: Path, rows: int, erased: Erased) -> None:
    facts = json.loads(path.read_text(encoding="utf-8"))
    _rename_count(facts["annotators"], erased)
    if erased.removed:
        facts["annotators"].pop(erased.pseudonym, None)
    facts["people"] -= facts["judgements"] - rows
    facts["judgements"] = rows
    with parquet.open("rb") as raw:
        facts["file_sha256"] = hashlib.file_digest(raw, "sha256").hexdigest()
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without(table: pyarrow.Table, theirs: pyarrow.Array, erased: Erased) -> pyarrow.Table:
    mine = pyarrow.compute.is_in(table["judgement_id"], value_set=theirs)
    if erased.removed:
        return table.filter(pyarrow.compute.invert(mine))
    values = {"annotator": erased.pseudonym, **({"reason": None, "edited": None} if erased.texts_removed else {})}
    for name, value in values.items():
        new = pyarrow.compute.if_else(mine, pyarrow.scalar(value, pyarrow.string()), table[name])
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), new)
    return table


def _rewrite_manifest(path: Path, erased: Erased) -> None:
    if not path.is_file():
        return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for reference in manifest.get("inputs", {}).values():
        _rename_count(reference.get("facts", {}).get("by_annotator", {}), erased)
    path.write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _rename_count(counts: dict[str, int], erased: Erased) -> None:
    if erased.name in counts:
        counts[erased.pseudonym] = counts.pop(erased.name)
