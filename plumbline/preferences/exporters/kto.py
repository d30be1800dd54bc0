"""TRL's unpaired preference format, for KTO: prompt, completion, and whether it is desirable (`label`).

Of each judgement, the responses of the best rank are desirable and those of the worst rank are not; what lies between
says neither and is left out. Where all were flagged as bad (`all-bad`), none is desirable; where all are tied without
that flag, nothing is said of them. An improved response is desirable; as it was not shown, it has no position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import origin_of, position_of, said, written_once
from plumbline.preferences.pairs import improved_by
from plumbline.preferences.records import ALL_BAD, JudgementRecord

FORMAT = "kto"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """The best and the worst responses of each judgement, and the improved one."""
    prompt = written_once(records[0].prompt)
    completions = [written_once(said(response.text)) for response in records[0].responses]
    texts = [response.text for response in records[0].responses]
    for record in records:
        ranks = list(record.ranking.values())
        labels = labels_of(ranks, all_bad=ALL_BAD in record.flags)
        labelled = [
            (completions[index], label, position_of(record, record.responses[index].response_id))
            for index, label in enumerate(labels)
            if label is not None
        ]
        if record.edited and record.edited.strip() and improved_by(record.edited, texts, ranks):
            labelled.append((said(record.edited), True, None))
        origin = origin_of(record, split, 1 / len(labelled)) if labelled else {}
        for completion, label, position in labelled:
            yield {"prompt": prompt, "completion": completion, "label": label, "position": position, **origin}


def labels_of(ranks: Sequence[int], *, all_bad: bool) -> list[bool | None]:
    """Whether each response is desirable; None where the judgement does not say."""
    best, worst = min(ranks), max(ranks)
    if all_bad:
        return [False] * len(ranks)
    if best == worst:
        return [None] * len(ranks)
    return [True if rank == best else False if rank == worst else None for rank in ranks]
