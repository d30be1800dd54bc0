"""Handing out tasks by lease.

`Task.taken` counts the judgements of a task and the leases that may add one. A lease takes a place only where `taken`
is below `wanted`, under the row's lock (SQLite: under the write lock), so a task is never judged more often than wanted
and nobody gets a task twice. A lease that ends without an answer gives its place back.

A task that is flagged, or retired because other responses took its place, is handed out to nobody. Whoever holds it, or
undoes their answer, may still answer: what people say is kept.

Open tasks go out by priority, then in the order in which they came. A task that is kept for a pool, or restricted to
named annotators, goes to these only. Checks, repeats and adjudications are handed out elsewhere (`checks`,
`repeats`, `adjudication`), by leases that take no place.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    exists,
    insert,
    or_,
    select,
    text,
    true,
    update,
)

from plumbline.errors import StoreError
from plumbline.preferences import records
from plumbline.preferences.drafts import draft_of
from plumbline.preferences.own_work import answer_query, cards_of, given_answer
from plumbline.preferences.rules import Rules
from plumbline.preferences.source_names import MASK
from plumbline.preferences.tables import OPEN_TASK, Answer, Draft, Lease, PoolMember, RowId, Tally, Task, TaskAllowance
from plumbline.preferences.turn import Actor, Turn
from plumbline.preferences.validation import digest

OPEN, ANSWERED, RELEASED, TAKEN_BACK = "open", "answered", "released", "taken"
EXPIRED, SET_ASIDE = "expired", "aside"
"""After what was released (its holder handed it back) or taken back by the lead, something else follows. What expired,
or was set aside for something else, follows again."""

# What every judgement asks of the database is built once, here: building a statement takes longer than executing it.
_PROJECT: BindParameter[int] = bindparam("project")
_ANNOTATOR: BindParameter[int] = bindparam("annotator")

_HELD = (
    select(Lease.__table__)
    .where(Lease.project_id == _PROJECT, Lease.annotator_id == _ANNOTATOR, Lease.state == OPEN)
    .with_for_update()
)
_BY_ID = (
    select(Lease.__table__).where(Lease.lease_id == bindparam("lease"), Lease.project_id == _PROJECT).with_for_update()
)
_CLOSE = update(Lease).where(Lease.id == bindparam("row")).values(state=bindparam("to"))
_OPEN = insert(Lease).returning(*Lease.__table__.columns)
_MOVE_CURSOR = (
    update(Tally)
    .where(Tally.project_id == _PROJECT, Tally.annotator_id == _ANNOTATOR)
    .values(cursor_deferral=bindparam("deferral_now"), cursor=bindparam("task_now"))
)
_SHOWN = (
    select(Task.key, Task.prompt, Task.responses, Draft.content)
    .outerjoin(Draft, (Draft.task_id == Task.id) & draft_of(_ANNOTATOR, bindparam("purpose")))
    .where(Task.id == bindparam("task"))
)


ANSWERED_ALREADY = "this task is answered already: load the next one, or undo to correct the answer."


def why_lost(lease: Any) -> str | None:
    """Why its holder no longer holds a task; None while they do."""
    return {
        OPEN: None,
        ANSWERED: ANSWERED_ALREADY,
        RELEASED: "you have handed this task back in another window: load the next one.",
        TAKEN_BACK: "the lead has taken this task back, and what you entered is kept: load the next one.",
    }.get(lease.state, "your time for this task is over, and what you entered is kept: load the next one.")


def was_answered(turn: Turn, lease: Any) -> bool:
    """Whether its holder has answered the task since it was handed to them, under this lease or a later one."""
    if lease.state in (OPEN, ANSWERED):
        return bool(lease.state == ANSWERED)
    theirs = (Answer.annotator_id == lease.annotator_id) & (Answer.purpose == lease.purpose)
    since = select(Answer.id).where(Answer.task_id == lease.task_id, theirs, Answer.judged_at >= lease.created_at)
    return turn.connection.execute(since.limit(1)).first() is not None


def expire_leases(turn: Turn) -> None:
    """End the leases whose time is over, so that their tasks can be handed out again."""
    over = (
        select(Lease.__table__)
        .join(Tally, (Tally.project_id == Lease.project_id) & (Tally.annotator_id == Lease.annotator_id))
        .where(Lease.state == OPEN, Lease.expires_at <= turn.now)
        .order_by(Lease.task_id)
        .with_for_update(of=(Tally, Lease), skip_locked=True)  # whose holder acts just now comes a second later
    )
    for lease in turn.connection.execute(over).all():
        end_lease(turn, lease, EXPIRED)


def end_lease(turn: Turn, lease: Any, state: str) -> None:
    """Close an open lease without an answer, give its place back, and remember what its holder left.

    The holder's tally is locked already, because whoever acts locks that first.
    """
    close_lease(turn, lease, state)
    if lease.supersedes_id is None and lease.purpose != records.ADJUDICATION:
        theirs = (Tally.project_id == lease.project_id) & (Tally.annotator_id == lease.annotator_id)
        turn.connection.execute(update(Tally).where(theirs).values(aside=lease.id))
    if lease.slot:
        change_task(turn, lease.task_id, taken=-1)


def close_lease(turn: Turn, lease: Any, state: str) -> None:
    """Close a lease and leave its place as it is."""
    turn.connection.execute(_CLOSE, {"row": lease.id, "to": state})


def change_task(turn: Turn, task: int, **changes: int) -> None:
    """Add to a task's counts: `taken=-1, flagged=1`."""
    changed = {name: change for name, change in changes.items() if change}
    if changed:
        more = {f"more_{name}": change for name, change in changed.items()}
        turn.connection.execute(_adding(*sorted(changed)), {"row": task} | more)


