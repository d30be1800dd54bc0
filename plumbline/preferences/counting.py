"""The counts that stand beside every task: asked for at each answer, so counting all tasks each time is too slow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import bindparam, case, func, select

from plumbline.preferences.pace import Pace, Worked, pace_of_others, recent_work, seconds_left
from plumbline.preferences.reading import task_counts
from plumbline.preferences.tables import Annotator, Tally
from plumbline.preferences.turn import Facet, Turn
from plumbline.preferences.waiting import remaining_for

SECONDS_KEPT = 1.0
"""Tasks are counted anew when the last count is older than this and counting takes no more than `SHARE` of the time."""

SHARE = 0.02

TEAM_KEPT = 60.0
"""Seconds after which it is looked anew how fast the team works."""

STEP = 10
"""With checks, what is left is told in tens, and what the team has done in steps of at least ten judgements."""


class WorkCounts(NamedTuple):
    """Tasks that the annotator judged (`mine`) and has left, and the share of all judgements that is done, in percent.

    `seconds_left` is how long what they have left takes, if all work on as of late (see `seconds_left`); None where
    nothing is left, or it is not known how fast they work.
    """

    mine: int
    remaining: int
    share: int
    seconds_left: float | None


class _Seen(NamedTuple):
    """What the tallies say: the annotator's judgements, answers of any kind and quota, and all flags."""

    mine: int
    answered: int
    flagged: int
    quota: int | None


@dataclass(frozen=True)
class _Count:
    """Tasks as they were counted at `made`, when the tallies said `seen`."""

    seen: _Seen
    remaining: int
    done: int
    required: int
    seconds_each: float | None
    others_pace: float
    made: float


class _Team(NamedTuple):
    """The team's latest judgements, and when they were read."""

    work: Sequence[Worked]
    read: float


class LiveCounts:
    """Counts of a project for its annotators; may be asked from any thread.

    One's own answers show at once; what the team has done, and that others have finished a task which one could have
    had, shows a second later. With checks nothing falls by each answer, because it would not fall by a check.

    Args:
        facet: a side of the project's rules, to look through.
        pace: tells how fast annotators work.
        checks: some of what is handed out are checks and repeats, which must not be told from work.
    """

    def __init__(self, facet: Facet, pace: Pace, *, checks: bool = False) -> None:
        self.facet, self.pace, self.checks = facet, pace, checks
        self._counts: dict[str, _Count] = {}
        self._team: _Team | None = None
        self._not_before = 0.0

    def of(self, annotator_id: str) -> WorkCounts:
        """The counts for this annotator."""
        with self.facet.look() as turn:
            seen = _tallies(turn, annotator_id)
            count = self._counts.get(annotator_id)
            if count is None or self._is_old(count, seen):
                count = self._counted(turn, annotator_id, seen)
        remaining = self._remaining(count, seen)
        return WorkCounts(seen.mine, remaining, self._share(count), self._seconds_left(count, seen, remaining))

    def _remaining(self, count: _Count, seen: _Seen) -> int:
        if self.checks:
            left = -(-count.remaining // STEP) * STEP
        else:
            left = max(0, count.remaining - (seen.answered - count.seen.answered))
        return left if seen.quota is None else max(0, min(left, seen.quota - seen.mine))

    def _seconds_left(self, count: _Count, seen: _Seen, remaining: int) -> float | None:
        if not count.seconds_each or not remaining:
            return None
        missing = count.required - count.done
        missing = -(-missing // STEP) * STEP if self.checks else missing - (seen.mine - count.seen.mine)
        return seconds_left(count.seconds_each, remaining, missing, count.others_pace)

    def _share(self, count: _Count) -> int:
        steps = max(1, min(100, count.required // STEP)) if self.checks else 100
        return count.done * steps // max(count.required, 1) * 100 // steps

    def _is_old(self, count: _Count, seen: _Seen) -> bool:
        now = time.monotonic()
        aged = now - count.made > SECONDS_KEPT and now >= self._not_before
        return aged or seen.flagged != count.seen.flagged  # a flag changes how many are required

    def _counted(self, turn: Turn, annotator_id: str, seen: _Seen) -> _Count:
        began = time.monotonic()
        annotator = select(Annotator.id).where(Annotator.annotator_id == annotator_id)
        row = turn.connection.execute(annotator).scalar_one_or_none()
        team = task_counts(turn)
        remaining = 0 if row is None else remaining_for(turn, row, team.unfinished)
        each = None if row is None else self.pace.median_seconds(annotator_id)
        others = self._others_pace(turn, row)
        now = time.monotonic()
        self._not_before = now + (now - began) / SHARE
        count = self._counts[annotator_id] = _Count(seen, remaining, team.done, team.required, each, others, now)
        return count

    def _others_pace(self, turn: Turn, annotator: int | None) -> float:
        now = time.monotonic()
        if self._team is None or now - self._team.read > TEAM_KEPT:
            self._team = _Team(recent_work(turn), now)
        return pace_of_others(self._team.work, annotator, turn.now)


_MINE = Annotator.annotator_id == bindparam("annotator_id")
_ANSWERED = Tally.judged + Tally.skipped + Tally.flagged
_COUNTS = (case((_MINE, Tally.judged)), case((_MINE, _ANSWERED)), Tally.flagged)
_QUOTA = func.max(case((_MINE, Tally.quota)))
_TALLIES = (  # built once, because building it takes longer than executing it
    select(*(func.coalesce(func.sum(count), 0) for count in _COUNTS), _QUOTA)
    .select_from(Tally)
    .join(Annotator, Annotator.id == Tally.annotator_id)
    .where(Tally.project_id == bindparam("project"))
)


def _tallies(turn: Turn, annotator_id: str) -> _Seen:
    asked = {"annotator_id": annotator_id, "project": turn.project_id}
    return _Seen._make(turn.connection.execute(_TALLIES, asked).one())
