"""Whole judgements, one a row, with all that was said; `plumbline import` takes them back as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import origin_of, position_of, written_once
from plumbline.preferences.records import JudgementRecord

FORMAT = "rankings"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """One row a judgement; each response carries its rank (1 is best, equal ranks are ties) and where it was shown."""
    prompt = written_once(records[0].prompt)
    common = [response._asdict() | {"text": written_once(response.text)} for response in records[0].responses]
    for record in records:
        yield {
            **origin_of(record, split, 1.0),
            "prompt": prompt,
            "responses": [
                {**response, "rank": rank, "shown_position": position_of(record, response["response_id"])}
                for response, rank in zip(common, record.ranking.values(), strict=True)
            ],
            "annotator_settings": record.annotator_settings,
            "judged_at": None if record.judged_at is None else record.judged_at.isoformat(),
            "seconds": record.seconds,
            "strength": record.strength,
            "gaps": list(record.gaps),
            "scores": record.scores,
            "reason": record.reason,
            "edited": record.edited,
            "flags": list(record.flags),
            "supersedes": record.supersedes,
            "origin": record.origin,
            "meta": record.meta,
        }
