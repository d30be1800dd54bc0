"""Accounts: who may sign in, with which password, and in which role. They belong to the store, not to one project.

    accounts = Accounts(store)
    ada = accounts.create("Ada", ADMIN)
    print(accounts.issue_password(ada.annotator_id))    # holds once: the first sign-in asks for another
    ada, token = accounts.sign_in("Ada", typed, address="203.0.113.5", sessions=LoginSessions(store, accounts=True))

Every method is one transaction, and no lock is held while a password is hashed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, func, insert, or_, select, update

from plumbline.errors import StoreError
from plumbline.preferences import audit, queue
from plumbline.preferences.account_tables import Account as AccountRow
from plumbline.preferences.account_tables import LoginSession
from plumbline.preferences.adjudication import take_back_disputes
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.passwords import Passwords, check_password, one_time_password
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Lease, Tally
from plumbline.preferences.throttle import Attempt, count_attempt, forgive_attempt, sources_of
from plumbline.preferences.turn import NO_PROJECT, Turn, enrol, now_utc, renew_tallies
from plumbline.preferences.validation import note_fault

ANNOTATOR, LEAD, ADMIN = ROLES = ("annotator", "lead", "admin")
ONE_TIME_HOLDS = timedelta(days=7)
"""How long a one-time password may wait for its first use."""

WRONG = "name or password is wrong."


class WrongPassword(StoreError):
    """Name or password is wrong, there is no such account, or it was deactivated: which of these is not told."""

    def __init__(self) -> None:
        super().__init__(WRONG)


class Recorder(Protocol):
    """Writes an entry of the audit log, in the transaction of what it tells of."""

    def __call__(
        self,
        connection: Connection,
        *,
        project: str | None,
        actor: str | None,
        action: str,
        subject: str | None,
        details: dict[str, Any] | None,
    ) -> None: ...


@dataclass(frozen=True)
class Account:
    """An account as it may be shown.

    `password` is `none` (no sign-in yet), `one-time` (the next sign-in chooses another) or `own`; `changed_at` is when
    it was set. `seen_at` is when they last answered, or signed in to a session that has not ended; None for neither.
    """

    annotator_id: str
    name: str
    role: str
    active: bool
    password: str
    created_at: datetime
    changed_at: datetime
    seen_at: datetime | None = None


class Accounts:
    """Makes, changes and checks accounts. Who may do so is the caller's business; `by` is who does it, for the log.

    Args:
        store: an open store; several of these, and several processes, may share it.
        clock: gives the present moment; tests set it.
        passwords: how passwords are hashed.
        record: called for every change, in its transaction.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime] = now_utc,
        passwords: Passwords | None = None,
        record: Recorder = audit.record,
    ) -> None:
        self.store, self.clock, self._record = store, clock, record
        self.passwords = passwords or Passwords()

    # -- reading -------------------------------------------------------------------------------------------------

    def all(self) -> list[Account]:
        """All accounts, by name."""
        with self.store.read() as connection:
            rows = connection.execute(_accounts().order_by(Annotator.name_key)).all()
            seen = _last_seen(connection)
            return [replace(_shown(row), seen_at=seen.get(row.id)) for row in rows]

    def named(self, name: str) -> Account:
        """The account of this name; case and white space do not matter.

        Raises:
            StoreError: there is none.
        """
        with self.store.read() as connection:
            row = _row_of_name(connection, name)
        if row is None:
            raise StoreError(f"there is no account {name.strip()!r}.")
        return _shown(row)

    def any_admin(self) -> bool:
        """Whether somebody can sign in as an admin."""
        with self.store.read() as connection:
            admins = _accounts().where(able_admin(self.clock()))
            return connection.execute(admins.limit(1)).one_or_none() is not None

    # -- changing ------------------------------------------------------------------------------------------------

    def create(
        self, name: str, role: str = ANNOTATOR, *, password: str | None = None, by: str | None = None
    ) -> Account:
        """Make an account. What an annotator of this name judged before, without an account, stays theirs.

        Args:
            password: their own; without one they cannot sign in until there is one (`issue_password`).

        Raises:
            StoreError: the name is not usable or has an account already, no such role, the password is too weak.
        """
        _check_role(role)
        hashed = self._hashed(password, name) if password is not None else None
        now = self.clock()
        with self.store.write() as connection:
            person = enrol(connection, name, simulated=False, settings={}, now=now, person=True)
            if _row_of_id(connection, person.annotator_id) is not None:
                raise StoreError(f"{person.name} has an account already.")
            values = {"role": role, "password": hashed, "active": True, "created_at": now, "changed_at": now}
            connection.execute(insert(AccountRow).values(annotator_id=person.id, **values))
            self._note(connection, by, "account created", person.annotator_id, role=role)
            return _shown(_known(connection, person.annotator_id))

    def set_password(self, annotator_id: str, password: str, *, by: str | None = None) -> None:
        """Set an account's password; all its sessions end.

        Raises:
            StoreError: the password is too weak, or nobody has this id.
        """
        hashed = self._hashed(password, self._get(annotator_id).name)
        self._keep_password(annotator_id, hashed, one_time=False, by=by)

    def issue_password(self, annotator_id: str, *, by: str | None = None) -> str:
        """Give an account a one-time password, in place of the one it has; all its sessions end.

        Returns:
            The password, which is kept nowhere else.
        """
        password = one_time_password()
        self._keep_password(annotator_id, self.passwords.hash(password), one_time=True, by=by)
        return password

    def set_role(self, annotator_id: str, role: str, *, by: str | None = None) -> None:
        """Change an account's role; its sessions have the new one from their next call on.

        A disputed task that they may no longer decide goes back.

        Raises:
            StoreError: no such role or account, or nobody would be admin any more.
        """
        _check_role(role)
        with self.store.write() as connection:
            row = _known(connection, annotator_id)
            if role != ADMIN:
                _keep_an_admin(connection, row)
            self._change(connection, row, role=role)
            take_back_disputes(Turn(connection, NO_PROJECT, self.clock()), Lease.annotator_id == row.id)
            self._note(connection, by, "role changed", annotator_id, role=role, before=row.role)

    def deactivate(self, annotator_id: str, *, by: str | None = None) -> None:
        """Close an account: its sessions end, and tasks in its hands go back to the queue. What it judged stays.

        Raises:
            StoreError: no such account, or nobody would be admin any more.
        """
        with self.store.write() as connection:
            row = _known(connection, annotator_id)
            _keep_an_admin(connection, row)
            renew_tallies(connection, row.id)
            self._change(connection, row, active=False)
            _end_sessions(connection, row)
            _hand_back(Turn(connection, NO_PROJECT, self.clock()), row.id)
            self._note(connection, by, "account deactivated", annotator_id)

    def activate(self, annotator_id: str, *, by: str | None = None) -> None:
        """Open a deactivated account again, with the password that it had."""
        with self.store.write() as connection:
            self._change(connection, _known(connection, annotator_id), active=True)
            self._note(connection, by, "account activated", annotator_id)

    # -- signing in ----------------------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, *, address: str, sessions: LoginSessions) -> tuple[Account, str]:
        """Check name and password, and start a session. Unknown names take as long as wrong passwords.

        Args:
            address: the client's; failures are counted of name and address (`plumbline.preferences.throttle`).

        Returns:
            The account and the session's token. Where its password is `one-time`, the session can only choose another.

        Raises:
            WrongPassword: name or password is wrong, or the account is not active.
            TooManyAttempts: too many failures; nothing was looked at.
            StoreError: a one-time password has waited too long for its use.
        """
        with self.store.write() as connection:
            attempt = count_attempt(connection, sources_of(name, address), self.clock())
            row = _row_of_name(connection, name)
        if not self.passwords.match(row.password if row is not None and row.active else None, password):
            raise WrongPassword
        assert row is not None
        if row.one_time and row.changed_at + ONE_TIME_HOLDS < self.clock():
            raise StoreError("this one-time password has expired: ask an admin for another one.")
        newly = self.passwords.hash(password) if self.passwords.outdated(row.password) else None
        with self.store.write() as connection:
            self._forgive(connection, attempt, row)
            if newly:
                self._change(connection, row, password=newly)
            return _shown(row), sessions.start(row.annotator_id)

    def change_password(
        self, annotator_id: str, new: str, *, current: str | None, address: str, sessions: LoginSessions
    ) -> str:
        """Let somebody who is signed in choose another password; all their sessions end, and a new one starts.

        Args:
            current: the present password; not needed (None) while that is a one-time password, which only just let
                them in.

        Returns:
            The new session's token.

        Raises:
            StoreError: `current` is wrong, or looked at too often, or the new password is weak or the old one.
        """
        row = self._get(annotator_id)
        check_password(new, row.name)
        attempt = None
        if not (current is None and row.one_time):
            with self.store.write() as connection:
                attempt = count_attempt(connection, sources_of(row.name, address), self.clock())
            if not self.passwords.match(row.password, current or ""):
                raise StoreError("the present password is wrong.")
        if self.passwords.match(row.password, new):
            raise StoreError("the new password is the old one: choose another.")
        hashed = self.passwords.hash(new)
        with self.store.write() as connection:
            self._forgive(connection, attempt, row)
            self._change(connection, row, password=hashed, one_time=False, changed_at=self.clock())
            _end_sessions(connection, row)
            self._note(connection, annotator_id, "password changed", annotator_id)
            return sessions.start(annotator_id)

    # -- inside --------------------------------------------------------------------------------------------------

    def _get(self, annotator_id: str) -> Row[Any]:
        with self.store.read() as connection:
            return _known(connection, annotator_id)

    def _hashed(self, password: str, name: str) -> str:
        check_password(password, name)
        return self.passwords.hash(password)

    def _keep_password(self, annotator_id: str, hashed: str, *, one_time: bool, by: str | None) -> None:
        with self.store.write() as connection:
            row = _known(connection, annotator_id)
            self._change(connection, row, password=hashed, one_time=one_time, changed_at=self.clock())
            _end_sessions(connection, row)
            self._note(connection, by, "password set", annotator_id, one_time=one_time)

    def _forgive(self, connection: Connection, attempt: Attempt | None, seen: Row[Any]) -> None:
        """The password was right, unless the account has changed while it was hashed."""
        now = _known(connection, seen.annotator_id)
        if (now.password, now.active) != (seen.password, True):
            raise WrongPassword
        if attempt is not None:
            forgive_attempt(connection, attempt)

    def _change(self, connection: Connection, row: Row[Any], **values: Any) -> None:
        connection.execute(update(AccountRow).where(AccountRow.annotator_id == row.id).values(**values))

    def _note(self, connection: Connection, by: str | None, action: str, subject: str, **details: Any) -> None:
        self._record(connection, project=None, actor=by, action=action, subject=subject, details=details or None)


