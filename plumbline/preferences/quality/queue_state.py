"""What is in the queue just now: open, held, flagged, disputed, kept to pools."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text

from plumbline.preferences.answers import FLAG, current
from plumbline.preferences.queue import OPEN
from plumbline.preferences.tables import DISPUTED_TASK, OPEN_TASK, Annotator, Answer, Lease, PoolMember, Task
from plumbline.preferences.turn import Turn

SHOWN = 200
"""Leases and flags that are listed at most; how many there are in all is told too."""


@dataclass(frozen=True)
class HeldTask:
    """A task in somebody's hands."""

    lease_id: str
    task_id: str
    annotator: str
    purpose: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Pool:
    """A pool: how many tasks are open for it, and how many people are its members."""

    name: str
    open: int
    members: int


@dataclass(frozen=True)
class QueueState:
    """The queue just now.

    Attributes:
        open: tasks that can be handed out.
        held: leases, those that end first before the others; at most `SHOWN`.
        leased: how many leases there are.
        flagged: tasks that are closed by a flag.
        disputed: tasks that wait for an adjudicator.
        pools: pools that have open tasks or members.
    """

    open: int
    held: tuple[HeldTask, ...]
    leased: int
    flagged: int
    disputed: int
    pools: tuple[Pool, ...]


def queue_state(turn: Turn, adjudicate_above: float | None) -> QueueState:
    """The queue just now; disputed are tasks whose disagreement is above this share, none where it is None."""
    mine = Task.project_id == turn.project_id
    open_tasks = mine & text(OPEN_TASK)
    disputed = 0
    if adjudicate_above is not None:
        asked = mine & text(DISPUTED_TASK) & (Task.disagreement > adjudicate_above)
        disputed = turn.connection.execute(select(func.count()).select_from(Task).where(asked)).scalar_one()
    leased = (Lease.project_id == turn.project_id) & (Lease.state == OPEN) & (Lease.expires_at > turn.now)
    flags = (
        select(func.count(Answer.task_id.distinct()))
        .join(Task, Task.id == Answer.task_id)
        .where(mine, Task.wanted > 0, Task.flagged > 0, Answer.kind == FLAG, current())
    )
    return QueueState(
        open=turn.connection.execute(select(func.count()).select_from(Task).where(open_tasks)).scalar_one(),
        held=_held(turn, leased),
        leased=turn.connection.execute(select(func.count()).select_from(Lease).where(leased)).scalar_one(),
        flagged=turn.connection.execute(flags).scalar_one(),
        disputed=disputed,
        pools=_pools(turn, open_tasks),
    )


def _held(turn: Turn, leased: object) -> tuple[HeldTask, ...]:
    query = (
        select(Lease.lease_id, Task.key, Annotator.name, Lease.purpose, Lease.created_at, Lease.expires_at)
        .join(Task, Task.id == Lease.task_id)
        .join(Annotator, Annotator.id == Lease.annotator_id)
        .where(leased)  # type: ignore[arg-type]
        .order_by(Lease.expires_at)
        .limit(SHOWN)
    )
    return tuple(HeldTask(*row) for row in turn.connection.execute(query))


def _pools(turn: Turn, open_tasks: object) -> tuple[Pool, ...]:
    waiting = select(Task.pool, func.count()).where(open_tasks, Task.pool.is_not(None)).group_by(Task.pool)  # type: ignore[arg-type]
    members = (
        select(PoolMember.pool, func.count()).where(PoolMember.project_id == turn.project_id).group_by(PoolMember.pool)
    )
    tasks: dict[str, int] = {str(row[0]): row[1] for row in turn.connection.execute(waiting)}
    people: dict[str, int] = {row[0]: row[1] for row in turn.connection.execute(members)}
    return tuple(Pool(name, tasks.get(name, 0), people.get(name, 0)) for name in sorted(tasks.keys() | people.keys()))
