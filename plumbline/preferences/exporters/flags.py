"""The flags that stand, one a row, with the task that each is of: for whoever leads the annotation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.records import FlagRecord

FORMAT = "flags"
SUFFIX = "jsonl"


def rows(records: Sequence[FlagRecord], split: Split) -> Iterator[dict[str, Any]]:
    """One row a flag: what is wrong, who says so, and the whole task."""
    for record in records:
        yield {
            "kind": record.kind,
            "note": record.note,
            "annotator": record.annotator,
            "simulated": record.simulated,
            "flagged_at": record.flagged_at.isoformat(),
            "task_id": record.task_id,
            "split": split,
            "prompt": record.prompt,
            "responses": [response._asdict() for response in record.responses],
        }
