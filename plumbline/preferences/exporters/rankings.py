"""Whole judgements, one a row, with all that was said; `plumbline import` takes them back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plumbline.preferences.records import JudgementRecord, ResponseRecord

FORMAT = "rankings"


def rows(record: JudgementRecord) -> Iterator[dict[str, Any]]:
    """One row; each response carries its rank (1 is best, equal ranks are ties) and where it was shown."""
    yield {
        "judgement_id": record.judgement_id,
        "task_id": record.task_id,
        "prompt": record.prompt,
        "responses": [_response(record, response) for response in record.responses],
        "annotator": record.annotator,
        "simulated": record.simulated,
        "annotator_settings": record.annotator_settings,
        "judged_at": None if record.judged_at is None else record.judged_at.isoformat(),
        "seconds": record.seconds,
        "strength": record.strength,
        "scores": record.scores,
        "reason": record.reason,
        "edited": record.edited,
        "flags": list(record.flags),
        "supersedes": record.supersedes,
        "origin": record.origin,
        "meta": record.meta,
        "purpose": record.purpose,
        "gaps": list(record.gaps),
        "guideline": record.guideline,
    }


def _response(record: JudgementRecord, response: ResponseRecord) -> dict[str, Any]:
    position = record.shown_order.index(response.response_id) if record.shown_order else None
    return {**response._asdict(), "rank": record.ranking[response.response_id], "shown_position": position}
