"""How long the store keeps names and records. Judgements are never deleted; the audit log is neither.

    due = what_is_due(store, settings)             # changes nothing
    clear_records(store, days=90)                  # what piles up and says nothing any more
    for person in due.people:
        pseudonymise(store, person, settings)      # as erasing them does, with their judgements kept

All of it concerns the whole store: people and their sessions belong to no one project.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select, tuple_

from plumbline.errors import UserError
from plumbline.preferences import audit
from plumbline.preferences.account_tables import Account, ApiToken, Delivery, LoginSession, Throttle
from plumbline.preferences.accounts import able_admin
from plumbline.preferences.erasure import Erased, erase_person
from plumbline.preferences.queue import OPEN
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Battle, Draft, Lease, QuizResult, Tally
from plumbline.preferences.turn import now_utc
from plumbline.recipe_privacy import RetentionSection

log = logging.getLogger(__name__)

ACTION = "retention"
AT_ONCE, LOOKED_FOR = 500, 50_000
"""Rows that one transaction deletes, so that annotators need not wait, and that are looked for at a time."""

FIRST_AFTER, AGAIN_AFTER = timedelta(minutes=1), timedelta(days=1)


@dataclass(frozen=True)
class Idle:
    """Somebody who has neither signed in nor worked for long; `last_seen` is when they did."""

    annotator_id: str
    name: str
    last_seen: datetime


@dataclass(frozen=True)
class DueNow:
    """What the recipe's retention would change.

    Attributes:
        people: who would get a random name, the longest idle first.
        spared: who would too, but is the last admin who can sign in.
        records: how many records would go, by what they are.
    """

    people: list[Idle]
    spared: list[Idle]
    records: dict[str, int]


def what_is_due(store: Store, settings: RetentionSection, *, clock: Callable[[], datetime] = now_utc) -> DueNow:
    """What is older than the recipe keeps it; nothing is changed."""
    people, spared = names_due(store, settings, clock=clock)
    if settings.records_days is None:
        return DueNow(people, spared, {})
    kinds = _kinds_of_records(clock() - timedelta(days=settings.records_days))
    with store.read() as connection:
        counts = (select(func.count()).select_from(kind.table).where(kind.old) for kind in kinds)
        numbers = [connection.execute(query).scalar_one() for query in counts]
    return DueNow(people, spared, {kind.what: number for kind, number in zip(kinds, numbers, strict=True) if number})


def names_due(
    store: Store, settings: RetentionSection, *, clock: Callable[[], datetime] = now_utc
) -> tuple[list[Idle], list[Idle]]:
    """`DueNow.people` and `DueNow.spared`."""
    people: list[Idle] = []
    spared: list[Idle] = []
    if settings.names_days is not None:
        with store.read() as connection:
            admins = _admins(connection, clock())
            for person in _idle_people(connection, clock() - timedelta(days=settings.names_days)):
                if admins == {person.annotator_id}:
                    spared.append(person)
                else:
                    people.append(person)
                    admins.discard(person.annotator_id)
    return people, spared


def pseudonymise(
    store: Store,
    person: Idle,
    settings: RetentionSection,
    *,
    clock: Callable[[], datetime] = now_utc,
    before_commit: Callable[[Erased], object] | None = None,
) -> Erased | None:
    """Put a random name in place of somebody's, in one transaction; see `erasure.erase`.

    Returns:
        What was done; None where they signed in or worked meanwhile, or are the last admin now. The database's files
        are not cleaned of old bytes yet (`erasure.clean_files`).
    """
    assert settings.names_days is not None
    now = clock()
    with store.write() as connection:
        # Locked, because signing in writes this row; not against answers, which only refer to it.
        known = select(Annotator.__table__).where(Annotator.annotator_id == person.annotator_id)
        row = connection.execute(known.with_for_update(key_share=True)).one()
        idle = _is_idle(now - timedelta(days=settings.names_days))
        still = connection.execute(select(Annotator.id).where(Annotator.id == row.id, idle)).one_or_none()
        if still is None or _admins(connection, now, locked=True) == {person.annotator_id}:
            return None
        keep = settings.keep_texts
        erased = erase_person(connection, store, row, remove=False, keep_texts=keep, actor=None, at=now, why=ACTION)
        if before_commit:
            before_commit(erased)
        return erased


def clear_records(store: Store, *, days: int, clock: Callable[[], datetime] = now_utc) -> dict[str, int]:
    """Delete records that ended so many days ago; returns how many, by what they are."""
    now = clock()
    gone: dict[str, int] = {}
    for kind in _kinds_of_records(now - timedelta(days=days)):
        if number := sum(_deleted(store, kind)):
            gone[kind.what] = number
    if gone:
        with store.write() as connection:
            details = {"days": days, "records": gone}
            audit.record(connection, at=now, project=None, action=ACTION, details=details)
    return gone


class Daily:
    """Clears records once a day, from a thread of the server; of people it only says how many are due.

    Args:
        settings: the recipe's section `annotate.retention`.
        clock: gives the present moment; tests set it.
    """

    def __init__(self, store: Store, settings: RetentionSection, *, clock: Callable[[], datetime] = now_utc) -> None:
        self.store, self.settings, self.clock = store, settings, clock
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin a minute from now, as long as the process lives or until `stop`."""
        threading.Thread(target=self._run, name="retention", daemon=True).start()

    def stop(self) -> None:
        """End the thread after what it is at."""
        self._stop.set()

    def once(self) -> None:
        """Clear what is due now."""
        if self.settings.records_days is not None:
            gone = clear_records(self.store, days=self.settings.records_days, clock=self.clock)
            if gone:
                log.info("retention: deleted %s", told(gone))
        people, _ = names_due(self.store, self.settings, clock=self.clock)
        if people:
            log.warning("retention: names are due (%d): run `plumbline retain`", len(people))

    def _run(self) -> None:
        wait = FIRST_AFTER
        while not self._stop.wait(wait.total_seconds()):
            wait = AGAIN_AFTER
            try:
                self.once()
            except UserError as error:  # the database is away: tomorrow is soon enough
                log.warning("retention: %s", error)
            except Exception:
                log.exception("retention: a round failed")


