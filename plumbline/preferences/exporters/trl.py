"""TRL's preference format: a row for each pair of a ranking, ties left out, with margin, annotator and `simulated`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import origin_of, position_of, said, written_once
from plumbline.preferences.pairs import EDIT_MARGIN, Pair, improved_by, pairs_of
from plumbline.preferences.records import JudgementRecord

FORMAT = "trl"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """The pairs of each judgement; an improved response over the best one is among them (see `pairs.EDIT_MARGIN`)."""
    messages = [written_once(said(response.text)) for response in records[0].responses]
    return pair_rows(records, split, written_once(records[0].prompt), messages, said)


def pair_rows(
    records: Sequence[JudgementRecord],
    split: Split,
    prompt: Any,
    shown: Sequence[Any],
    as_shown: Callable[[str], Any],
    origin_of: Callable[[JudgementRecord, Split, float], dict[str, Any]] = origin_of,
) -> Iterator[dict[str, Any]]:
    """The pairs of each judgement of a task.

    Args:
        prompt, shown: the prompt and the responses, as the rows are to have them.
        as_shown: makes the same of an improved response's text.
        origin_of: gives what all rows of a judgement have.
    """
    responses = records[0].responses
    for record in records:
        ranks = tuple(record.ranking.values())
        places = [position_of(record, response.response_id) for response in responses]
        pairs = [
            (shown[chosen], shown[rejected], margin, places[chosen], places[rejected])
            for chosen, rejected, margin in _pairs(ranks, record.strength, record.gaps)
        ]
        if record.edited:
            edited = as_shown(record.edited)
            improved = improved_by(record.edited, [response.text for response in responses], ranks)
            pairs += [(edited, shown[one], EDIT_MARGIN, None, places[one]) for one in improved]
        origin = origin_of(record, split, 1 / len(pairs)) if pairs else {}
        for chosen, rejected, margin, chosen_place, rejected_place in pairs:
            yield {
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "margin": margin,
                "chosen_position": chosen_place,
                "rejected_position": rejected_place,
                **origin,
            }


@lru_cache(maxsize=4096)
def _pairs(ranks: tuple[int, ...], strength: float | None, gaps: tuple[int, ...]) -> tuple[Pair, ...]:
    return tuple(pairs_of(ranks, strength, gaps))
