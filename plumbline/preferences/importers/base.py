"""What every importer has in common: from a row of a file to a judgement of the store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from plumbline.conversations import Conversation, conversation_fault
from plumbline.preferences.records import WORK, NewJudgement, NewResponse, NewTask
from plumbline.preferences.validation import MAX_NAME, digest, note_fault, response_key, task_fault, task_key


class RowFault(ValueError):
    """A row cannot be used; the message says why."""


@dataclass(frozen=True)
class Judged:
    """One judgement as a file has it.

    Attributes:
        responses: the texts, or whole `NewResponse`s where the file says who wrote them.
        ranks: one for each response, 1 is best.
        annotator: the annotator's name in the file; None where it names nobody.
        names_whole: `annotator` is a full name of a store, not to be marked with the file's format.
        response_scores: what was said of each response; stored as `scores` by response id.
        identity: what tells this judgement from others with the same contents (an id, a time).
    """

    prompt: Conversation
    responses: Sequence[str | NewResponse]
    ranks: Sequence[int]
    annotator: str | None = None
    names_whole: bool = False
    identity: tuple[Any, ...] = ()
    judgement_id: str | None = None
    simulated: bool = False
    annotator_settings: dict[str, Any] = field(default_factory=dict)
    judged_at: datetime | None = None
    seconds: float | None = None
    shown_order: tuple[int, ...] | None = None
    strength: float | None = None
    scores: dict[str, Any] | None = None
    response_scores: Sequence[dict[str, Any]] | None = None
    reason: str | None = None
    edited: str | None = None
    flags: tuple[str, ...] = ()
    purpose: str = WORK
    gaps: tuple[int, ...] = ()
    guideline: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)


class Importer(Protocol):
    """A module that reads one format."""

    FORMAT: str

    def detect(self, row: dict[str, Any]) -> bool:
        """Whether a row has this format."""

    def judgements(self, row: dict[str, Any]) -> Iterable[Judged]:
        """The judgements in a row.

        Raises:
            RowFault: the row cannot be used.
        """


def as_new_judgement(judged: Judged, format: str, project: str) -> NewJudgement:
    """A file's judgement as the store takes it; its key is made of all that it says.

    Raises:
        RowFault: prompt or responses cannot be stored, or the annotator's name cannot.
    """
    origin = f"import:{format}"
    responses = [one if isinstance(one, NewResponse) else NewResponse(one, origin) for one in judged.responses]
    task = NewTask(prompt=judged.prompt, responses=responses, project=project, meta=judged.meta, origin=origin)
    fault = task_fault(task) or note_fault(judged.reason) or note_fault(judged.edited)
    if fault:
        raise RowFault(fault)
    texts = [response.text for response in responses]
    said = json.dumps([judged.prompt, sorted(zip(texts, judged.ranks, strict=True)), judged.annotator])
    return NewJudgement(
        task=task,
        ranks=tuple(judged.ranks),
        annotator=annotator_of(judged, format),
        key=digest(format, said, json.dumps(judged.identity, default=str)),
        key_names=judged.annotator is not None and not judged.simulated,
        judgement_id=judged.judgement_id,
        simulated=judged.simulated,
        annotator_settings=judged.annotator_settings,
        judged_at=judged.judged_at,
        seconds=judged.seconds,
        shown_order=judged.shown_order,
        strength=judged.strength,
        scores=judged.scores if judged.response_scores is None else _scores_by_id(judged, texts),
        reason=judged.reason,
        edited=judged.edited,
        flags=judged.flags,
        purpose=judged.purpose,
        gaps=judged.gaps,
        guideline=judged.guideline,
    )


def annotator_of(judged: Judged, format: str) -> str:
    """The name that the store has for who judged.

    Raises:
        RowFault: it cannot be stored.
    """
    if judged.annotator is None:
        return f"import:{format}"
    name = " ".join(judged.annotator.split())
    if not name or not name.isprintable() or len(name) > MAX_NAME - len(format) - 1:
        raise RowFault(f"the annotator's name {judged.annotator!r} cannot be stored")
    return name if judged.names_whole else f"{format}:{name}"


def text_of(row: dict[str, Any], name: str) -> str:
    """A field that must be text."""
    value = row.get(name)
    if not isinstance(value, str):
        found = "missing" if name not in row else f"{json.dumps(value, default=str)[:40]}, expected text"
        raise RowFault(f"`{name}` is {found}")
    return value


def optional_text(row: dict[str, Any], name: str) -> str | None:
    """A field that is text, or is not there."""
    return None if row.get(name) is None else text_of(row, name)


def optional_number(row: dict[str, Any], name: str) -> float | None:
    """A field that is a finite number, or is not there."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise RowFault(f"`{name}` is {json.dumps(value, default=str)[:40]}, expected a number")
    return float(value)


def optional_object(row: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A field that is an object with named values, or is not there."""
    value = row.get(name)
    if value is not None and not isinstance(value, dict):
        raise RowFault(f"`{name}` is {type(value).__name__}, expected an object")
    return value


def conversation_of(value: Any, name: str, *, ends_with: str) -> Conversation:
    """A field that is a conversation, with roles in order and nothing but roles and contents."""
    fault = conversation_fault(value, must_end_with=ends_with)
    if fault:
        raise RowFault(f"`{name}`: {fault}")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def split_common_prompt(chosen: Conversation, rejected: Conversation) -> tuple[Conversation, str, str]:
    """The shared prompt of two conversations that differ in their last message, and the two last messages."""
    if chosen[:-1] != rejected[:-1]:
        raise RowFault("chosen and rejected have different prompts: they may differ in the last message only")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def _scores_by_id(judged: Judged, texts: Sequence[str]) -> dict[str, Any]:
    task = task_key(judged.prompt, texts)
    return {response_key(task, text): said for text, said in zip(texts, judged.response_scores or (), strict=True)}