def _accounts() -> Select[Any]:
    columns: tuple[Any, ...] = (
        Annotator.id,
        Annotator.annotator_id,
        Annotator.name,
        AccountRow.role,
        AccountRow.active,
        AccountRow.password,
        AccountRow.one_time,
        AccountRow.created_at,
        AccountRow.changed_at,
    )
    return select(*columns).join(AccountRow, AccountRow.annotator_id == Annotator.id)


def _last_seen(connection: Connection) -> dict[int, datetime]:
    """When each annotator last answered in any project, or began a session that has not ended."""
    mine = (Answer.project_id == Tally.project_id) & (Answer.annotator_id == Tally.annotator_id)
    newest = select(func.max(Answer.id)).where(mine).correlate(Tally).scalar_subquery()
    answered = select(Tally.annotator_id, Answer.judged_at).join(Answer, Answer.id == newest)
    signed_in = select(LoginSession.annotator_id, func.max(LoginSession.created_at)).group_by(LoginSession.annotator_id)
    seen: dict[int, datetime] = {}
    for query in (answered, signed_in):
        for who, when in connection.execute(query):
            if when is not None:
                seen[who] = max(when, seen.get(who, when))
    return seen


def _row_of_name(connection: Connection, name: str) -> Row[Any] | None:
    if note_fault(name):
        return None  # no database holds such a name; left out its faults would be a way around the throttle of another
    key = " ".join(name.split()).casefold()
    named = _accounts().where(Annotator.name_key == key, Annotator.erased_at.is_(None))
    return connection.execute(named).one_or_none()


