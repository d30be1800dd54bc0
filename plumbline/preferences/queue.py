"""Handing out tasks by lease.

`Task.taken` counts the judgements of a task and the leases that may add one. A lease takes a place only where `taken`
is below `wanted`, under the row's lock (SQLite: under the write lock), so a task is never judged more often than wanted
and nobody gets a task twice. A lease that ends without an answer gives its place back.

A task that is flagged, or retired because other responses took its place, is handed out to nobody. Whoever holds it, or
undoes their answer, may still answer: what people say is kept.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, insert, select, text, true, update

from plumbline.errors import StoreError, counted
from plumbline.preferences import records
from plumbline.preferences.tables import OPEN_TASK, Answer, Lease, Tally, Task
from plumbline.preferences.turn import Actor, Turn

OPEN, ANSWERED, RELEASED, EXPIRED = "open", "answered", "released", "expired"


def expire_leases(turn: Turn) -> None:
    """End the leases whose time is over, so that their tasks can be handed out again."""
    over = (
        select(Lease.id, Lease.task_id, Lease.slot)
        .where(Lease.state == OPEN, Lease.expires_at <= turn.now)
        .order_by(Lease.task_id)
        .with_for_update(skip_locked=True)
    )
    for lease in turn.connection.execute(over).all():
        end_lease(turn, lease, EXPIRED)


def end_lease(turn: Turn, lease: Any, state: str) -> None:
    """Close an open lease without an answer and give its place back."""
    turn.connection.execute(update(Lease).where(Lease.id == lease.id).values(state=state))
    if lease.slot:
        change_task(turn, lease.task_id, taken=-1)


def change_task(turn: Turn, task: int, **changes: int) -> None:
    """Add to a task's counts: `taken=-1, flagged=1`."""
    values = {name: getattr(Task, name) + change for name, change in changes.items() if change}
    if values:
        turn.connection.execute(update(Task).where(Task.id == task).values(**values))


def held_lease(turn: Turn, actor: Actor) -> Row[Any] | None:
    """The lease that the annotator holds in this project, where there is one."""
    mine = (Lease.project_id == turn.project_id) & (Lease.annotator_id == actor.id) & (Lease.state == OPEN)
    return turn.connection.execute(select(Lease.__table__).where(mine).with_for_update()).one_or_none()


def own_lease(turn: Turn, actor: Actor, lease_id: str) -> Row[Any]:
    """A lease by its id, locked.

    Raises:
        StoreError: there is no such lease, or it is somebody else's.
    """
    query = select(Lease.__table__).where(Lease.lease_id == lease_id, Lease.project_id == turn.project_id)
    lease = turn.connection.execute(query.with_for_update()).one_or_none()
    if lease is None or lease.annotator_id != actor.id:
        raise StoreError("this task was not handed to you: load the next one.")
    return lease


def next_free_task(turn: Turn, actor: Actor, *, wait: bool) -> Row[Any] | None:
    """The first task that is free for this annotator, locked; they have neither judged, skipped nor flagged it.

    It is looked for below their cursor first, and from the top when nothing is left there: tasks that came back.
    Tasks that others are just about to take are passed over; where only such are left, `wait` says to wait for what
    becomes of them.
    """
    here = actor.cursor
    # Two questions instead of one about the pair, because SQLite's index answers only the first half of that.
    for place in ((Task.deferral == here.deferral) & (Task.id > here.task), Task.deferral > here.deferral):
        task = turn.connection.execute(free_tasks(turn, actor, place)).one_or_none()
        if task is not None:
            mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == actor.id)
            turn.connection.execute(update(Tally).where(mine).values(cursor_deferral=task.deferral, cursor=task.id))
            return task
    task = turn.connection.execute(free_tasks(turn, actor, true())).one_or_none()
    if task is None and wait and turn.connection.dialect.name != "sqlite":
        task = turn.connection.execute(free_tasks(turn, actor, true(), wait=True)).one_or_none()
    return task


def free_tasks(turn: Turn, actor: Actor, place: ColumnElement[bool], *, wait: bool = False) -> Select[Any]:
    """The query for the first free task in a part of the queue; the partial index of open tasks answers it.

    `wait` waits for the locks of others instead of passing their rows over.
    """
    return (
        select(Task.__table__)
        .where(Task.project_id == turn.project_id, text(OPEN_TASK), place)
        .where(~answered_by(actor.id))
        .order_by(Task.deferral, Task.id)
        .limit(1)
        .with_for_update(skip_locked=not wait)
    )