@cache
def _adding(*columns: str) -> Update:
    more = {name: getattr(Task, name) + bindparam(f"more_{name}") for name in columns}
    return update(Task).where(Task.id == bindparam("row")).values(more)


def held_lease(turn: Turn, actor: Actor) -> Row[Any] | None:
    """The lease that the annotator holds in this project, where there is one."""
    mine = {"project": turn.project_id, "annotator": actor.id}
    return turn.connection.execute(_HELD, mine).one_or_none()


def was_left(turn: Turn, actor: Actor, lease: Row[Any]) -> bool:
    """Whether the time of a lease was over, and its task is not in the annotator's hands again."""
    if lease.state != EXPIRED:
        return False
    held = held_lease(turn, actor)
    return held is None or held.task_id != lease.task_id


def own_lease(turn: Turn, actor: Actor, lease_id: str) -> Row[Any]:
    """A lease by its id, locked.

    Raises:
        StoreError: there is no such lease, or it is somebody else's.
    """
    lease = turn.connection.execute(_BY_ID, {"lease": lease_id, "project": turn.project_id}).one_or_none()
    if lease is None or lease.annotator_id != actor.id:
        raise StoreError("this task was not handed to you: load the next one.")
    return lease


def next_free_task(turn: Turn, actor: Actor, *, wait: bool, but: int | None = None) -> Row[Any] | None:
    """The first task that is free for this annotator, locked; they have neither judged, skipped nor flagged it.

    The task `but`, by its row id, is passed over.

    It is looked for below their cursor first, and from the top when nothing is left there: tasks that came back.
    Tasks that others are just about to take are passed over; where only such are left, `wait` says to wait for what
    becomes of them.
    """
    mine = {"project": turn.project_id, "annotator": actor.id}
    others = mine | {"but": but or NO_TASK}
    cursor = {"deferral": actor.cursor.deferral, "cursor": actor.cursor.task}
    for part in (BELOW, LESS_URGENT):
        task = turn.connection.execute(free_tasks(part), others | cursor).one_or_none()
        if task is not None:
            moved = {"deferral_now": task.deferral, "task_now": task.id}
            turn.connection.execute(_MOVE_CURSOR, mine | moved)
            return task
    task = turn.connection.execute(free_tasks(ANYWHERE), others).one_or_none()
    if task is None and wait and turn.connection.dialect.name != "sqlite":
        task = turn.connection.execute(free_tasks(ANYWHERE, wait=True), others).one_or_none()
    return task


NO_TASK = 0
"""Row ids begin at 1."""

BELOW, LESS_URGENT, ANYWHERE, THIS = "below", "less urgent", "anywhere", "this"
# Two parts instead of one comparison of the pair, because SQLite's index answers only the first half of that.
_PARTS: dict[str, ColumnElement[bool]] = {
    BELOW: (Task.deferral == bindparam("deferral")) & (Task.id > bindparam("cursor")),
    LESS_URGENT: Task.deferral > bindparam("deferral"),
    ANYWHERE: true(),
    THIS: Task.id == bindparam("task"),
}


