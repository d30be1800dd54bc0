"""The counts that stand beside every task: asked for at each answer, so counting all tasks each time is too slow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import case, func, select

from plumbline.preferences.pace import Pace
from plumbline.preferences.reading import progress_of
from plumbline.preferences.tables import Annotator, Tally
from plumbline.preferences.turn import Facet, Turn
from plumbline.preferences.waiting import remaining_for

SECONDS_KEPT = 1.0
"""Tasks are counted anew when the last count is older than this and counting takes no more than `SHARE` of the time."""

SHARE = 0.05


STEP = 10
"""With checks, what is left is told in tens, and what the team has done in steps of at least ten judgements."""


class WorkCounts(NamedTuple):
    """Tasks that the annotator judged (`mine`) and has left, and the share of all judgements that is done, in percent.

    `seconds_each` is the annotator's median time for a task, of late; None where it is not known.
    """

    mine: int
    remaining: int
    share: int
    seconds_each: float | None


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
    made: float


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
        self._not_before = 0.0

    def of(self, annotator_id: str) -> WorkCounts:
        """The counts for this annotator."""
        with self.facet.look() as turn:
            seen = _tallies(turn, annotator_id)
            count = self._counts.get(annotator_id)
            if count is None or self._is_old(count, seen):
                count = self._counted(turn, annotator_id, seen)
        return WorkCounts(seen.mine, self._remaining(count, seen), self._share(count), count.seconds_each)

    def _remaining(self, count: _Count, seen: _Seen) -> int:
        if self.checks:
            left = -(-count.remaining // STEP) * STEP
        else:
            left = max(0, count.remaining - (seen.answered - count.seen.answered))
        return left if seen.quota is None else max(0, min(left, seen.quota - seen.mine))

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
        team = progress_of(turn)
        remaining = 0 if row is None else remaining_for(turn, row)
        each = None if row is None else self.pace.median_seconds(annotator_id)
        now = time.monotonic()
        self._not_before = now + (now - began) / SHARE
        count = self._counts[annotator_id] = _Count(seen, remaining, team.done, team.required, each, now)
        return count


def _tallies(turn: Turn, annotator_id: str) -> _Seen:
    mine = Annotator.annotator_id == annotator_id
    answered = Tally.judged + Tally.skipped + Tally.flagged
    counts = (func.sum(case((mine, Tally.judged))), func.sum(case((mine, answered))), func.sum(Tally.flagged))
    quota = func.max(case((mine, Tally.quota))).label("quota")
    query = select(*(func.coalesce(count, 0) for count in counts), quota).select_from(Tally)
    of_project = query.join(Annotator, Annotator.id == Tally.annotator_id).where(Tally.project_id == turn.project_id)
    row: Sequence[Any] = turn.connection.execute(of_project).one()
    return _Seen(*row)
