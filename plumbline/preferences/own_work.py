"""What annotators see of what they said before: their own current answers, without sources and purposes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, Select, select

from plumbline.conversations import Conversation
from plumbline.errors import StoreError
from plumbline.preferences.records import REPEAT, Card, GivenAnswer, OwnWork
from plumbline.preferences.source_names import SourceNames
from plumbline.preferences.tables import Answer, Guideline, Lease, Tally, Task, current
from plumbline.preferences.turn import Turn
from plumbline.preferences.validation import as_ranking


def own_answers(
    turn: Turn,
    annotator: int,
    *,
    limit: int,
    before: str | None,
    kinds: Collection[str],
    names: SourceNames | None,
    only: str | None = None,
) -> list[OwnWork]:
    """The annotator's current answers of these kinds that were given here, the newest first.

    Without those to a task that they are just asked again (a silent repeat): it would be no test of them.

    Args:
        before: only those older than this answer of theirs: the last one of the page before.
        names: to be masked in the responses.
        only: none but the answer with this id.

    Raises:
        StoreError: they gave no answer `before`.
    """
    query = answer_query(turn.project_id).where(
        Answer.annotator_id == annotator, Answer.lease_id.is_not(None), Answer.kind.in_(kinds), current()
    )
    query = query.where(Answer.task_id.not_in(asked_again(turn, annotator)))
    if only is not None:
        query = query.where(Answer.answer_id == only)
    if before is not None:
        query = query.where(Answer.id < own_answer(turn, annotator, before).id)
    rows = turn.connection.execute(query.order_by(Answer.id.desc()).limit(limit))
    return [
        OwnWork(row.key, row.prompt, cards_of(row.responses, row.shown_order, row.prompt, names), given_answer(row))
        for row in rows
    ]


def own_answer(turn: Turn, annotator: int, answer_id: str) -> Row[Any]:
    """An answer that the annotator gave here, current or not.

    Raises:
        StoreError: there is none, or it is somebody else's, or it was imported.
    """
    query = select(Answer.__table__).where(
        Answer.project_id == turn.project_id, Answer.answer_id == answer_id, Answer.annotator_id == annotator
    )
    row = turn.connection.execute(query.where(Answer.lease_id.is_not(None))).one_or_none()
    if row is None:
        raise StoreError("this is none of your answers: load the list again.")
    return row


def asked_again(turn: Turn, annotator: int) -> list[int]:
    """The task (row id) that the annotator is asked again just now without being told: a silent repeat.

    So it is while they hold the repeat, and while they have left it for something else and it follows again.
    """
    theirs = (Lease.project_id == turn.project_id) & (Lease.annotator_id == annotator)
    aside = select(Tally.aside).where(Tally.project_id == turn.project_id, Tally.annotator_id == annotator)
    held, left = theirs & (Lease.state == "open"), theirs & (Lease.id == aside.scalar_subquery())
    queries = (select(Lease.task_id).where(Lease.purpose == REPEAT, which) for which in (held, left))
    return [task for query in queries for task in turn.connection.execute(query).scalars()]


def answer_query(project_id: int) -> Select[Any]:
    """The query of a project's answers as their annotators may see them."""
    return (
        select(
            *(Answer.answer_id, Answer.kind, Answer.ranks, Answer.shown_order, Answer.judged_at, Answer.seconds),
            *(Answer.scores, Answer.reason, Answer.edited, Answer.flags, Answer.gaps),
            *(Guideline.version.label("guideline"), Task.key, Task.prompt, Task.responses),
        )
        .select_from(Answer)
        .join(Task, Task.id == Answer.task_id)
        .outerjoin(Guideline, Guideline.id == Answer.guideline_id)
        .where(Answer.project_id == project_id)
    )


def given_answer(row: Row[Any]) -> GivenAnswer:
    """A row of `answer_query` as a plain value."""
    ids = [response["id"] for response in row.responses]
    return GivenAnswer(
        answer_id=row.answer_id,
        kind=row.kind,
        ranking=as_ranking(ids, row.ranks) if row.ranks else {},
        gaps=tuple(row.gaps or ()),
        scores=row.scores or {},
        reason=row.reason,
        edited=row.edited,
        flags=tuple(row.flags or ()),
        seconds=row.seconds,
        judged_at=row.judged_at,
        guideline=row.guideline,
    )


def cards_of(
    responses: list[dict[str, Any]], shown_order: list[int], prompt: Conversation, names: SourceNames | None
) -> tuple[Card, ...]:
    """A task's responses as cards, in the order in which they are shown; no source is in them, and no name of one."""
    texts = [responses[index]["text"] for index in shown_order]
    shown = texts if names is None else [names.masked(text, prompt) for text in texts]
    ids = [responses[index]["id"] for index in shown_order]
    return tuple(Card(name, position, text) for position, (name, text) in enumerate(zip(ids, shown, strict=True)))
