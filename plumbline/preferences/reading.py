"""Reading single judgements, the flags that stand, and how far a project is; see `judgement_stream` for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import aliased

from plumbline.preferences.answers import FLAG, JUDGEMENT, current
from plumbline.preferences.judgement_stream import SAID, pseudonym_of, responses_of
from plumbline.preferences.records import FlagRecord, JudgementRecord, Progress
from plumbline.preferences.selection import in_random_sample
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Guideline, Project, Tally, Task
from plumbline.preferences.turn import Turn
from plumbline.preferences.validation import as_ranking

FETCHED_AT_ONCE = 500


def stream_flags(store: Store, project_id: int, *, pseudonyms: bool = False) -> Iterator[FlagRecord]:
    """The flags that stand, in the order in which they were given."""
    query = (
        select(
            Task.key,
            Task.prompt,
            Task.responses,
            Answer.flags,
            Answer.reason,
            Answer.judged_at,
            Annotator.annotator_id,
            Annotator.name,
            Annotator.simulated,
        )
        .select_from(Answer)
        .join(Task, Task.id == Answer.task_id)
        .join(Annotator, Annotator.id == Answer.annotator_id)
        .where(Answer.project_id == project_id, Answer.kind == FLAG, current())
        .order_by(Answer.id)
    )
    with store.read() as connection:
        for row in connection.execution_options(stream_results=True, yield_per=FETCHED_AT_ONCE).execute(query):
            kind, note = row.flags[0], row.reason or ""
            responses = responses_of(row.responses)
            name = pseudonym_of(row.annotator_id) if pseudonyms and not row.simulated else row.name
            yield FlagRecord(row.key, row.prompt, responses, kind, note, name, row.simulated, row.judged_at)


def judgement_rows(project_id: int, *, include_superseded: bool) -> Select[Any]:
    """The query for a project's judgements with their task, annotator and what they supersede."""
    earlier = aliased(Answer)
    query = (
        select(
            *SAID,
            Guideline.version.label("guideline"),
            func.coalesce(Answer.origin, Task.origin).label("origin"),
            Task.key,
            Task.prompt,
            Task.responses,
            Task.meta,
            Annotator.name,
            Annotator.simulated,
            Annotator.settings,
            Project.name.label("project"),
            earlier.answer_id.label("supersedes"),
        )
        .select_from(Task)
        .join(Answer, Answer.task_id == Task.id)
        .join(Annotator, Annotator.id == Answer.annotator_id)
        .join(Project, Project.id == Task.project_id)
        .outerjoin(earlier, earlier.id == Answer.supersedes_id)
        .outerjoin(Guideline, Guideline.id == Answer.guideline_id)
        .where(Task.project_id == project_id, Answer.kind == JUDGEMENT)
    )
    return query if include_superseded else query.where(current())


def as_record(row: Row[Any], *, selected: bool) -> JudgementRecord:
    """One row of `judgement_rows` as a plain value; `selected`: the project has active selection."""
    ids = [response["id"] for response in row.responses]
    return JudgementRecord(
        judgement_id=row.answer_id,
        task_id=row.key,
        project=row.project,
        prompt=row.prompt,
        responses=responses_of(row.responses),
        ranking=as_ranking(ids, row.ranks),
        annotator=row.name,
        simulated=row.simulated,
        annotator_settings=row.settings,
        judged_at=row.judged_at,
        seconds=row.seconds,
        shown_order=tuple(ids[index] for index in row.shown_order or ()),
        strength=row.strength,
        scores=row.scores,
        reason=row.reason,
        edited=row.edited,
        flags=tuple(row.flags or ()),
        supersedes=row.supersedes,
        origin=row.origin,
        meta=row.meta,
        purpose=row.purpose,
        gaps=tuple(row.gaps or ()),
        guideline=row.guideline,
        random_sample=in_random_sample(row.key) if selected else None,
    )


class TaskCounts(NamedTuple):
    """`tasks`, `required` and `done` as in `Progress`, and how many tasks still want judgements (`unfinished`)."""

    tasks: int
    required: int
    done: int
    unfinished: int


def task_counts(turn: Turn) -> TaskCounts:
    """All tasks of the project, counted by the judgements that they have and want."""
    # Tasks in the same state are counted together: the index has them side by side, and their states are few.
    state = (Task.wanted, Task.judged, Task.flagged, Task.retired)
    query = select(func.count().label("tasks"), *state).where(Task.project_id == turn.project_id, Task.wanted > 0)
    tasks = required = done = unfinished = 0
    for group in turn.connection.execute(query.group_by(*state)):
        judged = min(group.judged, group.wanted)
        wanted = judged if group.flagged or group.retired else group.wanted
        tasks += group.tasks if wanted else 0
        required += group.tasks * wanted
        done += group.tasks * judged
        unfinished += group.tasks if judged < wanted else 0
    return TaskCounts(tasks, required, done, unfinished)


def progress_of(turn: Turn) -> Progress:
    """How far the project is, from the counts that are kept beside the answers."""
    tasks, required, done, _ = task_counts(turn)
    tallies = turn.connection.execute(
        select(Annotator.name, Annotator.simulated, Tally.judged, Tally.skipped, Tally.flagged)
        .join(Annotator, Annotator.id == Tally.annotator_id)
        .where(Tally.project_id == turn.project_id)
        .order_by(Annotator.name)
    ).all()
    return Progress(
        tasks=tasks,
        required=required,
        done=done,
        missing=required - done,
        skipped=sum(row.skipped for row in tallies),
        flagged=sum(row.flagged for row in tallies),
        simulated=sum(row.judged for row in tallies if row.simulated),
        by_annotator={row.name: row.judged for row in tallies if row.judged},
    )
