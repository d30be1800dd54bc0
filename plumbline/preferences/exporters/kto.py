"""TRL's unpaired preference format, for KTO: prompt, completion, and whether it is desirable (`label`).

Of each judgement, the responses of the best rank are desirable and those of the worst rank are not; what lies between
says neither and is left out. Where all were flagged as bad (`all-bad`), none is desirable; where all are tied without
that flag, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import origin_of, position_of, said, written_once
from plumbline.preferences.records import ALL_BAD, JudgementRecord

FORMAT = "kto"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """The best and the worst responses of each judgement."""
    prompt = written_once(records[0].prompt)
    completions = [written_once(said(response.text)) for response in records[0].responses]
    for record in records:
        labels = labels_of(list(record.ranking.values()), all_bad=ALL_BAD in record.flags)
        labelled = [index for index, label in enumerate(labels) if label is not None]
        for index in labelled:
            yield {
                "prompt": prompt,
                "completion": completions[index],
                "label": labels[index],
                "position": position_of(record, record.responses[index].response_id),
                **origin_of(record, split, 1 / len(labelled)),
            }


def labels_of(ranks: Sequence[int], *, all_bad: bool) -> list[bool | None]:
    """Whether each response is desirable; None where the judgement does not say."""
    best, worst = min(ranks), max(ranks)
    if all_bad:
        return [False] * len(ranks)
    if best == worst:
        return [None] * len(ranks)
    return [True if rank == best else False if rank == worst else None for rank in ranks]
