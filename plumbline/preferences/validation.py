"""What the store accepts: tasks, rankings and names; and the keys that are computed from contents."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from plumbline.conversations import Conversation, conversation_fault
from plumbline.errors import StoreError, counted
from plumbline.preferences.records import MAX_GAP, MAX_RESPONSES, MIN_RESPONSES, NewTask, Ranking
from plumbline.recipe_annotate import RubricAxis

MAX_NAME = 100
MAX_EDITED = 100_000
"""Characters of an improved response."""


def digest(*parts: str) -> str:
    """A 32-character key of several texts; the parts cannot run into each other."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()[:32]


def task_key(prompt: Conversation, texts: Sequence[str]) -> str:
    """A task's id: the same prompt with the same responses, in any order, is the same task."""
    return digest(*(part for message in prompt for part in (message["role"], message["content"])), "", *sorted(texts))


def response_key(task: str, text: str) -> str:
    """A response's id: unlike its place in a list, it tells an annotator nothing about where it comes from."""
    return digest(task, text)[:16]


def text_fault(text: object) -> str | None:
    """Say why a text cannot be stored, or return None."""
    if not isinstance(text, str):
        return f"is {type(text).__name__}, expected text"
    if not text.strip():
        return "is empty"
    return note_fault(text)


def note_fault(text: str | None) -> str | None:
    """Say why a text that may be empty or missing cannot be stored, or return None."""
    if text and "\x00" in text:
        return "contains a NUL character"
    if text and not _encodable(text):
        return "contains half of a surrogate pair, which is no valid Unicode text"
    return None


def task_fault(task: NewTask) -> str | None:
    """Say why a task cannot be stored, or return None."""
    fault = conversation_fault(task.prompt, must_end_with="user")
    if fault:
        return f"prompt: {fault}"
    for message in task.prompt:
        fault = text_fault(message["content"])
        if fault:
            return f"prompt: the {message['role']}'s content {fault}"
    if not MIN_RESPONSES <= len(task.responses) <= MAX_RESPONSES:
        return f"{counted(len(task.responses), 'response')}; a task has {MIN_RESPONSES} to {MAX_RESPONSES}"
    for number, response in enumerate(task.responses, 1):
        fault = text_fault(response.text)
        if fault:
            return f"response {number} {fault}"
    if len({response.text.strip() for response in task.responses}) < len(task.responses):
        return "two responses are identical, so there is nothing to prefer"
    return None


def dense_ranks(ranks: Sequence[int]) -> tuple[int, ...]:
    """Ranks without gaps, in the same order: (1, 1, 3) becomes (1, 1, 2)."""
    order = {rank: number for number, rank in enumerate(sorted(set(ranks)), 1)}
    return tuple(order[rank] for rank in ranks)


def checked_ranks(ranking: Mapping[str, int], response_ids: Sequence[str]) -> tuple[int, ...]:
    """Dense ranks in the order of `response_ids`.

    Raises:
        StoreError: a response is missing, unknown, or its rank is no whole number from 1.
    """
    unknown = [name for name in ranking if name not in response_ids]
    if unknown:
        raise StoreError(f"the ranking names {unknown[0]!r}, which is no response of this task: load the task again.")
    missing = len(response_ids) - len(ranking)
    if missing:
        raise StoreError(
            f"{counted(missing, 'response')} of {len(response_ids)} without a rank: rank every one (ties are fine)."
        )
    wrong = [rank for rank in ranking.values() if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1]
    if wrong:
        raise StoreError(f"{wrong[0]!r} is no rank: ranks are whole numbers, 1 is best.")
    return dense_ranks([ranking[name] for name in response_ids])


def check_gaps(gaps: Sequence[int], ranks: Sequence[int]) -> None:
    """Refuse grades of preference that do not fit the ranks; no grades at all always fit.

    Raises:
        StoreError: there is not one for each step from a rank to the next, or one is no whole number from 1 to 4.
    """
    steps = max(ranks) - 1
    if gaps and len(gaps) != steps:
        raise StoreError(f"{counted(len(gaps), 'grade')} of preference for {counted(steps, 'step')} between ranks.")
    for gap in gaps:
        if isinstance(gap, bool) or not isinstance(gap, int) or not 1 <= gap <= MAX_GAP:
            raise StoreError(f"{gap!r} is no grade of preference: it is a whole number from 1 to {MAX_GAP}.")


def check_scores(scores: Mapping[str, Any] | None, axes: Sequence[RubricAxis], response_ids: Sequence[str]) -> None:
    """Refuse scores that are not of the rubric: `{axis: {response id: level}}`, on each axis all responses or none.

    Raises:
        StoreError: an unknown axis, a missing or unknown response, or a level that the axis does not have.
    """
    levels = {axis.name: axis.levels for axis in axes}
    for axis, given in (scores or {}).items():
        if axis not in levels:
            raise StoreError(f"{axis!r} is no axis of this project's rubric: load the task again.")
        if not isinstance(given, Mapping) or set(given) != set(response_ids):
            raise StoreError(f"the scores for {axis!r} are not complete: score every response, or none.")
        for level in given.values():
            if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= levels[axis]:
                raise StoreError(f"{level!r} is no score for {axis!r}: it is a whole number from 1 to {levels[axis]}.")


def check_edited(edited: str | None, ranks: Sequence[int], texts: Sequence[str]) -> None:
    """Refuse an improved response that improves nothing; none at all always fits.

    Raises:
        StoreError: it is empty, too long, or the same as one of the best responses.
    """
    if edited is None:
        return
    fault = text_fault(edited) or (f"has more than {MAX_EDITED} characters" if len(edited) > MAX_EDITED else None)
    if fault:
        raise StoreError(f"the improved response {fault}: mend it, or leave the response as it was.")
    best = [text.strip() for text, rank in zip(texts, ranks, strict=True) if rank == 1]
    if edited.strip() in best:
        raise StoreError("the improved response is the same as the best one: change it, or leave it as it was.")


def check_flags(flags: Sequence[str]) -> None:
    """Refuse flags that are no short words.

    Raises:
        StoreError: there are too many, or one is empty, too long or not printable.
    """
    wrong = [flag for flag in flags if not flag or len(flag) > MAX_NAME or not flag.isprintable()]
    if wrong or len(flags) > MAX_RESPONSES:
        raise StoreError(f"a flag is one to {MAX_NAME} printable characters, and there are at most {MAX_RESPONSES}.")


def as_ranking(response_ids: Sequence[str], ranks: Sequence[int]) -> Ranking:
    """Response ids with their ranks."""
    return dict(zip(response_ids, ranks, strict=True))


def checked_name(name: str, *, person: bool) -> str:
    """An annotator's name with white space folded.

    Raises:
        StoreError: empty, too long, not printable, or (for a person who signs in) with the `:` of imported names.
    """
    folded = re.sub(r"\s+", " ", name).strip()
    if not folded:
        raise StoreError("the name is empty: say who judges.")
    if len(folded) > MAX_NAME or not folded.isprintable() or not _encodable(folded):
        raise StoreError(f"a name has at most {MAX_NAME} printable characters: choose another one.")
    if person and ":" in folded:
        raise StoreError("a name cannot contain ':' (it marks annotators of imported files): choose another one.")
    return folded


def _encodable(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)
