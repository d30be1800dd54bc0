"""The flags that stand, one a row, with the task that each is of: for whoever leads the annotation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plumbline.preferences.records import FlagRecord

FORMAT = "flags"


def rows(record: FlagRecord) -> Iterator[dict[str, Any]]:
    """One row: what is wrong, who says so, and the whole task."""
    yield {
        "kind": record.kind,
        "note": record.note,
        "annotator": record.annotator,
        "simulated": record.simulated,
        "flagged_at": record.flagged_at.isoformat(),
        "task_id": record.task_id,
        "prompt": record.prompt,
        "responses": [response._asdict() for response in record.responses],
    }
