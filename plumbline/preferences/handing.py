"""What an annotator is handed next: a check, a repeat, or work; and what they may open again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from plumbline.errors import StoreError
from plumbline.preferences import queue
from plumbline.preferences.checks import next_check
from plumbline.preferences.records import JUDGEMENT, REPEAT, WORK
from plumbline.preferences.repeats import next_repeat, other_order
from plumbline.preferences.rules import Rules
from plumbline.preferences.schedule import CHECK, REPEATED, extra_at
from plumbline.preferences.turn import Actor, Turn


def next_lease(
    turn: Turn, actor: Actor, project: str, rules: Rules, until: datetime, *, wait: bool = True
) -> Row[Any] | None:
    """Lease the annotator what comes next; None where nothing is free for them.

    Where a check or a repeat is due and there is none, work takes its place. `wait`: see `queue.next_free_task`.
    """
    extra = extra_at(rules.checks, project, actor.annotator_id, actor.answered) if rules.checks else None
    if extra == CHECK and (check := next_check(turn, actor, project)) is not None:
        order = queue.shown_order(check.key, actor.seed, len(check.responses))
        return queue.open_lease(turn, actor, check.id, order=order, until=until, purpose=check.check_kind)
    if extra == REPEATED and (again := next_repeat(turn, actor, project)) is not None:
        order = other_order(again, actor)
        return queue.open_lease(turn, actor, again.id, order=order, until=until, purpose=REPEAT)
    task = queue.next_free_task(turn, actor, wait=wait)
    if task is None:
        return None
    queue.change_task(turn, task.id, taken=1)
    order = queue.shown_order(task.key, actor.seed, len(task.responses))
    return queue.open_lease(turn, actor, task.id, order=order, until=until, slot=True)


def reopened_lease(turn: Turn, actor: Actor, answer: Row[Any], until: datetime) -> Row[Any]:
    """Lease the annotator an own current answer again, shown in the same order, to be corrected.

    Raises:
        StoreError: it was a skip or a flag, and others have taken the task since.
    """
    # A judgement has its place in the task's count already, and only work has places.
    slot = answer.kind != JUDGEMENT and answer.purpose == WORK
    if slot and not queue.take_place(turn, answer.task_id):
        raise StoreError("others have taken this task since you left it, so it cannot be opened again.")
    return queue.open_lease(
        turn,
        actor,
        answer.task_id,
        order=answer.shown_order,
        until=until,
        slot=slot,
        supersedes=answer.id,
        purpose=answer.purpose,
    )
