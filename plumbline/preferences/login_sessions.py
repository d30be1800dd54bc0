"""Who is signed in, in the database: it survives a restart and counts in every server process."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, insert, literal, select, update

from plumbline.preferences.account_tables import Account, LoginSession
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator
from plumbline.preferences.turn import known_annotator, now_utc

TOKEN_BYTES = 32
ROLE_BY_NAME = "lead"
"""The role of those who sign in by name alone: they sit at the machine."""


@dataclass(frozen=True)
class SignedIn:
    """Who holds a session. With a `one_time` password they may only choose another one."""

    annotator_id: str
    name: str
    role: str
    one_time: bool = False


class LoginSessions:
    """Starts, reads and ends sessions. A token is random and known to the browser only; here lies its SHA-256.

    Args:
        store: an open store.
        accounts: whether sessions need an account. Each kind of session is unknown to the other: nobody who signed in
            by name alone is signed in any more when accounts are asked for.
        lifetime: how long a session lasts, counted from signing in.
        clock: gives the present moment; tests set it.
    """

    def __init__(
        self,
        store: Store,
        *,
        accounts: bool,
        lifetime: timedelta = timedelta(hours=12),
        clock: Callable[[], datetime] = now_utc,
    ) -> None:
        self.store, self.accounts, self.lifetime, self.clock = store, accounts, lifetime, clock
        self._query = _BY_PASSWORD if accounts else _BY_NAME

    def start(self, annotator_id: str) -> str:
        """Start a session; sessions of anybody that are over are deleted.

        Returns:
            The token: for the browser's cookie and nothing else.

        Raises:
            StoreError: nobody has this id.
        """
        token, now = secrets.token_urlsafe(TOKEN_BYTES), self.clock()
        with self.store.write() as connection:
            person = known_annotator(connection, annotator_id).id
            # The person before the sessions, as retention takes them, so that neither waits for the other in a ring.
            connection.execute(update(Annotator).where(Annotator.id == person).values(signed_in_at=now))
            connection.execute(delete(LoginSession).where(LoginSession.expires_at <= now))
            values = {
                "token_digest": digest_of(token, accounts=self.accounts),
                "annotator_id": person,
                "created_at": now,
                "expires_at": now + self.lifetime,
            }
            connection.execute(insert(LoginSession).values(**values))
        return token

    def read(self, token: str) -> SignedIn | None:
        """Whose token this is, with the role that they have now.

        None where it is none of ours, the session is over, or the account was deactivated: one query by its digest.
        """
        given = {"digest": digest_of(token, accounts=self.accounts), "now": self.clock()}
        with self.store.read() as connection:
            row = connection.execute(self._query, given).one_or_none()
        if row is None:
            return None
        return SignedIn(*row)

    def end(self, token: str) -> None:
        """End a session; a token that is none is left alone."""
        with self.store.write() as connection:
            ours = LoginSession.token_digest == digest_of(token, accounts=self.accounts)
            connection.execute(delete(LoginSession).where(ours))

    def end_all(self, annotator_id: str) -> None:
        """End all sessions of an annotator, in all browsers."""
        with self.store.write() as connection:
            annotator = known_annotator(connection, annotator_id).id
            connection.execute(delete(LoginSession).where(LoginSession.annotator_id == annotator))


def digest_of(token: str, *, accounts: bool) -> str:
    """What is kept of a token; another one for sessions by password than for those by name."""
    kind = "password" if accounts else "name"
    return hashlib.sha256(f"{kind}:{token}".encode(errors="replace")).hexdigest()


_SESSION = (
    select(Annotator.annotator_id, Annotator.name)
    .join(LoginSession, LoginSession.annotator_id == Annotator.id)
    .where(LoginSession.token_digest == bindparam("digest"), LoginSession.expires_at > bindparam("now"))
    .where(Annotator.erased_at.is_(None))
)
_BY_NAME = _SESSION.add_columns(literal(ROLE_BY_NAME))
_BY_PASSWORD = (
    _SESSION.add_columns(Account.role, Account.one_time)
    .join(Account, Account.annotator_id == Annotator.id)
    .where(Account.active)
)
