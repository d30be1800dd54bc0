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
    """The pairs of each judgement; an improved response over the best one is among them (see `pairs.EDIT_MARGIN`)."""
    responses = records[0].responses
    messages = [[{"role": "assistant", "content": response.text}] for response in responses]
    for record in records:
        ranks = list(record.ranking.values())
        places = [position_of(record, response.response_id) for response in responses]
        pairs = [
            (messages[chosen], messages[rejected], margin, places[chosen], places[rejected])
            for chosen, rejected, margin in pairs_of(ranks, record.strength, record.gaps)
        ]
        if record.edited:
            edited = [{"role": "assistant", "content": record.edited}]
            improved = improved_by(record.edited, [response.text for response in responses], ranks)
            pairs += [(edited, messages[one], EDIT_MARGIN, None, places[one]) for one in improved]
        origin = origin_of(record, split, 1 / len(pairs)) if pairs else {}
        for chosen, rejected, margin, chosen_place, rejected_place in pairs:
            yield {
                "prompt": record.prompt,
                "chosen": chosen,
                "rejected": rejected,
                "margin": margin,
                "chosen_position": chosen_place,
                "rejected_position": rejected_place,
                **origin,
            }
