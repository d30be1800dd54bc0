"""What every change to the store starts from: one transaction of one project, and the annotator who acts in it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Update, bindparam, delete, insert, select, update

from plumbline.errors import StoreError
from plumbline.preferences import audit, records
from plumbline.preferences.account_tables import Account
from plumbline.preferences.store import Store, insert_new
from plumbline.preferences.tables import Annotator, Project, Tally
from plumbline.preferences.validation import checked_name

NO_PROJECT = 0
"""Stands for a project that is not in the store; row ids begin at 1, so that nothing is found of it."""


def now_utc() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Turn:
    """One transaction: its connection, the project's row id, the time at which it happens, and the project's name."""

    connection: Connection
    project_id: int
    now: datetime
    project: str = ""

    def record(self, action: str, subject: str | None = None, **details: Any) -> None:
        """Add an entry to the audit log; see `plumbline.preferences.audit.record`."""
        audit.record(
            self.connection, at=self.now, project=self.project, action=action, subject=subject, details=details or None
        )


class Cursor(NamedTuple):
    """A place in the queue, which is sorted by the tasks' deferral, then by their row ids."""

    deferral: int
    task: int


NOT_KNOWN = "this annotator is not known to the store: sign in again."

TOP = Cursor(-(2**31), 0)
"""Before all tasks."""


@dataclass(frozen=True)
class Actor:
    """The annotator who acts; `cursor` is how far down the queue they are, `tally` their row of `tables.Tally`."""

    id: int
    annotator_id: str
    name: str
    cursor: Cursor
    simulated: bool
    tally: Row[Any]

    @property
    def seed(self) -> str:
        """What the orders that they see are drawn from: of people their random id, because exported rows without names
        hold the orders, and a list of names could be matched to these; of simulated annotators the name."""
        return self.name if self.simulated else self.annotator_id

    @property
    def answered(self) -> int:
        """How many tasks they answered, whatever they said."""
        return int(self.tally.judged + self.tally.skipped + self.tally.flagged)


class Facet:
    """One side of the rules of a project in a store; making it, and reading through it, changes nothing.

    Args:
        store: an open store; several facets and processes may share it.
        project: the domain's name. Projects in one store do not see each other's tasks.
        clock: gives the present moment; tests set it.
    """

    def __init__(self, store: Store, *, project: str, clock: Callable[[], datetime] = now_utc) -> None:
        if not project.strip():
            raise StoreError("the project's name is empty.")
        self.store = store
        self.project = project
        self.clock = clock

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A transaction that may write; inside another one of the same thread it joins that."""
        with self.store.write() as connection:
            projects = self.store.found
            if self.project not in projects:
                projects[self.project] = ensure_project(connection, self.project)
            yield Turn(connection, projects[self.project], self.clock(), self.project)

    @contextmanager
    def look(self) -> Iterator[Turn]:
        """A transaction that only reads: one consistent state."""
        with self.store.read() as connection:
            yield Turn(connection, project_in(connection, self.project), self.clock(), self.project)


PROJECT_OF_NAME = select(Project.id).where(Project.name == bindparam("name"))


def project_in(connection: Connection, name: str) -> int:
    """The project's row id; `NO_PROJECT` where nothing was ever written of it."""
    found = connection.execute(PROJECT_OF_NAME, {"name": name}).scalar_one_or_none()
    return NO_PROJECT if found is None else found


def ensure_project(connection: Connection, name: str) -> int:
    """The project's row id; the row is made where there is none, with one judgement for each task."""
    project = project_in(connection, name)
    if project == NO_PROJECT:
        insert_new(connection, Project, [{"name": name, "judgements_per_task": 1}])
        project = project_in(connection, name)  # ours, or that of somebody who was faster
    return project


def known_annotator(connection: Connection, annotator_id: str) -> Row[Any]:
    """The annotator's row.

    Raises:
        StoreError: nobody has this id.
    """
    row = connection.execute(select(Annotator.__table__).where(Annotator.annotator_id == annotator_id)).one_or_none()
    if row is None:
        raise StoreError(NOT_KNOWN)
    return row


ACTOR = (
    select(Tally.__table__, Annotator.name, Annotator.simulated, Annotator.erased_at, Account.active)
    .join(Annotator, Annotator.id == Tally.annotator_id)
    .outerjoin(Account, Account.annotator_id == Annotator.id)
    .where(Annotator.annotator_id == bindparam("annotator_id"), Tally.project_id == bindparam("project"))
    .with_for_update(of=Tally)
)


