"""The pairs of `trl` as plain texts: `prompt`, `chosen`, `rejected`; `base.as_text` says how several turns look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters import trl
from plumbline.preferences.exporters.base import as_text
from plumbline.preferences.records import JudgementRecord

FORMAT = "dpo"
SUFFIX = "jsonl"


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """The pairs of each judgement."""
    for pair in trl.rows(records, split):
        prompt = as_text(pair["prompt"])
        chosen, rejected = (pair[name][0]["content"] for name in ("chosen", "rejected"))
        yield {**pair, "prompt": prompt, "chosen": chosen, "rejected": rejected}