def _row_of_id(connection: Connection, annotator_id: str) -> Row[Any] | None:
    return connection.execute(_accounts().where(Annotator.annotator_id == annotator_id)).one_or_none()


def _known(connection: Connection, annotator_id: str) -> Row[Any]:
    row = _row_of_id(connection, annotator_id)
    if row is None:
        raise StoreError("there is no such account.")
    return row


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise StoreError(f"there is no role {role!r}: choose one of {', '.join(ROLES)}.")


def able_admin(now: datetime) -> ColumnElement[bool]:
    """Whether an account is that of an admin who can sign in, or can use their one-time password still."""
    usable = or_(~AccountRow.one_time, AccountRow.changed_at >= now - ONE_TIME_HOLDS)
    return and_(AccountRow.role == ADMIN, AccountRow.active, AccountRow.password.is_not(None), usable)


def _keep_an_admin(connection: Connection, row: Row[Any]) -> None:
    """Refuse to take away the last active admin; the rows are locked, so that two cannot take away each other."""
    admins = select(AccountRow.annotator_id).where(AccountRow.role == ADMIN, AccountRow.active)
    locked = connection.execute(admins.order_by(AccountRow.annotator_id).with_for_update()).scalars().all()
    if list(locked) == [row.id]:
        raise StoreError(f"{row.name} is the only active admin: make somebody else an admin first.")


def _end_sessions(connection: Connection, row: Row[Any]) -> None:
    connection.execute(delete(LoginSession).where(LoginSession.annotator_id == row.id))


def _hand_back(turn: Turn, annotator: int) -> None:
    held = select(Lease.__table__).where(Lease.annotator_id == annotator, Lease.state == queue.OPEN)
    for lease in turn.connection.execute(held.order_by(Lease.task_id).with_for_update()).all():
        queue.end_lease(turn, lease, queue.TAKEN_BACK)


def _shown(row: Row[Any]) -> Account:
    password = "none" if row.password is None else "one-time" if row.one_time else "own"
    return Account(row.annotator_id, row.name, row.role, row.active, password, row.created_at, row.changed_at)
