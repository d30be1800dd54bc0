"""Putting tasks, and judgements that were given elsewhere, into the store: in batches, each one transaction.

Tasks and judgements are known by their contents, so that a second import, or one that was killed, takes nothing twice.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Select, bindparam, insert, select, update

from plumbline.conversations import prompt_key
from plumbline.errors import StoreError, UserError
from plumbline.preferences import audit
from plumbline.preferences.adjudication import measure
from plumbline.preferences.records import Added, NewJudgement, NewTask, Taken
from plumbline.preferences.store import insert_new
from plumbline.preferences.tables import Answer, Guideline, Project, Tally, Task
from plumbline.preferences.turn import Turn, enrol, ensure_tally, restart_queue
from plumbline.preferences.validation import dense_ranks, digest, response_key, task_fault, task_key

BATCH = 500

SALT = "import_salt"
"""The project's setting: a random text that goes into ids that would otherwise be digests of a person's name."""


def add_batch(turn: Turn, tasks: Sequence[NewTask], *, wanted: int | None = None) -> Added:
    """Add tasks that are not there yet. One that was only imported, or retired, is handed out from now on.

    Args:
        wanted: judgements to ask for; default: the project's overlap, none of imported tasks.

    Raises:
        UserError: a task has a fault; nothing of the batch is added.
    """
    overlap = select(Project.judgements_per_task).where(Project.id == turn.project_id)
    usual = turn.connection.execute(overlap).scalar_one() if wanted is None else wanted
    return _add_rows(turn, [_task_row(turn, task, 0 if task.origin.startswith("import:") else usual) for task in tasks])


def ask_batch(turn: Turn, wanted: int, *, after: int) -> int | None:
    """Ask for so many judgements of the next tasks that ask for another number.

    Args:
        wanted: judgements of each task, 1 or more.
        after: row id; tasks up to it were looked at.

    Returns:
        The last task's row id; None where there was none.
    """
    if not turn.connection.execute(_asking_otherwise(turn, wanted, after).limit(1)).first():
        return None
    # Tasks that were full may be open again, above where the annotators stand in the queue. Before the tasks, because
    # whoever answers locks their tally first.
    restart_queue(turn)
    query = _asking_otherwise(turn, wanted, after).order_by(Task.id).limit(BATCH).with_for_update(key_share=True)
    tasks = turn.connection.execute(query).scalars().all()
    if tasks:
        turn.connection.execute(update(Task).where(Task.id.in_(tasks)).values(wanted=wanted))
        measure(turn.connection, tasks)
    return tasks[-1] if tasks else None


def _asking_otherwise(turn: Turn, wanted: int, after: int) -> Select[int]:
    handed_out = (Task.project_id == turn.project_id) & (Task.wanted > 0) & Task.check_kind.is_(None)
    return select(Task.id).where(handed_out, Task.wanted != wanted, Task.id > after)


def retire_batch(turn: Turn, keys: Sequence[str], *, checks: bool) -> int:
    """Close tasks by their keys, `checks` among them only where asked; returns how many still asked for judgements."""
    query = not_retired(turn, keys)
    if not checks:
        query = query.where(Task.check_kind.is_(None))
    # In order of rows, so that nobody waits in a ring.
    rows = turn.connection.execute(query.order_by(Task.id).with_for_update()).all()
    if rows:
        turn.connection.execute(update(Task).where(Task.id.in_([row.id for row in rows])).values(retired=True))
    return sum(row.judged < row.wanted for row in rows)


def not_retired(turn: Turn, keys: Sequence[str]) -> Select[int, int, int]:
    """The query of a project's tasks with these keys, but for those that are retired."""
    named = (Task.project_id == turn.project_id) & Task.key.in_(keys) & ~Task.retired
    return select(Task.id, Task.judged, Task.wanted).where(named)


def take_batch(turn: Turn, judgements: Sequence[NewJudgement]) -> Taken:
    """Add judgements with their tasks and annotators; those that are there are left alone.

    Raises:
        UserError: a task has a fault, or a name belongs to the other kind of annotator; nothing of the batch is added.
    """
    # Known before anything is written: what is there brings back neither a task in another wording nor a name.
    new = _new(turn, judgements)
    return Taken(taken=_take(turn, new) if new else 0, present=len(judgements) - len(new))


