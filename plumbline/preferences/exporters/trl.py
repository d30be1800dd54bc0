"""TRL's preference format: a row for each pair of a ranking, ties left out, with margin, annotator and `simulated`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plumbline.preferences.pairs import preference_rows
from plumbline.preferences.records import JudgementRecord

FORMAT = "trl"


def rows(record: JudgementRecord) -> Iterator[dict[str, Any]]:
    """The pairs of one judgement."""
    texts = [response.text for response in record.responses]
    ranks = [record.ranking[response.response_id] for response in record.responses]
    for pair in preference_rows(record.prompt, texts, ranks, record.strength, record.gaps, record.edited):
        yield pair | {
            "judgement_id": record.judgement_id,
            "annotator": record.annotator,
            "simulated": record.simulated,
        }