def acting(turn: Turn, annotator_id: str) -> Actor:
    """The annotator, locked for the rest of the transaction: what one annotator does happens in sequence.

    Raises:
        StoreError: nobody has this id, they were erased, or their account was closed.
    """
    asked = {"annotator_id": annotator_id, "project": turn.project_id}
    row = turn.connection.execute(ACTOR, asked).one_or_none()
    if row is None:  # they do something in this project for the first time
        ensure_tally(turn, known_annotator(turn.connection, annotator_id).id)
        row = turn.connection.execute(ACTOR, asked).one()
    if row.erased_at is not None:
        raise StoreError(NOT_KNOWN)
    if row.active is False:
        raise StoreError("your account is closed: ask whoever leads the work.")
    place = Cursor(row.cursor_deferral, row.cursor)
    return Actor(row.annotator_id, annotator_id, row.name, place, row.simulated, row)


def renew_tallies(connection: Connection, annotator: int) -> None:
    """Write an annotator's tallies anew, before they are erased or their account is closed.

    What they do at this moment waits for a tally. It then finds that one gone and looks again at who they are: of all
    else in the query that waited, PostgreSQL would take what was there before (see `acting`).
    """
    theirs = delete(Tally).where(Tally.annotator_id == annotator).returning(*Tally.__table__.columns)
    rows = [row._asdict() for row in connection.execute(theirs)]
    if rows:
        connection.execute(insert(Tally), rows)


def ensure_tally(turn: Turn, annotator: int) -> None:
    """Make the annotator's row of counts in this project, where there is none."""
    insert_new(turn.connection, Tally, [{"project_id": turn.project_id, "annotator_id": annotator}])


def count(turn: Turn, annotator: int, **changes: int) -> None:
    """Add to the annotator's counts: `judged=1, skipped=-1`."""
    changed = {name: change for name, change in changes.items() if change}
    if changed:
        mine = {"project": turn.project_id, "annotator": annotator}
        more = {f"more_{name}": change for name, change in changed.items()}
        turn.connection.execute(_adding(*sorted(changed)), mine | more)


@cache
def _adding(*columns: str) -> Update:
    mine = (Tally.project_id == bindparam("project")) & (Tally.annotator_id == bindparam("annotator"))
    more = {name: getattr(Tally, name) + bindparam(f"more_{name}") for name in columns}
    return update(Tally).where(mine).values(more)


def enrol(
    connection: Connection, name: str, *, simulated: bool, settings: dict[str, Any], now: datetime, person: bool
) -> Row[Any]:
    """The annotator of this name, made where there is none. Names differ in more than case and white space.

    Args:
        person: somebody signs in; the names of imported annotators are not for them.

    Raises:
        StoreError: the name is not usable, belongs to the other kind, or to a simulated annotator with other settings;
            or a person asks for the pseudonym of somebody who was erased.
    """
    name = checked_name(name, person=person)
    row = holder_of(connection, name, simulated=simulated, settings=settings)
    if row is None:
        values = {"annotator_id": uuid.uuid4().hex, "name": name, "name_key": name.casefold()}
        insert_new(connection, Annotator, [{**values, "simulated": simulated, "settings": settings, "created_at": now}])
        row = holder_of(connection, name, simulated=simulated, settings=settings)  # ours, or that of somebody faster
        assert row is not None
    if person and row.erased_at is not None:
        raise StoreError(f"the name {row.name!r} stands for an erased person: choose another name.")
    return row


def holder_of(connection: Connection, name: str, *, simulated: bool, settings: dict[str, Any]) -> Row[Any] | None:
    """The annotator who has this name; None where it is free.

    Raises:
        StoreError: it belongs to the other kind, or to a simulated annotator with other settings.
    """
    named = select(Annotator.__table__).where(Annotator.name_key == name.casefold())
    row = connection.execute(named).one_or_none()
    if row is None:
        return None
    if row.simulated != simulated:
        holder = "a simulated annotator" if row.simulated else "a person"
        raise StoreError(f"the name {row.name!r} belongs to {holder} in this store: choose another name.")
    if simulated and row.settings != settings:
        raise StoreError(
            f"the simulated annotator {row.name!r} is in this store with other settings "
            f"({_differences(row.settings, settings)}). So that judgements can be told apart, give it another name (in "
            "a recipe: annotate.simulated.annotators), or the old settings again, or use another store or run."
        )
    return row


def as_annotator(row: Row[Any]) -> records.Annotator:
    """An annotator's row as a plain value."""
    return records.Annotator(annotator_id=row.annotator_id, name=row.name, simulated=row.simulated)


def _differences(stored: dict[str, Any], asked: dict[str, Any]) -> str:
    pairs = {name: (stored.get(name, "not set"), asked.get(name, "not set")) for name in sorted(stored | asked)}
    return "; ".join(f"{name}: {there} there, {here} here" for name, (there, here) in pairs.items() if there != here)


def restart_queue(turn: Turn) -> None:
    """Let everybody look through the queue from the top: something free may soon be above where they stand.

    To be called before tasks are changed: whoever answers locks their tally first, then the task.
    """
    top = {"cursor_deferral": TOP.deferral, "cursor": TOP.task}
    turn.connection.execute(update(Tally).where(Tally.project_id == turn.project_id).values(**top))
