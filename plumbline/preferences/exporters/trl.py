"""TRL's preference format: a row for each pair of a ranking, ties left out, with margin, annotator and `simulated`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import origin_of, position_of
from plumbline.preferences.pairs import EDIT_MARGIN, improved_by, pairs_of
from plumbline.preferences.records import JudgementRecord

FORMAT = "trl"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """The pairs of each judgement."""
    responses = records[0].responses
    messages = [[{"role": "assistant", "content": response.text}] for response in responses]
    for record in records:
        ranks = list(record.ranking.values())
        pairs = list(pairs_of(ranks, record.strength, record.gaps))
        improved = improved_by(record.edited, [response.text for response in responses], ranks)
        positions = [position_of(record, response.response_id) for response in responses]
        origin = origin_of(record, split, 1 / (len(pairs) + len(improved))) if pairs or improved else {}
        for chosen, rejected, margin in pairs:
            yield {
                "prompt": record.prompt,
                "chosen": messages[chosen],
                "rejected": messages[rejected],
                "margin": margin,
                "chosen_position": positions[chosen],
                "rejected_position": positions[rejected],
                **origin,
            }
        for rejected in improved:
            yield {
                "prompt": record.prompt,
                "chosen": [{"role": "assistant", "content": record.edited}],
                "rejected": messages[rejected],
                "margin": EDIT_MARGIN,
                "chosen_position": None,
                "rejected_position": positions[rejected],
                **origin,
            }
