"""What is in the queue just now: open, held, flagged, disputed, kept to pools."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, text

from plumbline.preferences.adjudication import disputed
from plumbline.preferences.answers import FLAG
from plumbline.preferences.queue import OPEN, decides_flag
from plumbline.preferences.rules import Rules
from plumbline.preferences.tables import OPEN_TASK, Answer, Lease, PoolMember, Task, current
from plumbline.preferences.turn import Turn


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
        held: tasks in somebody's hands.
        flagged: tasks that are closed by a flag of which no lead has decided anything.
        disputed: tasks that wait for an adjudicator.
        restricted: tasks that are kept for named people.
        pools: pools that have open tasks or members.
    """

    open: int
    held: int
    flagged: int
    disputed: int
    restricted: int
    pools: tuple[Pool, ...]


def queue_state(turn: Turn, rules: Rules) -> QueueState:
    """The queue just now."""
    mine = Task.project_id == turn.project_id
    open_tasks = mine & text(OPEN_TASK)
    held = (Lease.project_id == turn.project_id) & (Lease.state == OPEN) & (Lease.expires_at > turn.now)
    flags = (
        select(func.count(Answer.task_id.distinct()))
        .join(Task, Task.id == Answer.task_id)
        .where(mine, Task.flagged > 0, Answer.kind == FLAG, ~decides_flag(), current())
    )
    return QueueState(
        open=turn.connection.execute(select(func.count()).select_from(Task).where(open_tasks)).scalar_one(),
        held=turn.connection.execute(select(func.count(Lease.task_id.distinct())).where(held)).scalar_one(),
        flagged=turn.connection.execute(flags).scalar_one(),
        disputed=turn.connection.execute(
            select(func.count()).select_from(Task).where(disputed(turn, rules))
        ).scalar_one(),
        restricted=turn.connection.execute(
            select(func.count()).select_from(Task).where(mine, Task.restricted, ~Task.retired)
        ).scalar_one(),
        pools=_pools(turn, open_tasks),
    )


def _pools(turn: Turn, open_tasks: ColumnElement[bool]) -> tuple[Pool, ...]:
    waiting = select(Task.pool, func.count()).where(open_tasks, Task.pool.is_not(None)).group_by(Task.pool)
    members = (
        select(PoolMember.pool, func.count()).where(PoolMember.project_id == turn.project_id).group_by(PoolMember.pool)
    )
    tasks: dict[str, int] = {str(row[0]): row[1] for row in turn.connection.execute(waiting)}
    people: dict[str, int] = {row[0]: row[1] for row in turn.connection.execute(members)}
    return tuple(Pool(name, tasks.get(name, 0), people.get(name, 0)) for name in sorted(tasks.keys() | people.keys()))
