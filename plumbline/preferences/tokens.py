"""Tokens with which other programs read one project through the app's API; only their digests are kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, insert, or_, select, update

from plumbline.errors import StoreError
from plumbline.preferences import audit
from plumbline.preferences.account_tables import ApiToken
from plumbline.preferences.tables import Project
from plumbline.preferences.turn import Facet, Turn

PREFIX = "plumbline_"
"""What tokens begin with, so that scanners for leaked secrets know them."""

TOKEN_BYTES = 32
LONGEST_DAYS = 36_500
USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class Token:
    """A token as it may be shown; `state` is active, expired or revoked, `names` whether it reads people's names."""

    id: int
    name: str
    project: str
    state: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    names: bool = False


class Tokens(Facet):
    """Makes, lists, revokes and checks the tokens of a project."""

    def add(self, name: str, *, days: float | None = 90, names: bool = False, actor: str | None = None) -> str:
        """Make a token; returns it, and it is kept nowhere.

        Args:
            name: what it is for; no two active tokens of a project have the same.
            days: how long it holds; None for ever.
            names: whether it may read annotators' names, and what the lead wrote about them.

        Raises:
            StoreError: the name is empty or in use, or `days` is no time that a token can hold.
        """
        name = name.strip()
        if not name or len(name) > 100 or not name.isprintable():
            raise StoreError("a token needs a name of at most 100 printable characters: say what it is for.")
        if days is not None and not 0 < days <= LONGEST_DAYS:  # NaN is neither
            raise StoreError(
                f"a token cannot hold for {days:g} days: give a number above 0 and up to {LONGEST_DAYS:,}."
            )
        token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        with self.turn() as turn:
            if self._active(turn, name) is not None:
                raise StoreError(f"there is an active token {name!r}: revoke it first, or choose another name.")
            expires_at = None if days is None else turn.now + timedelta(days=days)
            row = {"token_digest": _digest(token), "project_id": turn.project_id, "name": name, "names": names}
            turn.connection.execute(insert(ApiToken).values(**row, created_at=turn.now, expires_at=expires_at))
            self._note(turn, "token added", _digest(token), actor, names=names)
        return token

    def all(self) -> list[Token]:
        """All tokens, the newest last."""
        with self.look() as turn:
            rows = turn.connection.execute(_tokens().where(ApiToken.project_id == turn.project_id))
            return [_shown(row, turn.now) for row in rows]

    def revoke(self, name: str, *, actor: str | None = None) -> None:
        """End an active token at once.

        Raises:
            StoreError: there is none of this name.
        """
        with self.turn() as turn:
            row = self._active(turn, name.strip())
            if row is None:
                raise StoreError(f"there is no active token {name.strip()!r} in project {self.project!r}.")
            turn.connection.execute(update(ApiToken).where(ApiToken.id == row.id).values(revoked_at=turn.now))
            self._note(turn, "token revoked", row.token_digest, actor)

    def read(self, token: str) -> Token | None:
        """The token as it is now; None where nobody made it. That it was used is noted, at most once a minute."""
        with self.store.read() as connection:
            row = connection.execute(_tokens().where(ApiToken.token_digest == _digest(token))).one_or_none()
        if row is None:
            return None
        now = self.clock()
        found = _shown(row, now)
        if found.state == "active" and (row.used_at is None or row.used_at <= now - USE_NOTED_EVERY):
            before = or_(ApiToken.used_at.is_(None), ApiToken.used_at <= now - USE_NOTED_EVERY)
            with self.store.write() as connection:
                connection.execute(update(ApiToken).where(ApiToken.id == row.id, before).values(used_at=now))
        return found

    def _active(self, turn: Turn, name: str) -> Row[Any] | None:
        holds = or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > turn.now)
        mine = (ApiToken.project_id == turn.project_id) & (ApiToken.name == name) & ApiToken.revoked_at.is_(None)
        return turn.connection.execute(select(ApiToken.__table__).where(mine, holds)).one_or_none()

    def _note(self, turn: Turn, action: str, digest: str, actor: str | None, **details: Any) -> None:
        audit.record(
            turn.connection,
            at=turn.now,
            project=self.project,
            actor=actor,
            action=action,
            subject=digest[:16],
            details=details or None,
        )


def _tokens() -> Any:
    query = select(ApiToken.__table__, Project.name.label("project"))
    return query.join(Project, Project.id == ApiToken.project_id).order_by(ApiToken.id)


def _shown(row: Row[Any], now: datetime) -> Token:
    state = "active"
    if row.revoked_at is not None:
        state = "revoked"
    elif row.expires_at is not None and row.expires_at <= now:
        state = "expired"
    return Token(row.id, row.name, row.project, state, row.created_at, row.expires_at, row.used_at, row.names)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