@cache
def free_tasks(part: str, *, wait: bool = False) -> Select[Any]:
    """The query for the first free task in a part of the queue; the partial index of open tasks answers it.

    It takes the parameters `project`, `annotator` and `but` (row ids; `but` is a task that is passed over, or
    `NO_TASK`), and by its part `deferral` and `cursor` of the annotator's place, or `task`.

    Args:
        part: `BELOW` the annotator's place among equally urgent tasks, `LESS_URGENT` ones, `ANYWHERE`, or
            `THIS` task alone.
        wait: wait for the locks of others instead of passing their rows over.
    """
    return (
        select(Task.id, Task.key, Task.deferral, Task.responses)
        .where(Task.project_id == _PROJECT, text(OPEN_TASK), _PARTS[part])
        .where(
            Task.id != bindparam("but"),
            Task.check_kind.is_(None),
            open_to(_PROJECT, _ANNOTATOR),
            ~answered_by(_ANNOTATOR),
        )
        .order_by(Task.deferral, Task.id)
        .limit(1)
        .with_for_update(skip_locked=not wait)
    )


def open_to(project: RowId, annotator: RowId) -> ColumnElement[bool]:
    """Whether the task of the enclosing query may be handed to the annotator: by its pool, and by name."""
    pools = select(PoolMember.pool).where(PoolMember.project_id == project, PoolMember.annotator_id == annotator)
    named = exists().where(TaskAllowance.task_id == Task.id, TaskAllowance.annotator_id == annotator)
    return and_(or_(Task.pool.is_(None), Task.pool.in_(pools)), or_(~Task.restricted, named))


def answered_by(annotator: RowId) -> ColumnElement[bool]:
    """Whether the annotator has judged, skipped or flagged the task of the enclosing query."""
    return exists().where(Answer.task_id == Task.id, Answer.annotator_id == annotator, ~decides_flag())


def decides_flag() -> ColumnElement[bool]:
    """Of an answer: a lead gave it by deciding about a flag. It has no lease; an adjudicator's own answers have one."""
    return and_(Answer.purpose == records.ADJUDICATION, Answer.lease_id.is_(None))


def take_place(turn: Turn, task_id: int) -> bool:
    """Take one of the task's places, where one is free."""
    task = turn.connection.execute(select(Task.taken, Task.wanted).where(Task.id == task_id).with_for_update()).one()
    if task.taken >= task.wanted:
        return False
    change_task(turn, task_id, taken=1)
    return True


def open_lease(
    turn: Turn,
    actor: Actor,
    task_id: int,
    *,
    order: list[int],
    until: datetime,
    slot: bool = False,
    supersedes: int | None = None,
    purpose: str = records.WORK,
) -> Row[Any]:
    """Write a lease that starts now. The place in `Task.taken` is the caller's business."""
    lease = {
        "lease_id": uuid.uuid4().hex,
        "project_id": turn.project_id,
        "task_id": task_id,
        "annotator_id": actor.id,
        "state": OPEN,
        "slot": slot,
        "shown_order": order,
        "supersedes_id": supersedes,
        "created_at": turn.now,
        "expires_at": until,
        "purpose": purpose,
    }
    return turn.connection.execute(_OPEN, lease).one()


def shown_order(task_key: str, seed: str, size: int) -> list[int]:
    """A random order of a task's responses, the same whenever the annotator with this `Actor.seed` sees this task."""
    drawn = hashlib.sha256(f"{seed}:{task_key}".encode()).digest()
    return random.Random(drawn).sample(range(size), size)


def as_assignment(turn: Turn, actor: Actor, lease: Row[Any], until: datetime, rules: Rules) -> records.Assignment:
    """A lease as what the annotator gets: no source of any response is in it, nor what it was handed out for.

    People see names of models masked. Simulated annotators get the responses as they are stored, whose utility is what
    they judge by, and owe no reasons.
    """
    asked = {"task": lease.task_id, "annotator": lease.annotator_id, "purpose": lease.purpose}
    task = turn.connection.execute(_SHOWN, asked).one()
    earlier = None
    if lease.supersedes_id is not None:
        row = turn.connection.execute(answer_query(turn.project_id).where(Answer.id == lease.supersedes_id)).one()
        earlier = given_answer(row)
    names = None if actor.simulated else rules.names
    cards = cards_of(task.responses, lease.shown_order, task.prompt, names)
    return records.Assignment(
        lease_id=lease.lease_id,
        task_id=task.key,
        prompt=task.prompt,
        cards=cards,
        expires_at=until,
        supersedes=earlier.answer_id if earlier else None,
        earlier=earlier,
        draft=task.content,
        showing=digest(turn.project, actor.annotator_id, task.key, lease.purpose, earlier.answer_id if earlier else ""),
        masked=names is not None and any(MASK in card.text for card in cards),
        asks_reason=() if actor.simulated else rules.reason_cases(lease.purpose),
    )
