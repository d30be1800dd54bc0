"""TRL's preference format: `prompt`, `chosen`, `rejected` as messages or as plain text; the prompt may be implicit in
what chosen and rejected have in common. `margin`, `annotator`, `simulated` and `judgement_id` are kept where present.

An implicit prompt of plain texts is their longest common beginning, cut back to a space, as TRL takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plumbline.conversations import Conversation
from plumbline.preferences.importers.base import (
    Judged,
    RowFault,
    conversation_of,
    optional_number,
    split_common_prompt,
    text_of,
)

FORMAT = "trl"


def detect(row: dict[str, Any]) -> bool:
    """Whether the row has chosen and rejected, as texts or as messages."""
    return all(isinstance(row.get(name), str | list) for name in ("chosen", "rejected"))


def judgements(row: dict[str, Any]) -> Iterator[Judged]:
    """One judgement: chosen is preferred to rejected."""
    prompt, better, worse = _parts(row)
    annotator = row.get("annotator")
    yield Judged(
        prompt,
        [better, worse],
        [1, 2],
        annotator=str(annotator) if annotator else None,
        identity=(row.get("judgement_id"),),
        simulated=bool(row.get("simulated")),
        strength=optional_number(row, "margin"),
    )


def _parts(row: dict[str, Any]) -> tuple[Conversation, str, str]:
    asked = row.get("prompt")
    if isinstance(row.get("chosen"), str):
        better, worse = text_of(row, "chosen"), text_of(row, "rejected")
        if asked is None:
            return _implicit(better, worse)
        prompt: Any = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        return conversation_of(prompt, "prompt", ends_with="user"), better, worse
    before = asked if isinstance(asked, list) else []
    if isinstance(asked, str):
        before = [{"role": "user", "content": asked}]
    chosen, rejected = (
        conversation_of([*before, *_messages(row, name)], name, ends_with="assistant")
        for name in ("chosen", "rejected")
    )
    return split_common_prompt(chosen, rejected)


def _messages(row: dict[str, Any], name: str) -> list[Any]:
    value = row.get(name)
    if not isinstance(value, list):
        raise RowFault(f"`{name}` is {type(value).__name__}, expected messages as in `chosen`")
    return value


def _implicit(chosen: str, rejected: str) -> tuple[Conversation, str, str]:
    same = next((end for end, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    common = chosen[: min(len(chosen), len(rejected)) if same is None else same]
    prompt = common[: common.rfind(" ") + 1]
    if not prompt.strip():
        raise RowFault("there is no `prompt`, and chosen and rejected have no common beginning")
    return [{"role": "user", "content": prompt.strip()}], chosen[len(prompt) :], rejected[len(prompt) :]
