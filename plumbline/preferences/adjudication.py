"""Tasks on which annotators disagree, and the adjudicator who decides.

When the last wanted judgement of a task with overlap is in, it is stored how far the judgements disagree (see
`scoring.disagreement`); a correction measures it anew, and so does another overlap. Tasks above the recipe's
`adjudicate_above` wait for an adjudicator who has said nothing of them yet, the most disputed first. The adjudicator
sees what every annotator sees: neither names nor rankings of others.

The adjudicator's judgement stands beside the others, with the purpose `adjudication`; nothing is overruled or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, select, text, update

from plumbline.conversations import Conversation
from plumbline.preferences.account_tables import LEADS, Account
from plumbline.preferences.queue import OPEN, TAKEN_BACK, answered_by, end_lease
from plumbline.preferences.records import ADJUDICATION, JUDGEMENT, WORK
from plumbline.preferences.rules import Rules
from plumbline.preferences.scoring import disagreement
from plumbline.preferences.store import Store
from plumbline.preferences.tables import DISPUTED_TASK, Answer, Lease, PoolMember, Task, current
from plumbline.preferences.turn import Actor, Facet, Turn, now_utc

ADJUDICATORS = "adjudicators"
"""The pool whose members may adjudicate besides the leads."""


@dataclass(frozen=True)
class Dispute:
    """A task that waits for an adjudicator, or is decided by one.

    `disagreement` is the share of pairs on which its judgements disagree.
    """

    task_id: str
    prompt: Conversation
    judged: int
    disagreement: float


NOT_THEIRS = "only the lead and the adjudicators whom the lead has named decide disputed tasks."


class Adjudication(Facet):
    """What waits for an adjudicator. Cases are handed out by `PreferenceService.lease_adjudication`."""

    def __init__(self, store: Store, *, project: str, rules: Rules, clock: Callable[[], Any] = now_utc) -> None:
        super().__init__(store, project=project, clock=clock)
        self.rules = rules

    def disputes(self, limit: int = 50) -> list[Dispute]:
        """The tasks that wait for an adjudicator, the most disputed first."""
        with self.look() as turn:
            query = (
                select(Task.key, Task.prompt, Task.judged, Task.disagreement)
                .where(disputed(turn, self.rules))
                .order_by(Task.disagreement.desc(), Task.id)
            )
            return [Dispute(*row) for row in turn.connection.execute(query.limit(limit))]

    def settled(self) -> list[Dispute]:
        """Tasks that an adjudicator has decided and that are no checks: they could become gold items."""
        with self.look() as turn:
            decided = (Task.project_id == turn.project_id) & Task.adjudicated & Task.check_kind.is_(None)
            query = select(Task.key, Task.prompt, Task.judged, Task.disagreement).where(decided).order_by(Task.id)
            return [Dispute(*row) for row in turn.connection.execute(query)]


def may_adjudicate(turn: Turn, actor: Actor) -> bool:
    """Whether the annotator is in the pool of adjudicators."""
    return _is_member(turn, turn.project_id, actor.id)


def may_decide(turn: Turn, project_id: int, annotator: int) -> bool:
    """Whether an annotator (row id) who holds a disputed task may decide it: their role, or the pool, may have changed.

    Without an account they signed in by name, and then everybody leads.
    """
    role = turn.connection.execute(select(Account.role).where(Account.annotator_id == annotator)).scalar_one_or_none()
    return role is None or role in LEADS or _is_member(turn, project_id, annotator)


def take_back_disputes(turn: Turn, *whose: ColumnElement[bool]) -> None:
    """Take disputed tasks back from those who may no longer decide them; `whose` are conditions on `Lease`."""
    held = select(Lease.__table__).where(Lease.state == OPEN, Lease.purpose == ADJUDICATION, *whose)
    for lease in turn.connection.execute(held.order_by(Lease.task_id).with_for_update()).all():
        if not may_decide(turn, lease.project_id, lease.annotator_id):
            end_lease(turn, lease, TAKEN_BACK)


def next_dispute(turn: Turn, actor: Actor, rules: Rules) -> Row[Any] | None:
    """The most disputed task of which the annotator has said nothing and that no other adjudicator holds, locked."""
    waiting = select(Task.__table__).where(disputed(turn, rules), ~answered_by(actor.id))
    waiting = (
        waiting.order_by(Task.disagreement.desc(), Task.id).limit(1).with_for_update(skip_locked=True, key_share=True)
    )
    # Asked for after the lock, task by task: what was seen before it may be over.
    held = select(Lease.task_id).where(
        Lease.project_id == turn.project_id, Lease.state == OPEN, Lease.purpose == ADJUDICATION
    )
    passed: list[int] = []
    while (task := turn.connection.execute(waiting.where(Task.id.not_in(passed))).one_or_none()) is not None:
        if turn.connection.execute(held.where(Lease.task_id == task.id).limit(1)).one_or_none() is None:
            return task
        passed.append(task.id)
    return None


def disputed(turn: Turn, rules: Rules) -> ColumnElement[bool]:
    """The condition that a task waits for an adjudicator; never, where the recipe wants none."""
    above = 1.0 if rules.adjudicate_above is None else rules.adjudicate_above
    waiting = and_(text(DISPUTED_TASK), Task.disagreement > above)
    return and_(Task.project_id == turn.project_id, waiting, Task.flagged == 0, ~Task.retired)


def measure(connection: Connection, task_ids: Sequence[int]) -> None:
    """Store how far the judgements of each task that is handed out disagree; nothing of tasks that miss some."""
    # Locked, so that of two judgements at once the second sees the first. A weak lock, because whoever writes an answer
    # to the task shares its key, and two of them would wait for each other.
    query = select(Task.id, Task.judged, Task.wanted, Task.disagreement).where(Task.id.in_(task_ids))
    query = query.where(Task.wanted > 0)
    tasks = connection.execute(query.order_by(Task.id).with_for_update(key_share=True)).all()
    rankings: dict[int, list[list[int]]] = {task.id: [] for task in tasks if task.judged >= task.wanted}
    if rankings:
        judged = Answer.task_id.in_(rankings) & (Answer.kind == JUDGEMENT) & (Answer.purpose == WORK)
        said = select(Answer.task_id, Answer.ranks).where(judged, current()).order_by(Answer.id)
        for task_id, ranks in connection.execute(said):
            rankings[task_id].append(ranks)
    found = {task.id: disagreement(rankings.get(task.id, ())) for task in tasks}
    changed = [{"task": task.id, "found": found[task.id]} for task in tasks if found[task.id] != task.disagreement]
    if changed:
        measured = update(Task).where(Task.id == bindparam("task")).values(disagreement=bindparam("found"))
        connection.execute(measured, changed)


def settle(turn: Turn, task_id: int, kind: str) -> None:
    """Note what the adjudicator said last: a judgement decides, a skip or a flag does not."""
    turn.connection.execute(update(Task).where(Task.id == task_id).values(adjudicated=kind == JUDGEMENT))


def _is_member(turn: Turn, project_id: int, annotator: int) -> bool:
    member = select(PoolMember.pool).where(
        PoolMember.project_id == project_id, PoolMember.pool == ADJUDICATORS, PoolMember.annotator_id == annotator
    )
    return turn.connection.execute(member).one_or_none() is not None
