r"""Anthropic's hh-rlhf: `chosen` and `rejected` are whole dialogues as one text, turns marked by `\n\nHuman:` and
`\n\nAssistant:`; they share all turns but the last. Nothing is known about the annotators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from plumbline.conversations import Conversation
from plumbline.preferences.importers.base import Judged, RowFault, conversation_of, split_common_prompt, text_of

FORMAT = "hh"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def detect(row: dict[str, Any]) -> bool:
    """Whether both dialogues begin with a person's turn."""
    return all(isinstance(row.get(name), str) and row[name].startswith("\n\nHuman:") for name in ("chosen", "rejected"))


def judgements(row: dict[str, Any]) -> Iterator[Judged]:
    """One judgement: the chosen last turn is preferred to the rejected one."""
    chosen, rejected = (
        conversation_of(parse_dialogue(text_of(row, name)), name, ends_with="assistant")
        for name in ("chosen", "rejected")
    )
    prompt, better, worse = split_common_prompt(chosen, rejected)
    yield Judged(prompt, [better, worse], [1, 2])


def parse_dialogue(text: str) -> Conversation:
    """The turns of a dialogue, with white space around them removed.

    Raises:
        RowFault: it does not begin with a turn's mark.
    """
    before, *rest = _TURN.split(text)
    if before.strip() or not rest:
        raise RowFault("the dialogue does not begin with '\\n\\nHuman:'")
    turns = zip(rest[::2], rest[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": content.strip()} for speaker, content in turns]
