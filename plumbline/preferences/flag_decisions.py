"""What a lead decides about flagged tasks: that they stay closed, or are handed out again.

A decision is an answer too, of purpose `adjudication`, which supersedes the flag: nothing is changed or deleted, and
who flagged cannot undo what was decided. A task that stays closed has the lead's flag in place of the annotator's.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, insert, select

from plumbline.conversations import Conversation
from plumbline.errors import StoreError
from plumbline.preferences import audit
from plumbline.preferences.answers import FLAG
from plumbline.preferences.queue import change_task, decides_flag
from plumbline.preferences.records import ADJUDICATION, DISMISSAL
from plumbline.preferences.tables import Annotator, Answer, Task, current
from plumbline.preferences.turn import Facet, Turn, acting, count, restart_queue


@dataclass(frozen=True)
class Flag:
    """What somebody says is wrong with a task: in one word, and in their own words."""

    kind: str
    note: str
    annotator: str
    simulated: bool
    at: datetime | None


@dataclass(frozen=True)
class FlaggedTask:
    """A task that is closed by flags, until a lead decides."""

    task_id: str
    prompt: Conversation
    responses: tuple[str, ...]
    judged: int
    flags: tuple[Flag, ...]


class FlagDecisions(Facet):
    """The flags of a project that wait for a lead."""

    def waiting(self, limit: int = 50) -> list[FlaggedTask]:
        """The tasks with flags of which nothing was decided, in the order in which they were flagged."""
        with self.look() as turn:
            tasks: dict[int, list[Row[Any]]] = {}
            for row in turn.connection.execute(_waiting(turn).order_by(Answer.id)):
                if row.task_id not in tasks and len(tasks) == limit:
                    break
                tasks.setdefault(row.task_id, []).append(row)
            return [_flagged(turn, task, flags) for task, flags in tasks.items()]

    def decide(self, lead_id: str, task_id: str, *, reopen: bool) -> None:
        """Settle all flags of a task: it is handed out again, or stays closed.

        Raises:
            StoreError: no flag of this task waits, perhaps because another lead was faster.
        """
        with self.turn() as turn:
            # All tallies first: whoever answers locks their tally, then the task. What was above where annotators
            # stand in the queue may be free now.
            restart_queue(turn)
            lead = acting(turn, lead_id)
            task = (Task.key == task_id) & (Task.project_id == turn.project_id)
            row = turn.connection.execute(select(Task.id).where(task).with_for_update()).one_or_none()
            flags = [] if row is None else turn.connection.execute(_waiting(turn).where(Task.id == row.id)).all()
            if row is None or not flags:
                raise StoreError("no flag of this task waits for a decision: load the list again.")
            for flag in flags:
                decision = _decision(turn, lead.id, flag, reopen=reopen)
                turn.connection.execute(insert(Answer).values(decision))
                audit.record_answer(
                    turn.connection, project=turn.project, annotator_id=lead_id, task_key=task_id, answer=decision
                )
                count(turn, flag.annotator_id, flagged=-1)
            if reopen:
                change_task(turn, row.id, flagged=-len(flags))
            else:
                count(turn, lead.id, flagged=len(flags))


def _waiting(turn: Turn) -> Select[Any]:
    """Flags that stand and that no lead has confirmed."""
    return (
        select(
            Answer.id,
            Answer.task_id,
            Answer.annotator_id,
            Answer.flags,
            Answer.reason,
            Answer.judged_at,
            Annotator.name,
            Annotator.simulated,
        )
        .join(Annotator, Annotator.id == Answer.annotator_id)
        .join(Task, Task.id == Answer.task_id)
        .where(Answer.project_id == turn.project_id, Answer.kind == FLAG, current())
        .where(~decides_flag(), Task.flagged > 0)
    )


def _flagged(turn: Turn, task_id: int, flags: list[Row[Any]]) -> FlaggedTask:
    columns = (Task.key, Task.prompt, Task.responses, Task.judged)
    task = turn.connection.execute(select(*columns).where(Task.id == task_id)).one()
    said = tuple(Flag(row.flags[0], row.reason or "", row.name, row.simulated, row.judged_at) for row in flags)
    return FlaggedTask(task.key, task.prompt, tuple(one["text"] for one in task.responses), task.judged, said)


def _decision(turn: Turn, lead: int, flag: Row[Any], *, reopen: bool) -> dict[str, Any]:
    return {
        "answer_id": uuid.uuid4().hex,
        "kind": DISMISSAL if reopen else FLAG,
        "project_id": turn.project_id,
        "task_id": flag.task_id,
        "annotator_id": lead,
        "judged_at": turn.now,
        "reason": None if reopen else flag.reason,
        "flags": flag.flags,
        "supersedes_id": flag.id,
        "purpose": ADJUDICATION,
    }