def told(records: dict[str, int]) -> str:
    """Numbers of records in words."""
    return ", ".join(f"{what}: {number:,}" for what, number in records.items())


# -- people ----------------------------------------------------------------------------------------------------------


def _is_idle(since: datetime) -> ColumnElement[bool]:
    """Whether the annotator of the enclosing query is somebody of this store who did nothing in it since then.

    Those whose names came with an imported file have neither signed in nor had a task: a second import would bring the
    name back.
    """
    # Sets, each found once, because no index leads from a person to what they did in all projects.
    here = or_(
        Annotator.signed_in_at.is_not(None),
        *(Annotator.id.in_(select(table.annotator_id)) for table in (Account, Lease, Battle)),
    )
    active = or_(
        Annotator.created_at >= since,
        and_(Annotator.signed_in_at.is_not(None), Annotator.signed_in_at >= since),
        *(Annotator.id.in_(select(table.annotator_id).where(moment >= since)) for table, moment in _MOMENTS),
    )
    return and_(Annotator.erased_at.is_(None), ~Annotator.simulated, here, ~active)


_MOMENTS: tuple[tuple[Any, Any], ...] = (
    (Answer, Answer.judged_at),
    (Lease, Lease.created_at),
    (Draft, Draft.saved_at),
    (Battle, Battle.created_at),
    (QuizResult, QuizResult.tried_at),
    (LoginSession, LoginSession.expires_at),
    (Account, Account.changed_at),
)
"""What tells that somebody was there; a session does until it ends."""


