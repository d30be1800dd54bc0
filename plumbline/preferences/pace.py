"""How fast and how well an annotator works, to be told to them, and how fast the team does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import NamedTuple

from sqlalchemy import func, select

from plumbline.preferences.records import ADJUDICATION, JUDGEMENT, WORK
from plumbline.preferences.tables import Answer, Tally
from plumbline.preferences.turn import Facet, Turn, known_annotator

LAST = 20

OF_LATE = timedelta(hours=1)
"""The team's pace is that of the last hour: who stopped before that does not count."""

LATEST = 5000
"""Answers of the store, all projects together, among which the team's are looked for: reading more would take long."""


class Worked(NamedTuple):
    """Who judged (row id), and when."""

    annotator: int
    at: datetime


def recent_work(turn: Turn) -> list[Worked]:
    """The team's judgements of late that bring the project forward."""
    latest = select(func.max(Answer.id)).scalar_subquery()
    query = (
        select(Answer.annotator_id, Answer.judged_at)
        .where(Answer.id > latest - LATEST, Answer.project_id == turn.project_id)
        .where(Answer.kind == JUDGEMENT, Answer.lease_id.is_not(None), Answer.supersedes_id.is_(None))
        .where(Answer.purpose.in_((WORK, ADJUDICATION)))
    )
    since = turn.now - OF_LATE
    work = (Worked._make(row) for row in turn.connection.execute(query))
    return [one for one in work if one.at is not None and one.at >= since]


def pace_of_others(work: Sequence[Worked], annotator: int | None, now: datetime) -> float:
    """Judgements a second by everybody but this annotator, from the first of `work` until now."""
    others = sum(one.annotator != annotator for one in work)
    if not others:
        return 0.0
    return others / max((now - min(one.at for one in work)).total_seconds(), 1.0)


def seconds_left(each: float, remaining: int, missing: int, others_pace: float) -> float:
    """How long an annotator has to do: until they have done all of theirs, or the team has done everything.

    Args:
        each: seconds that one judgement takes them.
        remaining: tasks that are left for them.
        missing: judgements that are wanted of all.
        others_pace: judgements a second by the others.
    """
    return min(each * remaining, max(missing, 0) / (1 / each + others_pace))


class Pace(Facet):
    """What annotators of a project are told of their own work."""

    def median_seconds(self, annotator_id: str, last: int = LAST) -> float | None:
        """Median time on task of the annotator's last judgements; None where no time is known.

        Raises:
            StoreError: nobody has this id.
        """
        with self.look() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            mine = (Answer.project_id == turn.project_id) & (Answer.annotator_id == annotator.id)
            timed = mine & (Answer.kind == JUDGEMENT) & Answer.seconds.is_not(None)
            query = select(Answer.seconds).where(timed).order_by(Answer.id.desc()).limit(last)
            seconds = [row.seconds for row in turn.connection.execute(query)]
            return median(seconds) if seconds else None

    def check_streak(self, annotator_id: str) -> int:
        """How many checks in a row the annotator got right, up to now.

        Raises:
            StoreError: nobody has this id.
        """
        with self.look() as turn:
            annotator = known_annotator(turn.connection, annotator_id)
            mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == annotator.id)
            return turn.connection.execute(select(Tally.check_streak).where(mine)).scalar_one_or_none() or 0
