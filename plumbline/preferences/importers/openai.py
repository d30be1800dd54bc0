"""OpenAI's preference fine-tuning format: `input.messages`, `preferred_output` and `non_preferred_output`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plumbline.preferences.importers.base import Judged, RowFault, conversation_of

FORMAT = "openai"


def detect(row: dict[str, Any]) -> bool:
    """Whether the row has both outputs."""
    return {"input", "preferred_output", "non_preferred_output"} <= row.keys()


def judgements(row: dict[str, Any]) -> Iterator[Judged]:
    """One judgement: the preferred output before the other one."""
    asked = row.get("input")
    if not isinstance(asked, dict):
        raise RowFault("`input` is no object with `messages`")
    prompt = conversation_of(asked.get("messages"), "input.messages", ends_with="user")
    yield Judged(prompt, [_output(row, "preferred_output"), _output(row, "non_preferred_output")], [1, 2])


def _output(row: dict[str, Any], name: str) -> str:
    messages = row.get(name)
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        raise RowFault(f"`{name}` is not a list of one message")
    if messages[0].get("role") != "assistant" or not isinstance(messages[0].get("content"), str):
        raise RowFault(f"`{name}` is no text of the assistant")
    return str(messages[0]["content"])