def _new(turn: Turn, judgements: Sequence[NewJudgement]) -> dict[str, NewJudgement]:
    """The judgements that are not there yet, each once, by the ids that they get."""
    salt = _salt(turn) if any(judgement.key_names for judgement in judgements) else ""
    by_id: dict[str, NewJudgement] = {}
    for judgement in judgements:
        by_id.setdefault(_answer_id(judgement, salt), judgement)
    unsalted = {one: _answer_id(judgement, "") for one, judgement in by_id.items()}  # as older versions gave ids
    present = _present(turn, {*by_id, *unsalted.values()})
    return {one: said for one, said in by_id.items() if one not in present and unsalted[one] not in present}


def _answer_id(judgement: NewJudgement, salt: str) -> str:
    if judgement.judgement_id:
        return judgement.judgement_id
    return digest(salt, judgement.key) if salt and judgement.key_names else digest(judgement.key)


def _salt(turn: Turn) -> str:
    """What no exported id tells of the project: without it, a list of names could be tried until an id fits."""
    project = Project.id == turn.project_id
    settings = turn.connection.execute(select(Project.settings).where(project)).scalar_one() or {}
    if SALT not in settings:
        locked = select(Project.settings).where(project).with_for_update(key_share=True)
        settings = turn.connection.execute(locked).scalar_one() or {}
        settings = {SALT: secrets.token_hex(16), **settings}
        turn.connection.execute(update(Project).where(project).values(settings=settings))
    return str(settings[SALT])


def _take(turn: Turn, judgements: dict[str, NewJudgement]) -> int:
    task_rows = {answer_id: _task_row(turn, judgement.task, 0) for answer_id, judgement in judgements.items()}
    _add_rows(turn, list(task_rows.values()))
    annotators = _annotators(turn, judgements.values())
    tasks = _tasks_by_key(turn, task_rows.values())
    guidelines = _guidelines(turn) if any(judgement.guideline for judgement in judgements.values()) else {}
    faster = _present(turn, judgements)  # another import of the same, for whose tasks this one has waited
    rows: list[dict[str, Any]] = []
    for answer_id, judgement in judgements.items():
        if answer_id in faster:
            continue
        annotator, key = annotators[judgement.annotator], task_rows[answer_id]["key"]
        guideline = guidelines.get(judgement.guideline)
        row = _answer_row(turn, answer_id, judgement, tasks[key], annotator.id, guideline)
        rows.append(row)
        who = annotator.annotator_id
        audit.record_answer(turn.connection, project=turn.project, annotator_id=who, task_key=key, answer=row)
    if rows:
        turn.connection.execute(insert(Answer), rows)
        _count(turn, rows)
    return len(rows)


def _add_rows(turn: Turn, task_rows: Sequence[dict[str, Any]]) -> Added:
    rows = {row["key"]: row for row in reversed(task_rows)}  # of tasks that repeat, the first
    known = _tasks_by_key(turn, task_rows)
    for key, row in rows.items():
        if key not in known or not row["wanted"] or known[key].check_kind:  # a check is never work
            continue
        if row["wanted"] > known[key].wanted or known[key].retired:
            values = {"wanted": row["wanted"], "retired": False}
            turn.connection.execute(update(Task).where(Task.id == known[key].id).values(**values))
    new = [row for row in task_rows if row["key"] not in known and rows[row["key"]] is row]
    insert_new(turn.connection, Task, new)
    return Added(new=len(new), present=len(task_rows) - len(new))


def _task_row(turn: Turn, task: NewTask, wanted: int) -> dict[str, Any]:
    fault = task_fault(task)
    if fault:
        raise UserError(f"a task cannot be stored: {fault} (prompt: {str(task.prompt)[:80]})")
    key = task_key(task.prompt, _texts(task))
    responses = [
        {
            "id": response_key(key, response.text),
            "text": response.text,
            "source": response.source,
            "source_hash": response.source_hash,
            "meta": response.meta,
        }
        for response in task.responses
    ]
    return {
        "project_id": turn.project_id,
        "prompt_key": prompt_key(task.prompt),
        "key": key,
        "prompt": [{"role": message["role"], "content": message["content"]} for message in task.prompt],
        "responses": sorted(responses, key=lambda response: str(response["id"])),
        "meta": task.meta,
        "origin": task.origin,
        "wanted": wanted,
        "created_at": turn.now,
    }


