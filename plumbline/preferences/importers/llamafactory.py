"""LLaMA-Factory's preference data in its three forms: `conversations` with a `chosen` and a `rejected` turn (ShareGPT),
`chosen_messages` and `rejected_messages` made of content parts (v1), and `instruction` with two texts (Alpaca)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plumbline.conversations import Conversation
from plumbline.preferences.importers.base import Judged, RowFault, conversation_of, split_common_prompt, text_of

FORMAT = "llamafactory"

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def detect(row: dict[str, Any]) -> bool:
    """Whether the row has one of the three forms."""
    return (
        {"conversations", "chosen", "rejected"} <= row.keys()
        or {"chosen_messages", "rejected_messages"} <= row.keys()
        or {"instruction", "chosen", "rejected"} <= row.keys()
    )


def judgements(row: dict[str, Any]) -> Iterator[Judged]:
    """One judgement: chosen is preferred to rejected."""
    if "chosen_messages" in row:
        prompt, better, worse = _of_parts(row)
    elif "conversations" in row:
        prompt, better, worse = _of_turns(row)
    else:
        prompt, better, worse = _of_instruction(row)
    yield Judged(prompt, [better, worse], [1, 2])


def _of_turns(row: dict[str, Any]) -> tuple[Conversation, str, str]:
    if not isinstance(row["conversations"], list):
        raise RowFault("`conversations` is not a list of turns")
    turns = [_turn(turn) for turn in row["conversations"]]
    prompt = conversation_of([*_system(row), *turns], "conversations", ends_with="user")
    better, worse = (_turn(row.get(name)) for name in ("chosen", "rejected"))
    if better["role"] != "assistant" or worse["role"] != "assistant":
        raise RowFault("chosen and rejected must be the assistant's turns")
    return prompt, better["content"], worse["content"]


def _of_parts(row: dict[str, Any]) -> tuple[Conversation, str, str]:
    chosen, rejected = (
        conversation_of([_joined(message) for message in _messages(row, name)], name, ends_with="assistant")
        for name in ("chosen_messages", "rejected_messages")
    )
    return split_common_prompt(chosen, rejected)


def _of_instruction(row: dict[str, Any]) -> tuple[Conversation, str, str]:
    said = [text_of(row, "instruction"), str(row.get("input") or "")]
    question = {"role": "user", "content": "\n".join(part for part in said if part)}
    exchanges = row.get("history") or []
    if not isinstance(exchanges, list) or not all(isinstance(exchange, list) for exchange in exchanges):
        raise RowFault("`history` is not a list of exchanges")
    history = [
        {"role": role, "content": text}
        for exchange in exchanges
        for role, text in zip(("user", "assistant"), exchange, strict=False)
    ]
    prompt = conversation_of([*_system(row), *history, question], "instruction", ends_with="user")
    return prompt, text_of(row, "chosen"), text_of(row, "rejected")


def _system(row: dict[str, Any]) -> Conversation:
    return [{"role": "system", "content": text_of(row, "system")}] if row.get("system") else []


def _turn(turn: Any) -> dict[str, str]:
    if not isinstance(turn, dict) or not {"from", "value"} <= turn.keys():
        raise RowFault("a turn is no object with `from` and `value`")
    speaker = text_of(turn, "from")
    if speaker not in _ROLES:
        raise RowFault(f"a turn is from {speaker!r}; turns of tools are not supported")
    return {"role": _ROLES[speaker], "content": text_of(turn, "value")}


def _messages(row: dict[str, Any], name: str) -> list[dict[str, Any]]:
    messages = row.get(name)
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RowFault(f"`{name}` is not a list of messages")
    return messages


def _joined(message: dict[str, Any]) -> dict[str, Any]:
    """A message with its content parts joined."""
    parts = message.get("content")
    if not isinstance(parts, list):
        return message
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
        raise RowFault("a message has parts that are not text")
    return {"role": message.get("role"), "content": "".join(text_of(part, "value") for part in parts)}
