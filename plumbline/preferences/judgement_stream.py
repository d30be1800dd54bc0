"""All judgements of a project as a stream: memory does not grow with their number, and each task is read once.

Tasks come in pages by the index of their contents, then the answers to a page's tasks: a task's prompt and responses
are neither sent nor parsed again for each of its judgements. Of an answer's JSON columns the text is asked for: the few
orders and ranks that there are repeat, so that each is parsed once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, Text, cast, select, tuple_

from plumbline.preferences.records import JudgementRecord, ResponseRecord
from plumbline.preferences.selection import in_random_sample, is_active
from plumbline.preferences.store import Store, from_json
from plumbline.preferences.tables import Annotator, Answer, Guideline, Project, Task

TASKS_AT_ONCE = 200

Place = tuple[str, str]
"""Where a task stands among the others: its prompt's key and its own."""


SAID = (
    *(Answer.answer_id, Answer.ranks, Answer.shown_order, Answer.judged_at, Answer.seconds, Answer.strength),
    *(Answer.scores, Answer.reason, Answer.edited, Answer.flags, Answer.purpose, Answer.gaps),
)
"""Columns of what a judgement says."""

AS_JSON = ("ranks", "shown_order", "scores", "flags", "gaps")
"""Those of them that hold JSON."""


class _Annotator(NamedTuple):
    name: str
    simulated: bool
    settings: dict[str, Any]


class _Known(NamedTuple):
    """What is read once: the project's name, the annotators and the guidelines' versions, by row id.

    `selected`: the project has active selection.
    """

    project: str
    annotators: dict[int, _Annotator]
    guidelines: dict[int, int]
    selected: bool


def stream_judgements(
    store: Store,
    project_id: int,
    *,
    include_superseded: bool,
    purposes: Collection[str],
    pseudonyms: bool = False,
) -> Iterator[JudgementRecord]:
    """Judgements in an order that depends on their contents alone, all from one state of the store.

    Those of one task follow each other.

    Args:
        include_superseded: also those that were corrected.
        purposes: see `plumbline.preferences.records`.
        pseudonyms: put a random name in the place of each annotator's own.
    """
    with store.read() as connection:
        known = _known(connection, project_id, pseudonyms)
        place: Place = ("", "")
        while tasks := connection.execute(task_page(project_id, place)).all():
            by_task: dict[int, list[Row[Any]]] = {}
            for answer in _answers(connection, [task.id for task in tasks], include_superseded, purposes):
                by_task.setdefault(answer.task_id, []).append(answer)
            for task in tasks:
                if task.id in by_task:
                    yield from _records(task, by_task[task.id], known)
            place = (tasks[-1].prompt_key, tasks[-1].key)


def task_page(project_id: int, after: Place) -> Select[Any]:
    """The query for the next tasks in the order of their contents; the index of contents answers it."""
    return (
        select(Task.id, Task.key, Task.prompt_key, Task.prompt, Task.responses, Task.origin, Task.meta)
        .where(Task.project_id == project_id, tuple_(Task.prompt_key, Task.key) > after)
        .order_by(Task.prompt_key, Task.key)
        .limit(TASKS_AT_ONCE)
    )


def pseudonym_of(annotator_id: str) -> str:
    """A name that tells annotators apart and tells nothing of them."""
    return f"annotator-{annotator_id[:12]}"


def responses_of(stored: list[dict[str, Any]]) -> tuple[ResponseRecord, ...]:
    """A task's responses as plain values."""
    return tuple(
        ResponseRecord(response["id"], response["text"], response["source"], response["source_hash"], response["meta"])
        for response in stored
    )


def _known(connection: Connection, project_id: int, pseudonyms: bool) -> _Known:
    project = connection.execute(select(Project.name).where(Project.id == project_id)).scalar_one_or_none()
    columns = (Annotator.id, Annotator.annotator_id, Annotator.name, Annotator.simulated, Annotator.settings)
    annotators = {}
    for row in connection.execute(select(*columns)):
        name = pseudonym_of(row.annotator_id) if pseudonyms and not row.simulated else row.name
        annotators[row.id] = _Annotator(name, row.simulated, row.settings)
    versions = select(Guideline.id, Guideline.version).where(Guideline.project_id == project_id)
    guidelines = {row.id: row.version for row in connection.execute(versions)}
    return _Known(project or "", annotators, guidelines, is_active(connection, project_id))


def _answers(
    connection: Connection, tasks: list[int], include_superseded: bool, purposes: Collection[str]
) -> list[Row[Any]]:
    earlier, later = Answer.__table__.alias("earlier"), Answer.__table__.alias("later")
    said = [cast(column, Text).label(column.key) if column.key in AS_JSON else column for column in SAID]
    query = (
        select(
            Answer.task_id,
            *said,
            Answer.guideline_id,
            Answer.annotator_id,
            earlier.c.answer_id.label("supersedes"),
            Answer.origin,
        )
        .outerjoin(earlier, earlier.c.id == Answer.supersedes_id)
        .where(Answer.task_id.in_(tasks), Answer.kind == "judgement", Answer.purpose.in_(purposes))
    )
    if not include_superseded:
        query = query.outerjoin(later, later.c.supersedes_id == Answer.id).where(later.c.id.is_(None))
    return sorted(connection.execute(query).all(), key=itemgetter(1))


@lru_cache(maxsize=4096)
def _numbers(stored: str | None) -> tuple[int, ...]:
    return tuple(from_json(stored) or ()) if stored else ()


def _records(task: Any, answers: list[Any], known: _Known) -> Iterator[JudgementRecord]:
    ids = [response["id"] for response in task.responses]
    responses = responses_of(task.responses)
    _, key, _, prompt, _, origin_of_task, meta = task
    sampled = in_random_sample(key) if known.selected else None
    for answer in answers:
        _, answer_id, ranks, shown, at, seconds, strength, scores, reason, edited, flags, purpose, gaps, *rest = answer
        guideline, annotator_id, supersedes, origin = rest
        annotator = known.annotators[annotator_id]
        yield JudgementRecord(
            judgement_id=answer_id,
            task_id=key,
            project=known.project,
            prompt=prompt,
            responses=responses,
            ranking=dict(zip(ids, _numbers(ranks), strict=True)),
            annotator=annotator.name,
            simulated=annotator.simulated,
            annotator_settings=annotator.settings,
            judged_at=at,
            seconds=seconds,
            shown_order=tuple([ids[index] for index in _numbers(shown)]),
            strength=strength,
            scores=None if scores is None else from_json(scores),
            reason=reason,
            edited=edited,
            flags=() if flags is None else tuple(from_json(flags) or ()),
            supersedes=supersedes,
            origin=origin_of_task if origin is None else origin,
            meta=meta,
            purpose=purpose,
            gaps=_numbers(gaps),
            guideline=known.guidelines.get(guideline),
            random_sample=sampled,
        )
