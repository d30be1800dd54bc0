"""The pairs of `trl` as plain texts: `prompt`, `chosen`, `rejected`; `base.as_text` says how several turns look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters import trl
from plumbline.preferences.exporters.base import as_text, written_once
from plumbline.preferences.records import JudgementRecord

FORMAT = "dpo"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """The pairs of each judgement."""
    texts = [written_once(response.text) for response in records[0].responses]
    return trl.pair_rows(records, split, written_once(as_text(records[0].prompt)), texts, str)
