"""The pairs of `dpo` as a table for spreadsheets.

A spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a line's end as a formula, and who wrote a
response may have meant it so: such cells begin with an apostrophe, which spreadsheets do not show. Nothing reads this
format back; for that there is `rankings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.conversations import Split
from plumbline.preferences.exporters import trl
from plumbline.preferences.exporters.base import as_text, origin_of
from plumbline.preferences.records import JudgementRecord

FORMAT = "csv"
SUFFIX = "csv"

FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")


def rows(records: Sequence[JudgementRecord], split: Split) -> Iterator[dict[str, Any]]:
    """The pairs of each judgement, their texts made harmless."""
    texts = [response.text for response in records[0].responses]
    prompt = harmless(as_text(records[0].prompt))
    return trl.pair_rows(records, split, prompt, [harmless(text) for text in texts], harmless, _origin_of)


def _origin_of(record: JudgementRecord, split: Split, weight: float) -> dict[str, Any]:
    origin = origin_of(record, split, weight)
    return {name: harmless(value) if isinstance(value, str) else value for name, value in origin.items()}


def harmless(text: str) -> str:
    """The text, with an apostrophe before it where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
