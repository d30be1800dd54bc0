"""Responses that annotators improved, as TRL's prompt-completion format, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters.base import origin_of, said
from plumbline.preferences.records import JudgementRecord

FORMAT = "demonstrations"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """One row for each judgement with an edited response."""
    for record in records:
        if record.edited and record.edited.strip():
            yield {"prompt": record.prompt, "completion": said(record.edited), **origin_of(record, split, 1.0)}
