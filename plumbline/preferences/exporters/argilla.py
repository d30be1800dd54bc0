"""Records for Argilla 2.8, one a task, with all its judgements as submitted responses.

The file is what `dataset.records.from_json` reads, and its rows what `rg.Record.from_dict` takes. The second file has
the dataset's settings, for `rg.Settings.from_json`. Argilla's rankings have a fixed number of options, all of which
must be ranked, so there is one optional question for each number of responses; `order` says the same in words for all.
Its users have ids: ours are made of the annotators' names (`user_id`), and a server takes only those that it knows.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import position_of
from plumbline.preferences.records import MAX_RESPONSES, MIN_RESPONSES, JudgementRecord

FORMAT = "argilla"
SUFFIX = "json"
COMPANION = "settings.json"

USERS = uuid.UUID("0a6a7f4e-6a0c-5a53-9d0a-6f2a7f0f3c11")  # any constant: the space of our users' ids
_ABOUT = json.JSONEncoder(ensure_ascii=False)
TEXTS = ("reason", "edited", "flags", "gaps", "scores")


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """One record of Argilla's."""
    first = records[0]
    fields = {f"response-{number}": response.text for number, response in enumerate(first.responses, 1)}
    responses: dict[str, list[dict[str, Any]]] = {}
    seen: Counter[str] = Counter()
    for record in records:
        seen[record.annotator] += 1
        user = user_id(record.annotator, seen[record.annotator])
        for question, value in _answers(record).items():
            responses.setdefault(question, []).append({"value": value, "user_id": user, "status": "submitted"})
    yield {
        "id": first.task_id,
        "fields": {"prompt": first.prompt, **fields},
        "metadata": {
            "split": split,
            "origin": first.origin,
            "sources": [response.source for response in first.responses],
            "judgements": len(records),
            "simulated": sum(record.simulated for record in records),
        },
        "suggestions": {},
        "responses": responses,
        "vectors": {},
    }


def companion() -> str:
    """The settings of a dataset for these records."""
    numbers = range(1, MAX_RESPONSES + 1)
    fields = [_property("prompt", True, {"type": "chat", "use_markdown": True})]
    fields += [
        _property(f"response-{number}", number <= MIN_RESPONSES, {"type": "text", "use_markdown": True})
        for number in numbers
    ]
    text = {"type": "text", "use_markdown": False}
    questions = [_property("order", True, text)]
    for size in range(MIN_RESPONSES, MAX_RESPONSES + 1):
        options = [{"value": f"response-{number}", "text": f"Response {number}"} for number in range(1, size + 1)]
        questions.append(_property(f"ranking-{size}", False, {"type": "ranking", "options": options}))
    questions += [_property(name, False, text) for name in (*TEXTS, "judgement")]
    settings = {"guidelines": None, "allow_extra_metadata": True, "fields": fields, "questions": questions}
    return json.dumps({**settings, "vectors": [], "metadata": []}, indent=2) + "\n"


@lru_cache(maxsize=4096)
def user_id(annotator: str, time: int = 1) -> str:
    """The id of an annotator as Argilla's user; who judged a task several times is several users there."""
    return str(uuid.uuid5(USERS, annotator if time == 1 else f"{annotator}\n{time}"))


def in_words(ranks: dict[str, int]) -> str:
    """Ranks by name as one line: `response-2 > response-1 = response-3`."""
    by_rank: dict[int, list[str]] = {}
    for name, rank in ranks.items():
        by_rank.setdefault(rank, []).append(name)
    return " > ".join(" = ".join(by_rank[rank]) for rank in sorted(by_rank))


def _answers(record: JudgementRecord) -> dict[str, Any]:
    names = [f"response-{number}" for number in range(1, len(record.responses) + 1)]
    ranks = dict(zip(names, record.ranking.values(), strict=True))
    shown = [position_of(record, response.response_id) for response in record.responses]
    about = {
        "judgement_id": record.judgement_id,
        "annotator": record.annotator,
        "simulated": record.simulated,
        "purpose": record.purpose,
        "guideline": record.guideline,
        "seconds": record.seconds,
        "shown": shown if record.shown_order else None,
        "strength": record.strength,
    }
    texts = {
        "reason": record.reason,
        "edited": record.edited,
        "flags": ", ".join(record.flags),
        "gaps": ", ".join(map(str, record.gaps)),
        "scores": json.dumps(record.scores, sort_keys=True, ensure_ascii=False) if record.scores else None,
    }
    return {
        "order": in_words(ranks),
        f"ranking-{len(names)}": [{"value": name, "rank": rank} for name, rank in ranks.items()],
        **{name: text for name, text in texts.items() if text},
        "judgement": _ABOUT.encode(about),
    }


def _property(name: str, required: bool, settings: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "title": name, "description": None, "required": required, "settings": settings}