def answered_by(annotator: int) -> ColumnElement[bool]:
    """Whether the annotator has judged, skipped or flagged the task of the enclosing query."""
    return exists().where(Answer.task_id == Task.id, Answer.annotator_id == annotator)


def take_place(turn: Turn, task_id: int) -> bool:
    """Take one of the task's places, where one is free."""
    task = turn.connection.execute(select(Task.taken, Task.wanted).where(Task.id == task_id).with_for_update()).one()
    if task.taken >= task.wanted:
        return False
    change_task(turn, task_id, taken=1)
    return True


def open_lease(
    turn: Turn, actor: Actor, task_id: int, *, order: list[int], until: datetime, slot: bool, supersedes: int | None
) -> Row[Any]:
    """Write a lease that starts now. The place in `Task.taken` is the caller's business."""
    lease_id = uuid.uuid4().hex
    values = {"lease_id": lease_id, "project_id": turn.project_id, "task_id": task_id, "annotator_id": actor.id}
    turn.connection.execute(
        insert(Lease).values(
            **values,
            state=OPEN,
            slot=slot,
            shown_order=order,
            supersedes_id=supersedes,
            created_at=turn.now,
            expires_at=until,
        )
    )
    return turn.connection.execute(select(Lease.__table__).where(Lease.lease_id == lease_id)).one()


def shown_order(task_key: str, annotator: str, size: int) -> list[int]:
    """A random order of a task's responses, the same whenever this annotator sees this task."""
    seed = hashlib.sha256(f"{annotator}:{task_key}".encode()).digest()
    return random.Random(seed).sample(range(size), size)


def as_assignment(turn: Turn, lease: Row[Any], until: datetime) -> records.Assignment:
    """A lease as what the annotator gets: no source of any response is in it."""
    task = turn.connection.execute(select(Task.key, Task.prompt, Task.responses).where(Task.id == lease.task_id)).one()
    cards = tuple(
        records.Card(task.responses[index]["id"], position, task.responses[index]["text"])
        for position, index in enumerate(lease.shown_order)
    )
    supersedes = None
    if lease.supersedes_id is not None:
        supersedes = turn.connection.execute(
            select(Answer.answer_id).where(Answer.id == lease.supersedes_id)
        ).scalar_one()
    return records.Assignment(lease.lease_id, task.key, task.prompt, cards, until, supersedes)


def remaining_for(turn: Turn, annotator: int) -> int:
    """Tasks that still want judgements and that this annotator has not answered."""
    unfinished = _unfinished(turn)
    total = select(func.count()).select_from(Task).where(unfinished)
    answered = (
        select(func.count(Answer.task_id.distinct()))
        .join(Task, Task.id == Answer.task_id)
        .where(Answer.project_id == turn.project_id, Answer.annotator_id == annotator, unfinished)
    )
    return turn.connection.execute(total).scalar_one() - turn.connection.execute(answered).scalar_one()


def why_nothing(turn: Turn, actor: Actor) -> str:
    """A sentence that tells an annotator why there is no task for them."""
    wanted = (Task.project_id == turn.project_id) & (Task.wanted > 0)
    unfinished = _unfinished(turn)
    connection = turn.connection
    if connection.execute(select(Task.id).where(wanted).limit(1)).one_or_none() is None:
        return "There is nothing to judge yet: no tasks have been added."
    left = connection.execute(select(func.count()).select_from(Task).where(unfinished)).scalar_one()
    if left == 0:
        unjudged = wanted & (Task.judged < Task.wanted) & (Task.flagged > 0) & ~Task.retired
        flagged = connection.execute(select(func.count()).select_from(Task).where(unjudged)).scalar_one()
        but = f", but for {counted(flagged, 'flagged task')}" if flagged else ""
        return f"All tasks are judged{but}. Thank you!"
    if remaining_for(turn, actor.id) == 0:
        return f"You have done all of yours. {counted(left, 'task')} left for other annotators."
    first = connection.execute(
        select(func.min(Lease.expires_at)).where(Lease.project_id == turn.project_id, Lease.state == OPEN)
    ).scalar_one()
    until = f" until {first.astimezone():%H:%M}" if first else ""
    return f"Other annotators hold the remaining tasks{until}. Look in again then: what they leave comes back to you."


def _unfinished(turn: Turn) -> ColumnElement[bool]:
    # `wanted > 0` says nothing new, but lets the index leave out all imported tasks.
    unfinished = and_(Task.project_id == turn.project_id, Task.wanted > 0, Task.judged < Task.wanted)
    return and_(unfinished, Task.flagged == 0, ~Task.retired)
