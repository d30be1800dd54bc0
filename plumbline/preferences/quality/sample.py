"""What the figures are computed from, read from the store in bounded amounts.

Small projects are read whole. Of large ones agreement and reliability come from a sample of tasks: those whose keys,
digests of their contents, sort first. That is a random sample which stays the same as judgements come in. The effects
of each person come from their latest judgements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, func, select

from plumbline.preferences.answers import JUDGEMENT
from plumbline.preferences.records import ADJUDICATION, MAX_RESPONSES, REPEAT, WORK
from plumbline.preferences.tables import Annotator, Answer, Tally, Task, current
from plumbline.preferences.turn import Turn

SAMPLED_JUDGEMENTS = 20_000
"""Judgements from which agreement and reliability are computed at most."""

JUDGEMENTS_OF_A_TASK = 30
"""Of each task at most this many count, so that one task that everybody judged does not outweigh the others."""

LATEST_OF_ALL, LATEST_OF_ONE = 10_000, 500
"""Judgements from which effects are computed: of all people together about, and of each one at most."""

LEAST_OF_ONE = 20
AT_ONCE = 500

KEPT_FACTS = 50_000
"""Tasks whose lengths are remembered between two reports."""

Bytes = NDArray[np.int8]
Indexes = NDArray[np.int64]


@dataclass(frozen=True)
class Overlap:
    """Judgements of tasks that two or more annotators judged, sorted by task.

    Attributes:
        task, prompt, annotator: `(N,)`; prompts and tasks are counted from 0, annotators are row ids.
        ranks: `(N, 9)`, the ranks in the order of the task's response ids, which are digests, so that the order tells
            nothing; 0 beyond the last response.
        seconds: `(N,)`, nan where not known.
        tasks, all_tasks: how many tasks these are, and of how many in the project.
    """

    task: Indexes
    prompt: Indexes
    annotator: Indexes
    ranks: Bytes
    seconds: NDArray[np.float64]
    tasks: int
    all_tasks: int


class TaskFacts(NamedTuple):
    """How long a task's texts are: words in all, and characters of each response."""

    words: int
    lengths: tuple[int, ...]


class OwnJudgement(NamedTuple):
    """One of a person's latest judgements, with the lengths of its task; `earlier` is what a repeat repeats."""

    ranks: list[int]
    shown_order: list[int] | None
    seconds: float | None
    facts: TaskFacts
    earlier: list[int] | None


class Facts:
    """Lengths of tasks, remembered, because a task's texts never change."""

    def __init__(self) -> None:
        self._known: dict[int, TaskFacts] = {}

    def of(self, turn: Turn, tasks: set[int]) -> dict[int, TaskFacts]:
        """The lengths of these tasks, by row id."""
        if len(self._known) > KEPT_FACTS:
            self._known = {}
        for some in _batches(sorted(tasks - self._known.keys())):
            query = select(Task.id, Task.prompt, Task.responses).where(Task.id.in_(some))
            for row in turn.connection.execute(query):
                texts = [response["text"] for response in row.responses]
                prompt = [message["content"] for message in row.prompt]
                words = sum(len(text.split()) for text in (*prompt, *texts))
                self._known[row.id] = TaskFacts(words, tuple(map(len, texts)))
        return {task: self._known[task] for task in tasks}


