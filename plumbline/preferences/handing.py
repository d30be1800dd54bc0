"""What an annotator is handed next: a check, a repeat, or work; and what they may open again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update

from plumbline.errors import StoreError
from plumbline.preferences import queue
from plumbline.preferences.checks import free_checks, next_check
from plumbline.preferences.records import JUDGEMENT, REPEAT, WORK
from plumbline.preferences.repeats import next_repeat, other_order, repeatable
from plumbline.preferences.rules import Rules
from plumbline.preferences.schedule import CHECK, REPEATED, extra_at
from plumbline.preferences.tables import Answer, Lease, Tally, Task
from plumbline.preferences.turn import Actor, Turn


def next_lease(
    turn: Turn, actor: Actor, project: str, rules: Rules, until: datetime, *, wait: bool = True
) -> Row[Any] | None:
    """Lease the annotator what comes next; None where nothing is free for them.

    What they left without an answer tells nothing of what it was: an item that expired, or that was set aside, follows
    again, and after one that was handed back another follows, whether these are checks or work. What was handed back
    comes again at once only where nothing else is left.

    Args:
        wait: see `queue.next_free_task`.
    """
    left = _left(turn, actor)
    handed_back = left is not None and left.state in (queue.RELEASED, queue.TAKEN_BACK)
    lease = None if left is None or handed_back else _again(turn, actor, left, until)
    if lease is None:
        lease = _new(turn, actor, project, rules, until, wait, left if handed_back else None)
    if lease is None and left is not None and handed_back:
        lease = _again(turn, actor, left, until)
    if lease is not None and left is not None:
        mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == actor.id)
        turn.connection.execute(update(Tally).where(mine).values(aside=None))
    return lease


def _new(
    turn: Turn, actor: Actor, project: str, rules: Rules, until: datetime, wait: bool, handed_back: Row[Any] | None
) -> Row[Any] | None:
    """Lease a check, a repeat or work, as the schedule has it, but not what was handed back just now.

    Where a check or a repeat is due and there is none, work takes its place.
    """
    position = actor.answered if handed_back is None else f"{actor.answered} after {handed_back.id}"
    but = None if handed_back is None else handed_back.task_id
    extra = extra_at(rules.checks, project, actor.annotator_id, position) if rules.checks else None
    if extra == CHECK and (check := next_check(turn, actor, project, but=but)) is not None:
        order = queue.shown_order(check.key, actor.seed, len(check.responses))
        return queue.open_lease(turn, actor, check.id, order=order, until=until, purpose=check.check_kind)
    if extra == REPEATED and (again := next_repeat(turn, actor, project, but=but)) is not None:
        order = other_order(again, actor)
        return queue.open_lease(turn, actor, again.id, order=order, until=until, purpose=REPEAT)
    task = queue.next_free_task(turn, actor, wait=wait, but=but)
    if task is None:
        return None
    queue.change_task(turn, task.id, taken=1)
    order = queue.shown_order(task.key, actor.seed, len(task.responses))
    return queue.open_lease(turn, actor, task.id, order=order, until=until, slot=True)


def _left(turn: Turn, actor: Actor) -> Row[Any] | None:
    """The lease of the item that the annotator left without an answer, where nothing was handed to them since."""
    if actor.tally.aside is None:
        return None
    return turn.connection.execute(select(Lease.__table__).where(Lease.id == actor.tally.aside)).one_or_none()


def _again(turn: Turn, actor: Actor, left: Row[Any], until: datetime) -> Row[Any] | None:
    """Lease an item that the annotator had before, in the order in which they saw it; None where it is not free now."""
    if left.purpose == WORK:
        asked = {"project": turn.project_id, "annotator": actor.id, "but": queue.NO_TASK, "task": left.task_id}
        free = queue.free_tasks(queue.THIS).params(asked)
    elif left.purpose == REPEAT:
        free = repeatable(turn, actor).where(Answer.annotator_id == actor.id, Task.id == left.task_id)
    else:
        free = free_checks(turn, actor.id).where(Task.id == left.task_id)
    if turn.connection.execute(free).first() is None:
        return None
    if left.slot:
        queue.change_task(turn, left.task_id, taken=1)
    about = {"order": left.shown_order, "slot": left.slot, "purpose": left.purpose}
    return queue.open_lease(turn, actor, left.task_id, until=until, **about)


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
