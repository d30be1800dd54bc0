"""TRL's preference format: a row for each pair of a ranking, ties left out, with margin, annotator and `simulated`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import origin_of, position_of
from plumbline.preferences.pairs import pairs_of
from plumbline.preferences.records import JudgementRecord

FORMAT = "trl"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """The pairs of each judgement."""
    responses = records[0].responses
    messages = [[{"role": "assistant", "content": response.text}] for response in responses]
    for record in records:
        pairs = list(pairs_of(list(record.ranking.values()), record.strength, record.gaps))
        positions = [position_of(record, response.response_id) for response in responses]
        origin = origin_of(record, split, 1 / len(pairs)) if pairs else {}
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
