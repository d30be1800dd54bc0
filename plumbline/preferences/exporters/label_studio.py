"""Tasks with annotations for Label Studio 1.23, as one JSON array, and the labelling configuration beside it.

Ranks are buckets of its ranker, one for each rank, so that ties stay ties. `completed_by` is left out, because a
server takes only people whom it knows: the annotator is in the annotation's text result `judgement`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import as_text, position_of
from plumbline.preferences.records import MAX_RESPONSES, JudgementRecord

FORMAT = "label_studio"
SUFFIX = "json"
COMPANION = "config.xml"

_ABOUT = json.JSONEncoder(sort_keys=True, ensure_ascii=False)
_BUCKETS = "\n".join(f'    <Bucket name="{rank}" title="Rank {rank}" />' for rank in range(1, MAX_RESPONSES + 1))
_CONFIG = f"""<View>
  <Text name="prompt" value="$prompt" />
  <List name="responses" value="$responses" title="Responses" />
  <Ranker name="rank" toName="responses">
{_BUCKETS}
  </Ranker>
  <TextArea name="reason" toName="prompt" placeholder="Reason" />
  <TextArea name="edited" toName="prompt" placeholder="The best response, improved" />
  <TextArea name="flags" toName="prompt" placeholder="Flags" />
  <TextArea name="judgement" toName="prompt" placeholder="Who judged, and how" />
</View>
"""


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """One task of Label Studio's."""
    first = records[0]
    yield {
        "data": {
            "prompt": as_text(first.prompt),
            "responses": [
                {"id": response.response_id, "title": "", "body": response.text} for response in first.responses
            ],
            "task_id": first.task_id,
            "split": split,
        },
        "annotations": [_annotation(record) for record in records],
    }


def companion() -> str:
    """The labelling configuration for these tasks."""
    return _CONFIG


def _annotation(record: JudgementRecord) -> dict[str, Any]:
    buckets: dict[str, list[str]] = {}
    for response_id, rank in record.ranking.items():
        buckets.setdefault(str(rank), []).append(response_id)
    about = {
        "judgement_id": record.judgement_id,
        "annotator": record.annotator,
        "simulated": record.simulated,
        "purpose": record.purpose,
        "guideline": record.guideline,
        "shown": [position_of(record, response.response_id) for response in record.responses],
        "gaps": list(record.gaps),
        "strength": record.strength,
        "scores": record.scores,
    }
    texts: dict[str, list[str | None]] = {
        "reason": [record.reason],
        "edited": [record.edited],
        "flags": list(record.flags),
        "judgement": [_ABOUT.encode(about)],
    }
    result: list[dict[str, Any]] = [
        _result("rank", "responses", "ranker", {"ranker": dict(sorted(buckets.items()))}, record)
    ]
    for name, text in texts.items():
        if any(text):
            result.append(_result(name, "prompt", "textarea", {"text": text}, record))
    return {
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        **({} if record.seconds is None else {"lead_time": record.seconds}),
    }


def _result(name: str, to: str, kind: str, value: dict[str, Any], record: JudgementRecord) -> dict[str, Any]:
    identity = f"{record.judgement_id[:12]}-{name}"
    return {"id": identity, "from_name": name, "to_name": to, "type": kind, "value": value}
