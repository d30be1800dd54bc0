"""Erasing a person from a store: their name, account and sessions always; their judgements and texts by choice.

What stays of kept judgements is rankings, grades, scores, flags and times, under a random name. An arena vote stays
with the conversation that it is about, which the annotator may have typed; to be rid of that, remove the judgements.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.exc import DBAPIError

from plumbline.errors import StoreError, counted
from plumbline.preferences import audit
from plumbline.preferences.account_tables import Account, LoginSession, Throttle
from plumbline.preferences.adjudication import measure
from plumbline.preferences.audit_check import ERASE, REMOVED
from plumbline.preferences.queue import OPEN, RELEASED, decides_flag
from plumbline.preferences.records import ADJUDICATION, DISMISSAL, FLAG, GOLD, JUDGEMENT, WORK
from plumbline.preferences.store import Store
from plumbline.preferences.tables import (
    Annotator,
    Answer,
    Battle,
    Consent,
    Draft,
    Lease,
    PoolMember,
    Project,
    QuizResult,
    Tally,
    Task,
    TaskAllowance,
    current,
)
from plumbline.preferences.throttle import sources_of
from plumbline.preferences.turn import TOP, now_utc, renew_tallies
from plumbline.preferences.webhooks import enqueue

KEPT = "kept"
OF_PERSON = (Draft, Consent, QuizResult, PoolMember, TaskAllowance, LoginSession, Account)
"""Tables of which everything is deleted in either case."""


@dataclass(frozen=True)
class Erased:
    """What an erasure did.

    Attributes:
        annotator_id: the random id, which is what the audit log holds.
        name: the name that was erased; kept nowhere.
        pseudonym: the name that what was kept has now.
        answers: how many there were of each kind, earlier versions of corrected ones included.
        removed: whether the answers were removed.
        texts_removed: whether reasons and edited responses were.
        reopened: tasks that ask for more judgements than before.
        answer_ids: of all their answers, to look for in snapshots.
        decisions: ids of what others said in place of their answers, which stays without words.
        stranded: open tasks that were kept for them and are for nobody now, in words.
        clean: whether the database freed its old pages, so that the name's bytes are gone from its files.
    """

    annotator_id: str
    name: str
    pseudonym: str
    answers: dict[str, int]
    removed: bool
    texts_removed: bool
    reopened: int
    answer_ids: frozenset[str]
    decisions: tuple[str, ...]
    stranded: tuple[str, ...] = ()
    clean: bool = True


def erase(
    store: Store,
    name: str,
    *,
    remove_judgements: bool,
    keep_texts: bool = False,
    actor: str | None = None,
    clock: Callable[[], datetime] = now_utc,
    before_commit: Callable[[Erased], object] | None = None,
) -> Erased:
    """Erase a person, in one transaction.

    Args:
        name: as they signed in; case does not matter.
        remove_judgements: remove what they answered; their tasks are handed out again. Otherwise it stays under a
            pseudonym.
        keep_texts: keep the reasons and edited responses of kept judgements.
        actor: the annotator id of whoever does this, for the audit log.
        before_commit: is told what is about to be committed.

    Raises:
        StoreError: there is nobody of this name, or it is a simulated annotator.
    """
    with store.write() as connection:
        person = _person(connection, name)
        erased = erase_person(
            connection, store, person, remove=remove_judgements, keep_texts=keep_texts, actor=actor, at=clock()
        )
        if before_commit:
            before_commit(erased)
    return replace(erased, clean=clean_files(store))


def erase_person(
    connection: Connection,
    store: Store,
    person: Row[Any],
    *,
    remove: bool,
    keep_texts: bool,
    actor: str | None,
    at: datetime,
    why: str | None = None,
) -> Erased:
    """Erase a person in a transaction that is open; see `erase`. The files are not cleaned (`clean_files`).

    Args:
        person: their row.
        why: what made it happen, for the audit log, where nobody asked for it.
    """
    if store.is_sqlite:  # what is deleted or replaced is overwritten with zeros
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
    renew_tallies(connection, person.id)
    projects = _projects(connection, person.id)
    pseudonym = f"erased-{secrets.token_hex(6)}"
    erased = _erase(connection, person, pseudonym, remove=remove, keep_texts=keep_texts)
    values = {"name": pseudonym, "name_key": pseudonym, "settings": {}, "erased_at": at}
    connection.execute(update(Annotator).where(Annotator.id == person.id).values(**values))
    _tell(connection, store, erased, projects, actor=actor, at=at, why=why)
    return erased


def _erase(connection: Connection, person: Row[Any], pseudonym: str, *, remove: bool, keep_texts: bool) -> Erased:
    """Erase what is of the person in all tables but their own."""
    found = _counts(connection, person.id, but_decisions=remove)
    reserved = _reserved_for(connection, person.id)
    ids = frozenset(connection.execute(select(Answer.answer_id).where(Answer.annotator_id == person.id)).scalars())
    _end_leases(connection, person.id)
    for table in OF_PERSON:
        connection.execute(delete(table).where(table.annotator_id == person.id))
    connection.execute(delete(Throttle).where(Throttle.key == sources_of(person.name, "")[0].key))
    detached = _decisions(connection, person.id)
    reopened = 0
    if remove:
        _change(connection, list(detached), supersedes_id=None, reason=None)
        reopened = _remove_answers(connection, person.id)
    else:
        _keep_answers(connection, person.id, keep_texts=keep_texts)
        if not keep_texts:
            _change(connection, list(detached), reason=None)
    return Erased(
        annotator_id=person.annotator_id,
        name=person.name,
        pseudonym=pseudonym,
        answers=found,
        removed=remove,
        texts_removed=remove or not keep_texts,
        reopened=reopened,
        answer_ids=ids,
        decisions=tuple(sorted(detached.values())),
        stranded=tuple(_stranded(connection, reserved)),
    )


def _tell(
    connection: Connection,
    store: Store,
    erased: Erased,
    projects: dict[int, str],
    *,
    actor: str | None,
    at: datetime,
    why: str | None,
) -> None:
    """Write the audit log's entry, and tell the webhooks of each project."""
    details = {
        "judgements": REMOVED if erased.removed else KEPT,
        "texts": REMOVED if erased.texts_removed else KEPT,
        "answers": erased.answers,
        "reopened": erased.reopened,
        "decisions": list(erased.decisions),
        **({"why": why} if why else {}),
    }
    who = erased.annotator_id
    audit.record(connection, at=at, project=None, actor=actor, action=ERASE, subject=who, details=details)
    for project_id, project in projects.items():
        enqueue(
            connection,
            store.subscriptions,
            project_id=project_id,
            project=project,
            event="erasure",
            at=at,
            data={"annotator_id": who, **details},
        )


