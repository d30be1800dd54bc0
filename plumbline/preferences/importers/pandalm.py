"""PandaLM's test set: two responses to an instruction, each item judged by three annotators (1 or 2 wins, 0 is a tie).

A few responses of the original are the JSON value `true` instead of text; which text was shown is not known, so such
rows are set aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plumbline.preferences.importers.base import Judged, RowFault, text_of
from plumbline.preferences.records import NewResponse

FORMAT = "pandalm"

_RANKS = {0: (1, 1), 1: (1, 2), 2: (2, 1)}
_ANNOTATORS = ("annotator1", "annotator2", "annotator3")


def detect(row: dict[str, Any]) -> bool:
    """Whether the row has two responses and numbered annotators."""
    return {"instruction", "response1", "response2", "annotator1"} <= row.keys()


def judgements(row: dict[str, Any]) -> Iterator[Judged]:
    """One judgement for each annotator who answered."""
    prompt = "\n\n".join(part for part in (text_of(row, "instruction"), str(row.get("input") or "")) if part)
    names = str(row.get("cmp_key") or "").split("_")
    sources = names if len(names) == 2 else ["unknown", "unknown"]
    responses = [
        NewResponse(text_of(row, field), source)
        for field, source in zip(("response1", "response2"), sources, strict=True)
    ]
    answered = [name for name in _ANNOTATORS if row.get(name) is not None]
    if not answered:
        raise RowFault("no annotator answered")
    for name in answered:
        answer = row[name]
        if isinstance(answer, bool) or not isinstance(answer, int) or answer not in _RANKS:
            raise RowFault(f"`{name}` is {answer!r}, expected 0 (tie), 1 or 2")
        yield Judged(
            [{"role": "user", "content": prompt}],
            responses,
            _RANKS[answer],
            annotator=name,
            identity=(row.get("idx"), row.get("cmp_key")),
            meta={"idx": row.get("idx"), "topic": row.get("motivation_app")},
        )