def _idle_people(connection: Connection, since: datetime) -> list[Idle]:
    rows = connection.execute(select(Annotator.__table__).where(_is_idle(since))).all()
    seen = {row.id: max(row.created_at, row.signed_in_at or row.created_at) for row in rows}
    for table, moment in _MOMENTS if rows else ():
        newest = select(table.annotator_id, func.max(moment)).where(moment.is_not(None)).group_by(table.annotator_id)
        for annotator, at in connection.execute(newest):
            if annotator in seen:
                seen[annotator] = max(seen[annotator], at)
    people = [Idle(row.annotator_id, row.name, seen[row.id]) for row in rows]
    return sorted(people, key=lambda person: (person.last_seen, person.annotator_id))


def _admins(connection: Connection, now: datetime, *, locked: bool = False) -> set[str]:
    """Admins who can sign in; locked, so that two calls do not take away each the other's last one."""
    query = select(Annotator.annotator_id, Account.annotator_id).join(Account, Account.annotator_id == Annotator.id)
    query = query.where(able_admin(now)).order_by(Account.annotator_id)
    if locked:
        query = query.with_for_update(of=Account)
    return {row[0] for row in connection.execute(query)}


# -- records ---------------------------------------------------------------------------------------------------------


class _Records(NamedTuple):
    """A kind of record: what it is, its table, its primary key, and which of it are old."""

    what: str
    table: Any
    key: tuple[Any, ...]
    old: ColumnElement[bool]


def _kinds_of_records(before: datetime) -> list[_Records]:
    answered = exists().where(Answer.lease_id == Lease.id)
    left = exists().where(Tally.aside == Lease.id)  # comes again to who left it
    held = exists().where(Lease.task_id == Draft.task_id, Lease.annotator_id == Draft.annotator_id, Lease.state == OPEN)
    later = Battle.__table__.alias("later")
    followed = exists().where(later.c.before_id == Battle.id)
    return [
        _Records(
            "leases without an answer",
            Lease,
            (Lease.id,),
            and_(Lease.state != OPEN, Lease.expires_at < before, ~answered, ~left),
        ),
        _Records(
            "drafts", Draft, (Draft.task_id, Draft.annotator_id, Draft.purpose), and_(Draft.saved_at < before, ~held)
        ),
        _Records("sessions", LoginSession, (LoginSession.id,), LoginSession.expires_at < before),
        _Records("counts of sign-ins and requests", Throttle, (Throttle.key,), Throttle.last_at < before),
        _Records("tokens", ApiToken, (ApiToken.id,), or_(ApiToken.revoked_at < before, ApiToken.expires_at < before)),
        # Sending is given up after a day. Progress stays: it keeps the same step from being told again.
        _Records(
            "webhook deliveries",
            Delivery,
            (Delivery.id,),
            and_(Delivery.created_at < before, Delivery.event != "progress"),
        ),
        _Records(
            "arena turns without a vote",
            Battle,
            (Battle.id,),
            and_(Battle.vote.is_(None), Battle.created_at < before, ~followed),
        ),
    ]


def _deleted(store: Store, kind: _Records) -> Iterator[int]:
    """Delete what is old of a kind, piece by piece; yields the size of each.

    It is looked for without a lock: of a large store that takes longer than annotators should wait.
    """
    while True:
        with store.read() as connection:
            keys = [tuple(key) for key in connection.execute(select(*kind.key).where(kind.old).limit(LOOKED_FOR))]
        for start in range(0, len(keys), AT_ONCE):
            # Asked once more: a draft may have been saved anew meanwhile.
            those = tuple_(*kind.key).in_(keys[start : start + AT_ONCE]) & kind.old
            with store.write() as connection:
                if store.is_sqlite:  # what is deleted is overwritten with zeros
                    connection.exec_driver_sql("PRAGMA secure_delete = ON")
                number = connection.execute(delete(kind.table).where(those)).rowcount
            yield number
        if len(keys) < LOOKED_FOR:
            return