def clean_files(store: Store) -> bool:
    """Write the database's files anew, without the bytes of what was deleted before; says whether that worked.

    It does not work while another program uses an SQLite file, or its disk has no room for a copy.
    """
    raw = store.engine.connect()
    try:
        driver: Any = raw.connection.dbapi_connection
        if store.is_sqlite:
            driver.execute("VACUUM")
            return bool(driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
        driver.rollback()
        driver.autocommit = True
        driver.execute("VACUUM annotators, answers, leases, drafts, tallies, accounts, battles, quiz_results")
        driver.autocommit = False
        return True
    except Exception as error:
        if not isinstance(error, DBAPIError | store.engine.dialect.dbapi.Error):  # type: ignore[union-attr]
            raise
        return False
    finally:
        raw.close()


def _person(connection: Connection, name: str) -> Row[Any]:
    key = " ".join(name.split()).casefold()
    row = connection.execute(select(Annotator.__table__).where(Annotator.name_key == key)).one_or_none()
    if row is None:
        raise StoreError(f"there is nobody called {name!r} in this store.")
    if row.simulated:
        raise StoreError(f"{row.name!r} is a simulated annotator: there is no person to erase.")
    if row.erased_at is not None:
        raise StoreError(f"{row.name!r} is the pseudonym of somebody who was erased already.")
    return row


def _counts(connection: Connection, person: int, *, but_decisions: bool) -> dict[str, int]:
    theirs = Answer.annotator_id == person
    if but_decisions:
        theirs &= ~_decides_for_others(person)
    query = select(Answer.kind, func.count()).where(theirs).group_by(Answer.kind)
    return {row.kind: row[1] for row in connection.execute(query)}


def _reserved_for(connection: Connection, person: int) -> ColumnElement[bool]:
    """The condition that a task was kept for them: by name, or for a pool of theirs."""
    named = connection.execute(select(TaskAllowance.task_id).where(TaskAllowance.annotator_id == person)).scalars()
    member = select(PoolMember.project_id, PoolMember.pool).where(PoolMember.annotator_id == person)
    pools = [tuple(row) for row in connection.execute(member)]
    return or_(Task.id.in_(named.all()), tuple_(Task.project_id, Task.pool).in_(pools))


def _stranded(connection: Connection, reserved: ColumnElement[bool]) -> Iterator[str]:
    """Tell which open ones of these tasks nobody may have any more. Whom to give them to is the lead's decision."""
    unnamed = Task.restricted & ~exists().where(TaskAllowance.task_id == Task.id)
    members = exists().where(PoolMember.project_id == Task.project_id, PoolMember.pool == Task.pool)
    nobody = or_(unnamed, Task.pool.is_not(None) & ~members)
    is_open = (Task.judged < Task.wanted) & (Task.flagged == 0) & ~Task.retired
    query = select(Project.name, Task.pool, Task.key, unnamed).join(Project, Project.id == Task.project_id)
    pools: Counter[tuple[str, str | None]] = Counter()
    for project, pool, key, by_name in connection.execute(query.where(reserved, nobody, is_open).order_by(Task.id)):
        if by_name:
            yield f"the task {key} of the project {project}"
        else:
            pools[project, pool] += 1
    for (project, pool), tasks in pools.items():
        yield f"{counted(tasks, 'task')} of the pool {pool!r} of the project {project}"


def _projects(connection: Connection, person: int) -> dict[int, str]:
    query = select(Project.id, Project.name).join(Tally, Tally.project_id == Project.id)
    return {row.id: row.name for row in connection.execute(query.where(Tally.annotator_id == person))}


def _end_leases(connection: Connection, person: int) -> None:
    """Give back what is in their hands."""
    theirs = (Lease.annotator_id == person) & (Lease.state == OPEN)
    held = connection.execute(select(Lease.task_id, Lease.slot).where(theirs)).all()
    connection.execute(update(Lease).where(theirs).values(state=RELEASED))
    _recount(connection, [lease.task_id for lease in held if lease.slot])


def _decisions(connection: Connection, person: int) -> dict[int, str]:
    """What others said in place of their answers, such as a lead of their flags, whose words these may repeat."""
    theirs = select(Answer.id).where(Answer.annotator_id == person)
    query = select(Answer.id, Answer.answer_id).where(Answer.supersedes_id.in_(theirs), Answer.annotator_id != person)
    return {row.id: row.answer_id for row in connection.execute(query)}


def _change(connection: Connection, answers: list[int], **values: Any) -> None:
    for some in _pieces(answers):
        connection.execute(update(Answer).where(Answer.id.in_(some)).values(**values))


def _keep_answers(connection: Connection, person: int, *, keep_texts: bool) -> None:
    connection.execute(update(Tally).where(Tally.annotator_id == person).values(paused=None, quota=None, quiz=None))
    # Turns of the arena without a vote are no judgements.
    connection.execute(delete(Battle).where(Battle.annotator_id == person, Battle.vote.is_(None), ~_has_later()))
    if not keep_texts:
        theirs = (Answer.annotator_id == person) & or_(Answer.reason.is_not(None), Answer.edited.is_not(None))
        connection.execute(update(Answer).where(theirs).values(reason=None, edited=None))


def _has_later() -> Any:
    later = Battle.__table__.alias("later")
    return exists().where(later.c.before_id == Battle.id)


def _remove_answers(connection: Connection, person: int) -> int:
    """Remove all answers with their leases; returns how many tasks ask for more judgements than before.

    What they decided as a lead about flags of others stays: without it these would count again.
    """
    theirs = (Answer.annotator_id == person) & ~_decides_for_others(person)
    answered = connection.execute(select(Answer.task_id, Answer.project_id, Answer.purpose).where(theirs).distinct())
    rows = answered.all()
    tasks = sorted({row.task_id for row in rows})
    decided = sorted({row.task_id for row in rows if row.purpose == ADJUDICATION})
    before = _missing(connection, tasks)
    _drop_gold(connection, person, decided)
    connection.execute(delete(Battle).where(Battle.annotator_id == person))
    connection.execute(delete(Answer).where(theirs))
    connection.execute(delete(Lease).where(Lease.annotator_id == person))
    connection.execute(delete(Tally).where(Tally.annotator_id == person))
    _recount(connection, tasks)
    for some in _pieces(tasks):
        measure(connection, some)
        connection.execute(delete(Task).where(Task.id.in_(some), Task.origin == "arena", ~_is_used()))
    for some in _pieces(decided):
        connection.execute(update(Task).where(Task.id.in_(some)).values(adjudicated=_is_adjudicated()))
    # The others look through the queue from its top again: these tasks lie above where they stand.
    projects = select(Project.id).where(Project.id.in_({row.project_id for row in rows}))
    restart = {"cursor_deferral": TOP.deferral, "cursor": TOP.task}
    connection.execute(update(Tally).where(Tally.project_id.in_(projects)).values(**restart))
    return sum(missing > before.get(task, 0) for task, missing in _missing(connection, tasks).items())


def _decides_for_others(person: int) -> ColumnElement[bool]:
    """Of an answer of theirs: whether it is a lead's decision about a flag of somebody else."""
    flag = Answer.__table__.alias("flag")
    own = exists().where(flag.c.id == Answer.supersedes_id, flag.c.annotator_id == person)
    return and_(Answer.kind.in_((FLAG, DISMISSAL)), decides_flag(), ~own)


def _is_adjudicated() -> ColumnElement[bool]:
    """Whether another adjudicator has decided the task."""
    ranked = (Answer.purpose == ADJUDICATION) & (Answer.kind == JUDGEMENT) & Answer.lease_id.is_not(None)
    return exists().where(Answer.task_id == Task.id, ranked, current())


def _drop_gold(connection: Connection, person: int, decided: list[int]) -> None:
    """Gold items whose expected ranking is one that they gave as adjudicator are gold no longer."""
    for some in _pieces(decided):
        theirs = (Answer.annotator_id == person) & (Answer.purpose == ADJUDICATION) & Answer.task_id.in_(some)
        query = select(Task.id, Task.expected, Answer.ranks).join(Answer, Answer.task_id == Task.id)
        gold = connection.execute(query.where(theirs, Task.check_kind == GOLD)).all()
        repeated = [row.id for row in gold if row.expected == row.ranks]
        connection.execute(update(Task).where(Task.id.in_(repeated)).values(check_kind=None, expected=None))


def _is_used() -> Any:
    return or_(
        exists().where(Answer.task_id == Task.id),
        exists().where(Battle.task_id == Task.id),
        exists().where(Lease.task_id == Task.id),
    )


def _missing(connection: Connection, tasks: list[int]) -> dict[int, int]:
    """How many judgements each task asks for."""
    missing = {}
    for some in _pieces(tasks):
        query = select(Task.id, Task.wanted, Task.judged, Task.flagged, Task.retired).where(Task.id.in_(some))
        for row in connection.execute(query):
            closed = row.flagged or row.retired
            missing[row.id] = 0 if closed else max(row.wanted - row.judged, 0)
    return missing


def _recount(connection: Connection, tasks: list[int]) -> None:
    """Count the tasks' judgements, flags and places anew from what is there (see `Task`)."""
    of_task = select(func.count()).where(Answer.task_id == Task.id, current())
    counts = or_(Answer.lease_id.is_(None), Answer.purpose == WORK)
    judged = of_task.where(Answer.kind == JUDGEMENT, counts).scalar_subquery()
    flagged = of_task.where(Answer.kind == FLAG).scalar_subquery()
    held = select(func.count()).where(Lease.task_id == Task.id, Lease.state == OPEN, Lease.slot).scalar_subquery()
    for some in _pieces(sorted(set(tasks))):
        # Locked first: who counts while another change of a task is being committed would count without it.
        connection.execute(select(Task.id).where(Task.id.in_(some)).order_by(Task.id).with_for_update())
        values = {"judged": judged, "flagged": flagged, "taken": judged + held}
        connection.execute(update(Task).where(Task.id.in_(some)).values(**values))


def _pieces(ids: list[int], size: int = 500) -> Iterator[list[int]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
