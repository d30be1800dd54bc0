"""Silent repeats: an own earlier task again, in another order, to see how steady an annotator is.

A task is repeated at most once for each annotator, and only after they have answered at least `APART` others, so that
they do not simply remember what they clicked. No day must pass, because many projects are done in one. Which of the
earlier tasks comes is drawn, not the oldest, so that not all repeats are from somebody's first hour.
"""

from __future__ import annotations

from itertools import count as numbers
from typing import Any

from sqlalchemy import Row, Select, exists, func, select
from sqlalchemy.orm import aliased

from plumbline.preferences.queue import open_to, shown_order
from plumbline.preferences.records import JUDGEMENT, REPEAT, WORK
from plumbline.preferences.schedule import place
from plumbline.preferences.tables import Answer, Task, current
from plumbline.preferences.turn import Actor, Turn

APART = 10
"""Answers of the annotator between a task and its repeat, at least."""


def next_repeat(turn: Turn, actor: Actor, project: str, *, but: int | None = None) -> Row[Any] | None:
    """A task that the annotator judged before, with the order in which they saw it; None where none is far enough.

    The task `but`, by its row id, is passed over.
    """
    mine = (Answer.project_id == turn.project_id) & (Answer.annotator_id == actor.id)
    ids = select(Answer.id).where(mine).order_by(Answer.id.desc())
    last = turn.connection.execute(ids.offset(APART).limit(1)).scalar_one_or_none()
    if last is None:
        return None
    first = turn.connection.execute(select(func.min(Answer.id)).where(mine)).scalar_one()
    drawn = first + int(place(project, actor.annotator_id, actor.answered, "repeat") * (last - first + 1))
    for part in (Answer.id >= drawn) & (Answer.id <= last), Answer.id < drawn:
        row = turn.connection.execute(repeatable(turn, actor).where(mine, part, Task.id != (but or 0))).one_or_none()
        if row is not None:
            return row
    return None


def other_order(task: Row[Any], actor: Actor) -> list[int]:
    """A random order of a task's responses that is not the one in which the annotator saw them first."""
    orders = (shown_order(f"{task.key}:{number}", actor.seed, len(task.responses)) for number in numbers())
    return next(order for order in orders if order != task.shown_order)


def repeatable(turn: Turn, actor: Actor) -> Select[Any]:
    """The query for the first of all judged tasks that may be repeated, and was not yet by this annotator."""
    again = aliased(Answer)
    repeated = exists().where(again.task_id == Answer.task_id, again.annotator_id == actor.id, again.purpose == REPEAT)
    return (
        select(Task.id, Task.key, Task.responses, Answer.shown_order)
        .select_from(Answer)
        .join(Task, Task.id == Answer.task_id)
        .where(Answer.kind == JUDGEMENT, Answer.purpose == WORK, Answer.lease_id.is_not(None), current())
        .where(Task.flagged == 0, ~Task.retired, open_to(turn.project_id, actor.id), ~repeated)
        .order_by(Answer.id)
        .limit(1)
    )