def _texts(task: NewTask) -> list[str]:
    return [response.text for response in task.responses]


def _tasks_by_key(turn: Turn, task_rows: Collection[dict[str, Any]]) -> dict[str, Any]:
    # Asked for by prompt, because the index of contents starts with it.
    keys, prompt_keys = ({row[name] for row in task_rows} for name in ("key", "prompt_key"))
    query = select(Task.id, Task.key, Task.wanted, Task.retired, Task.responses, Task.check_kind).where(
        Task.project_id == turn.project_id, Task.prompt_key.in_(prompt_keys)
    )
    return {row.key: row for row in turn.connection.execute(query) if row.key in keys}


def _annotators(turn: Turn, judgements: Iterable[NewJudgement]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for judgement in judgements:
        if judgement.annotator not in known:
            row = enrol(
                turn.connection,
                judgement.annotator,
                simulated=judgement.simulated,
                settings=judgement.annotator_settings,
                now=turn.now,
                person=False,
            )
            ensure_tally(turn, row.id)
            known[judgement.annotator] = row
    return known


def _guidelines(turn: Turn) -> dict[int | None, int]:
    """The row ids of the project's guidelines by version."""
    query = select(Guideline.version, Guideline.id).where(Guideline.project_id == turn.project_id)
    return {row.version: row.id for row in turn.connection.execute(query)}


def _answer_row(
    turn: Turn, answer_id: str, judgement: NewJudgement, task: Any, annotator: int, guideline: int | None
) -> dict[str, Any]:
    size = len(judgement.task.responses)
    if len(judgement.ranks) != size or min(judgement.ranks) < 1:
        raise StoreError(f"{len(judgement.ranks)} ranks for {size} responses: every response has one rank, from 1.")
    place = {response["text"]: index for index, response in enumerate(task.responses)}
    places = [place[text] for text in _texts(judgement.task)]
    ranks = dict(zip(places, dense_ranks(judgement.ranks), strict=True))
    return {
        "answer_id": answer_id,
        "kind": "judgement",
        "project_id": turn.project_id,
        "task_id": task.id,
        "annotator_id": annotator,
        "lease_id": None,
        "ranks": [ranks[index] for index in range(size)],
        "shown_order": None if judgement.shown_order is None else [places[index] for index in judgement.shown_order],
        "judged_at": judgement.judged_at,
        "seconds": judgement.seconds,
        "strength": judgement.strength,
        "scores": judgement.scores,
        "reason": judgement.reason,
        "edited": judgement.edited,
        "flags": list(judgement.flags) or None,
        "purpose": judgement.purpose,
        "gaps": list(judgement.gaps) or None,
        "guideline_id": guideline,
        "origin": judgement.task.origin,
    }


def _present(turn: Turn, answer_ids: Iterable[str]) -> set[str]:
    query = select(Answer.answer_id).where(Answer.project_id == turn.project_id, Answer.answer_id.in_(list(answer_ids)))
    return set(turn.connection.execute(query).scalars())


def _count(turn: Turn, rows: list[dict[str, Any]]) -> None:
    by_task = Counter(row["task_id"] for row in rows)
    by_annotator = Counter(row["annotator_id"] for row in rows)
    _add(turn, Task.__table__.c.id, by_task, "taken", "judged")
    _add(turn, Tally.__table__.c.annotator_id, by_annotator, "judged")
    measure(turn.connection, list(by_task))


def _add(turn: Turn, key: Any, more: Counter[int], *columns: str) -> None:
    """Add to columns of the project's rows that `key` names; in order of rows, so that nobody waits in a ring."""
    table = key.table
    turn.connection.execute(
        update(table)
        .where(table.c.project_id == turn.project_id, key == bindparam("row"))
        .values({column: table.c[column] + bindparam("more") for column in columns}),
        [{"row": row, "more": number} for row, number in sorted(more.items())],
    )
