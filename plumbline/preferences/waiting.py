"""Why there is no work for an annotator just now, and how much is left for them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, select, text

from plumbline.errors import counted
from plumbline.preferences.queue import OPEN, answered_by, open_to
from plumbline.preferences.records import NoWork
from plumbline.preferences.tables import RESERVED_TASK, Answer, Lease, Task
from plumbline.preferences.turn import Actor, Turn


def refusal(actor: Actor) -> NoWork | None:
    """Why the annotator gets no work whatever there is: they are paused, or have reached their quota."""
    if actor.tally.paused is not None:
        return NoWork(f"You get no work at present: {actor.tally.paused}", "paused", {"why": actor.tally.paused})
    quota = actor.tally.quota
    if quota is not None and actor.tally.judged >= quota:
        return NoWork(
            f"You have judged all {quota} tasks that you were asked for. Thank you!", "quota", {"quota": quota}
        )
    return None


def why_nothing(turn: Turn, actor: Actor) -> NoWork:
    """Why the queue holds no task for an annotator."""
    wanted = (Task.project_id == turn.project_id) & (Task.wanted > 0)
    connection = turn.connection
    if connection.execute(select(Task.id).where(wanted).limit(1)).one_or_none() is None:
        return NoWork("There is nothing to judge yet: no tasks have been added.", "empty")
    left = connection.execute(select(func.count()).select_from(Task).where(_unfinished(turn))).scalar_one()
    if left == 0:
        unjudged = wanted & (Task.judged < Task.wanted) & (Task.flagged > 0) & ~Task.retired
        flagged = connection.execute(select(func.count()).select_from(Task).where(unjudged)).scalar_one()
        but = f", but for {counted(flagged, 'flagged task')}" if flagged else ""
        return NoWork(f"All tasks are judged{but}. Thank you!", "finished", {"flagged": flagged})
    if remaining_for(turn, actor.id, left) == 0:
        if kept := _count_kept_from(turn, actor.id):
            others = f"{counted(kept, 'task')} left, for the annotators whom the lead chose."
            return NoWork(f"You have done all that is yours. {others}", "reserved", {"left": kept})
        done = f"You have done all of yours. {counted(left, 'task')} left for other annotators."
        return NoWork(done, "yours-done", {"left": left})
    first = connection.execute(
        select(func.min(Lease.expires_at)).where(
            *(Lease.project_id == turn.project_id, Lease.state == OPEN, Lease.slot, Lease.expires_at > turn.now)
        )
    ).scalar_one()
    until = f" until {first:%H:%M} UTC" if first else ""
    held = f"Other annotators hold the remaining tasks{until}."
    return NoWork(f"{held} Look in again then: what they leave comes back to you.", "held", {"until": first})


def remaining_for(turn: Turn, annotator: int, unfinished: int) -> int:
    """Of the `unfinished` tasks of the project, how many this annotator may be handed and has not answered."""
    # Which of their tasks are unfinished is not asked in WHERE: of a table that was just filled PostgreSQL has no
    # statistics, takes all unfinished tasks for few, and would go through the annotator's answers for each of them.
    theirs = select(Answer.task_id).where(Answer.project_id == turn.project_id, Answer.annotator_id == annotator)
    answered = select(func.count(case((_unfinished(turn), 1)))).where(Task.id.in_(theirs))
    return unfinished - turn.connection.execute(answered).scalar_one() - _count_kept_from(turn, annotator)


def _count_kept_from(turn: Turn, annotator: int) -> int:
    return int(turn.connection.execute(kept_from(turn, annotator)).scalar_one())


def kept_from(turn: Turn, annotator: int) -> Select[Any]:
    """The query that counts unfinished tasks kept for others. Few tasks are reserved at all; an index holds these."""
    # Only what that index answers is in WHERE (see `remaining_for`).
    kept = and_(_wants_more(), ~open_to(turn.project_id, annotator), ~answered_by(annotator))
    return select(func.count(case((kept, 1)))).where(Task.project_id == turn.project_id, text(f"({RESERVED_TASK})"))


def _unfinished(turn: Turn) -> ColumnElement[bool]:
    # `wanted > 0` says nothing new, but lets the index of progress leave out all imported tasks.
    return and_(Task.project_id == turn.project_id, Task.wanted > 0, _wants_more())


def _wants_more() -> ColumnElement[bool]:
    return and_(Task.judged < Task.wanted, Task.flagged == 0, ~Task.retired)
