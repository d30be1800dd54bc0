"""Judged tasks with what was said of them, for a lead to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from statistics import mean

from sqlalchemy import exists, select

from plumbline.conversations import Conversation
from plumbline.preferences.answers import JUDGEMENT
from plumbline.preferences.checks import adjudicated_ranks
from plumbline.preferences.records import LEARNED_FROM
from plumbline.preferences.source_names import SourceNames
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Task, current
from plumbline.preferences.turn import Facet, Turn, known_annotator, now_utc

JUDGEMENTS_AT_ONCE = 200
SHOWN_OF_A_TASK = 30


@dataclass(frozen=True)
class Said:
    """One judgement of a task: ranks in the order of the task's responses."""

    annotator: str
    simulated: bool
    purpose: str
    ranks: tuple[int, ...]
    seconds: float | None
    reason: str | None
    judged_at: datetime | None


@dataclass(frozen=True)
class DecidedTask:
    """A judged task.

    Attributes:
        task_id, prompt: the task.
        responses: text and rank of each response, in the store's order, which tells nothing: the adjudicator's rank
            where one has ranked (`settled`), else the mean. Checks and repeats count in the mean only where there is
            nothing else.
        said: its current judgements, the first ones before the others.
        disagreement: share of pairs on which they disagree, where that is known.
        adjudicated, settled: whether an adjudicator has decided it, and has done so by ranking.
        check: its kind, where it measures annotators.
        not_gold: why an adjudicated task cannot become a gold item; None where it can.
    """

    task_id: str
    prompt: Conversation
    responses: tuple[tuple[str, float], ...]
    said: tuple[Said, ...]
    disagreement: float | None
    adjudicated: bool
    settled: bool
    check: str | None
    not_gold: str | None

    @property
    def ranked(self) -> list[tuple[int, str, float]]:
        """Place, text and rank of each response, the best first."""
        places = [(place, text, rank) for place, (text, rank) in enumerate(self.responses)]
        return sorted(places, key=lambda one: one[2])


class Decided(Facet):
    """What has been judged.

    Args:
        store, project, clock: see `Facet`.
        names: that are masked in responses, as annotators see them; None for none.
    """

    def __init__(
        self, store: Store, *, project: str, names: SourceNames | None, clock: Callable[[], datetime] = now_utc
    ) -> None:
        super().__init__(store, project=project, clock=clock)
        self.names = names

    def page(
        self, *, before: int | None = None, annotator_id: str | None = None, limit: int = 10
    ) -> tuple[list[DecidedTask], int | None]:
        """Tasks by their latest judgement, the newest first.

        Args:
            before: as the page before returned it.
            annotator_id: only tasks that this annotator judged.
            limit: tasks at most.

        Returns:
            The tasks, and `before` of the next page; None where this is the last one.

        Raises:
            StoreError: nobody has this id.
        """
        with self.look() as turn:
            judged = (Answer.project_id == turn.project_id) & (Answer.kind == JUDGEMENT)
            if annotator_id is not None:
                judged &= Answer.annotator_id == known_annotator(turn.connection, annotator_id).id
            query = select(Answer.id, Answer.task_id).where(judged, current())
            if before is not None:
                shown = Answer.__table__.alias("shown")
                newer = (shown.c.task_id == Answer.task_id) & (shown.c.id >= before) & (shown.c.kind == JUDGEMENT)
                if annotator_id is not None:
                    newer &= shown.c.annotator_id == Answer.annotator_id
                query = query.where(Answer.id < before, ~exists().where(newer))
            rows = turn.connection.execute(query.order_by(Answer.id.desc()).limit(JUDGEMENTS_AT_ONCE)).all()
            tasks: dict[int, int] = {}  # task to the oldest of its judgements that we passed
            for row in rows:
                if row.task_id not in tasks and len(tasks) == limit:
                    break
                tasks[row.task_id] = row.id
            all_passed = rows and rows[-1].id in tasks.values() and len(rows) < JUDGEMENTS_AT_ONCE
            last = None if all_passed or not rows else min(tasks.values())
            return [_decided(turn, task, self.names) for task in tasks], last


def _decided(turn: Turn, task_id: int, names: SourceNames | None) -> DecidedTask:
    columns = (Task.key, Task.prompt, Task.responses, Task.disagreement, Task.adjudicated, Task.check_kind)
    task = turn.connection.execute(select(*columns).where(Task.id == task_id)).one()
    query = (
        select(
            Annotator.name,
            Annotator.simulated,
            Answer.purpose,
            Answer.ranks,
            Answer.seconds,
            Answer.reason,
            Answer.judged_at,
        )
        .join(Annotator, Annotator.id == Answer.annotator_id)
        .where(Answer.task_id == task_id, Answer.kind == JUDGEMENT, current())
        .order_by(Answer.id)
        .limit(SHOWN_OF_A_TASK)
    )
    said = tuple(
        Said(row.name, row.simulated, row.purpose, tuple(row.ranks), row.seconds, row.reason, row.judged_at)
        for row in turn.connection.execute(query)
    )
    settled = adjudicated_ranks(turn, task_id) if task.adjudicated else None
    learned = [one.ranks for one in said if one.purpose in LEARNED_FROM] or [one.ranks for one in said]
    counted = [settled] if settled else learned
    texts = [response["text"] for response in task.responses]
    shown = texts if names is None else [names.masked(text, task.prompt) for text in texts]
    responses = tuple((text, mean(ranks[place] for ranks in counted)) for place, text in enumerate(shown))
    not_gold = _not_gold(settled) if task.adjudicated and task.check_kind is None else None
    about = (task.disagreement, task.adjudicated, settled is not None, task.check_kind, not_gold)
    return DecidedTask(task.key, task.prompt, responses, said, *about)


def _not_gold(ranks: list[int] | None) -> str | None:
    if ranks is None:
        return "the adjudicator gave no ranking"
    return "the adjudicator tied all responses, so there is nothing to get right" if len(set(ranks)) < 2 else None
