"""What every exporter has in common.

Each row names its task, judgement and annotator, and has the `split` of its prompt, so that all rows of a prompt can be
kept in one part of the data. `weight` is such that every judgement weighs 1 in all, however many rows it becomes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import orjson

from plumbline.conversations import Conversation, Split
from plumbline.preferences.records import JudgementRecord


class Exporter(Protocol):
    """A module that writes one format."""

    FORMAT: str
    SUFFIX: str
    """`jsonl`, `json` (one array) or `csv`."""

    # A format that needs a second file, which says how the other tool is to be set up, also has `COMPANION`, what that
    # file's name ends with, and `companion()`, its text; it is the same for all data.

    def rows(self, records: Sequence[Any], split: Split) -> Iterable[dict[str, Any]]:
        """The rows of one task: of its `JudgementRecord`s (of the format `flags`: of one `FlagRecord`)."""


def origin_of(record: JudgementRecord, split: Split, weight: float) -> dict[str, Any]:
    """Where a row comes from."""
    sampled = {} if record.random_sample is None else {"random_sample": record.random_sample}
    return {
        "task_id": record.task_id,
        "judgement_id": record.judgement_id,
        "annotator": record.annotator,
        "simulated": record.simulated,
        "purpose": record.purpose,
        "guideline": record.guideline,
        "split": split,
        "weight": weight,
        **sampled,
    }


def position_of(record: JudgementRecord, response_id: str) -> int | None:
    """Where a response was shown, from 0; None where that is not known."""
    return record.shown_order.index(response_id) if record.shown_order else None


def written_once(value: Any) -> Any:
    """A text, or messages, as JSON that is made once and copied into every row of a task that has it."""
    try:
        return orjson.Fragment(orjson.dumps(value))
    except TypeError:  # half of a surrogate pair: see `stream.as_json`
        return value


def said(text: str) -> list[dict[str, str]]:
    """A response as TRL's formats have it: one message."""
    return [{"role": "assistant", "content": text}]


def as_text(prompt: Conversation) -> str:
    """A prompt as plain text: of a single user's message its content, else every message after its role."""
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
