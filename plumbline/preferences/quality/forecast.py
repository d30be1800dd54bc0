"""How fast judgements come in, and when they will all be there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy import select

from plumbline.errors import counted
from plumbline.preferences.answers import JUDGEMENT
from plumbline.preferences.quality.figures import Figure, undefined
from plumbline.preferences.quality.resampling import percentiles, ratio, resampled_sums
from plumbline.preferences.records import ADJUDICATION, WORK
from plumbline.preferences.tables import Answer
from plumbline.preferences.turn import Turn

WINDOW = timedelta(days=7)
LATEST = 20_000
SLOT = timedelta(minutes=15)
LEAST_SLOTS = 4


@dataclass(frozen=True)
class Forecast:
    """The pace of the last days and what follows from it.

    Attributes:
        per_hour: judgements in an hour in which there is work; the interval is a bootstrap over quarters of an hour.
        hours: hours of such work that are left, as a range.
        finish: when all is done if work goes on as in these days, pauses included, as a range; None with `why_not`.
        by_hour: judgements in each of the last 24 hours, the oldest first.
    """

    per_hour: Figure
    hours: Figure
    finish: tuple[datetime, datetime] | None
    why_not: str | None
    by_hour: tuple[int, ...]


def recent_times(turn: Turn) -> list[datetime]:
    """When the latest judgements were given, at most `LATEST` of them and of the last seven days."""
    query = (
        select(Answer.judged_at)
        .where(Answer.project_id == turn.project_id, Answer.kind == JUDGEMENT, Answer.lease_id.is_not(None))
        .where(Answer.purpose.in_((WORK, ADJUDICATION)), Answer.supersedes_id.is_(None))
        .order_by(Answer.id.desc())
        .limit(LATEST)
    )
    since = turn.now - WINDOW
    return [when for when in turn.connection.execute(query).scalars() if when is not None and when >= since]


def forecast(times: Sequence[datetime], missing: int, now: datetime, *, required: int) -> Forecast:
    """The pace and the end.

    Args:
        times: of the latest judgements.
        missing: judgements that are still wanted, of the `required` ones.
        now: the present moment.
    """
    slots, by_hour = _slots(times, now), _by_hour(times, now)
    working = slots[slots > 0]
    nothing_missing = "all is judged" if required else "no task is handed out yet"
    if len(working) < LEAST_SLOTS:
        seen = counted(len(working), "quarter")
        why = f"too early to say: there was work in {seen} of an hour, and it takes {LEAST_SLOTS}"
        return Forecast(undefined(why, len(times)), undefined(why), None, why if missing else nothing_missing, by_hour)
    per_hour = _pace(working, len(times))
    if not missing:
        return Forecast(per_hour, Figure(0.0, 0.0, 0.0), None, nothing_missing, by_hour)
    hours = Figure(*(missing / pace if pace else None for pace in (per_hour.value, per_hour.high, per_hour.low)))  # type: ignore[arg-type]
    with_pauses = _pace(slots, len(times))
    if not with_pauses.low or not with_pauses.high:
        return Forecast(per_hour, hours, None, "judgements came too unevenly to say", by_hour)
    earliest, latest = (timedelta(hours=missing / pace) for pace in (with_pauses.high, with_pauses.low))
    if latest > timedelta(days=3650):
        return Forecast(per_hour, hours, None, "at this pace it takes years", by_hour)
    return Forecast(per_hour, hours, (now + earliest, now + latest), None, by_hour)


def _slots(times: Sequence[datetime], now: datetime) -> np.ndarray:
    """Judgements in each quarter of an hour, counted back from now to the first one."""
    if not times:
        return np.zeros(0)
    ages = Counter(int((now - when) / SLOT) for when in times)
    return np.array([ages[age] for age in range(max(ages) + 1)], dtype=np.float64)


def _by_hour(times: Sequence[datetime], now: datetime) -> tuple[int, ...]:
    ages = Counter(int((now - when) / timedelta(hours=1)) for when in times)
    return tuple(ages[age] for age in reversed(range(24)))


def _pace(slots: np.ndarray, judgements: int) -> Figure:
    """Judgements in an hour, of slots drawn with replacement."""
    sums = np.column_stack([slots, np.ones_like(slots)])
    value = float(slots.mean())
    found = percentiles(resampled_sums(sums), ratio(0, 1), value)
    a_slot = timedelta(hours=1) / SLOT
    low, high = found if found else (value, value)
    return Figure(value * a_slot, low * a_slot, high * a_slot, judgements)