def read_overlap(turn: Turn, most: int = SAMPLED_JUDGEMENTS) -> Overlap:
    """The current judgements of the tasks that several annotators judged, of the first ones by key where many are."""
    several = (Task.project_id == turn.project_id) & (Task.judged >= 2)
    all_tasks = turn.connection.execute(select(func.count()).select_from(Task).where(several)).scalar_one()
    query = select(Task.id, Task.prompt_key, Task.judged).where(several).order_by(Task.key).limit(most // 2)
    place: dict[int, int] = {}
    prompts: dict[str, int] = {}
    prompt_of: list[int] = []
    left = most
    for row in turn.connection.execute(query):
        place[row.id] = len(place)
        prompt_of.append(prompts.setdefault(row.prompt_key, len(prompts)))
        left -= min(row.judged, JUDGEMENTS_OF_A_TASK)
        if left <= 0:
            break
    said: list[tuple[int, int, list[int], float]] = []
    for some in _batches(list(place)):
        said += _judgements_of(turn, some, place)
    task = np.array([one[0] for one in said], dtype=np.int64)
    return Overlap(
        task=task,
        prompt=np.array(prompt_of, dtype=np.int64)[task],
        annotator=np.array([one[1] for one in said], dtype=np.int64),
        ranks=padded([one[2] for one in said]),
        seconds=np.array([one[3] for one in said], dtype=np.float64),
        tasks=len(place),
        all_tasks=all_tasks,
    )


def padded(ranks: Sequence[Sequence[int]]) -> Bytes:
    """Rankings `(N, 9)`, with 0 beyond the last response."""
    filled = np.zeros((len(ranks), MAX_RESPONSES), dtype=np.int8)
    for row, one in zip(filled, ranks, strict=True):
        row[: len(one)] = one
    return filled


def latest_judgements(turn: Turn, people: Sequence[int], facts: Facts) -> Iterator[tuple[int, list[OwnJudgement]]]:
    """The latest judgements of each person (row ids): their work, and their repeats beside what they said before."""
    most = max(LEAST_OF_ONE, min(LATEST_OF_ONE, LATEST_OF_ALL // max(1, len(people))))
    for person in people:
        rows = turn.connection.execute(_latest(turn, person, most)).all()
        lengths = facts.of(turn, {row.task_id for row in rows})
        earlier = _first_said(turn, person, [row.task_id for row in rows if row.purpose == REPEAT])
        yield (
            person,
            [
                OwnJudgement(
                    row.ranks,
                    row.shown_order,
                    row.seconds,
                    lengths[row.task_id],
                    earlier.get(row.task_id) if row.purpose == REPEAT else None,
                )
                for row in rows
                if row.purpose != REPEAT or row.task_id in earlier
            ],
        )


def people_of(turn: Turn) -> Sequence[Row[Any]]:
    """The tallies of all who judged, skipped or flagged in the project, the busiest first."""
    did_something = (Tally.judged > 0) | (Tally.skipped > 0) | (Tally.flagged > 0) | (Tally.checks_seen > 0)
    return turn.connection.execute(
        select(Tally.__table__, Annotator.annotator_id.label("public_id"), Annotator.name, Annotator.simulated)
        .join(Annotator, Annotator.id == Tally.annotator_id)
        .where(Tally.project_id == turn.project_id, did_something)
        .order_by(Tally.judged.desc(), Annotator.name)
    ).all()


def _judgements_of(turn: Turn, tasks: Sequence[int], place: dict[int, int]) -> list[tuple[int, int, list[int], float]]:
    query = (
        select(Answer.task_id, Answer.annotator_id, Answer.ranks, Answer.seconds)
        .where(Answer.task_id.in_(tasks), Answer.kind == JUDGEMENT, Answer.purpose == WORK, current())
        .order_by(Answer.task_id, Answer.id)
    )
    found = []
    counted: dict[int, int] = {}
    for row in turn.connection.execute(query):
        counted[row.task_id] = counted.get(row.task_id, 0) + 1
        if counted[row.task_id] <= JUDGEMENTS_OF_A_TASK:
            seconds = float("nan") if row.seconds is None else row.seconds
            found.append((place[row.task_id], row.annotator_id, row.ranks, seconds))
    return found


def _latest(turn: Turn, person: int, most: int) -> Any:
    return (
        select(Answer.task_id, Answer.purpose, Answer.ranks, Answer.shown_order, Answer.seconds)
        .where(Answer.project_id == turn.project_id, Answer.annotator_id == person, Answer.kind == JUDGEMENT)
        .where(Answer.purpose.in_((WORK, ADJUDICATION, REPEAT)), current())
        .order_by(Answer.id.desc())
        .limit(most)
    )


def _first_said(turn: Turn, person: int, tasks: Sequence[int]) -> dict[int, list[int]]:
    """The ranks of the person's own work on these tasks."""
    said: dict[int, list[int]] = {}
    for some in _batches(tasks):
        query = select(Answer.task_id, Answer.ranks).where(
            Answer.task_id.in_(some),
            Answer.annotator_id == person,
            Answer.kind == JUDGEMENT,
            Answer.purpose == WORK,
            current(),
        )
        said |= {row.task_id: row.ranks for row in turn.connection.execute(query)}
    return said


def _batches(items: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]
