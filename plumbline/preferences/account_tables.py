"""The tables of accounts, sessions, tokens, webhooks and the audit log; see `tables` for the rest of the store."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, false, text
from sqlalchemy.orm import Mapped, mapped_column

from plumbline.preferences.tables import Base

LEADS = frozenset({"lead", "admin"})
"""Roles that lead the work."""


class Account(Base):
    """What an annotator signs in with: `role` is annotator, lead or admin; `password` an argon2 hash, or none yet.

    A password that somebody else made for them (`one_time`) only lets them choose another. `changed_at` is when the
    password was set.
    """

    __tablename__ = "accounts"
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    password: Mapped[str | None]
    one_time: Mapped[bool] = mapped_column(server_default=false())
    active: Mapped[bool]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]


class LoginSession(Base):
    """A signed-in browser; only a digest of the cookie's token is kept (`login_sessions.digest_of`)."""

    __tablename__ = "login_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    token_digest: Mapped[str] = mapped_column(String(64), unique=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    __table_args__ = (Index("ix_login_sessions_annotator", "annotator_id"),)


class Throttle(Base):
    """Failed sign-ins in a row of one name or one address, and until when no more are looked at.

    Of an API's token, `last_at` says how much of its requests' rate is used up (`throttle.count_request`).
    """

    __tablename__ = "throttles"
    key: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    last_at: Mapped[datetime]
    blocked_until: Mapped[datetime | None]


class ApiToken(Base):
    """A token that may read one project through the API; only its digest is kept."""

    __tablename__ = "api_tokens"
    id: Mapped[int] = mapped_column(primary_key=True)
    token_digest: Mapped[str] = mapped_column(String(64), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
    names: Mapped[bool] = mapped_column(server_default=false())


class Delivery(Base):
    """An event on its way to a webhook; written with what it tells of, sent afterwards, again until it arrives."""

    __tablename__ = "deliveries"
    id: Mapped[int] = mapped_column(primary_key=True)
    delivery_id: Mapped[str] = mapped_column(String(32), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    event: Mapped[str] = mapped_column(String(32))
    url: Mapped[str]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    next_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    delivered_at: Mapped[datetime | None]
    failure: Mapped[str | None]
    __table_args__ = (
        Index(
            "ix_deliveries_waiting",
            "next_at",
            sqlite_where=text("next_at IS NOT NULL"),
            postgresql_where=text("next_at IS NOT NULL"),
        ),
    )


class AuditEntry(Base):
    """One entry of the audit log; `digest` covers the entry and the `previous` digest, so that they form a chain.

    `actor` and `subject` are random ids or digests of contents, never names: people can be erased and the chain holds.
    """

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[str] = mapped_column(String(32))
    project: Mapped[str | None]
    actor: Mapped[str | None]
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str | None]
    details: Mapped[dict[str, Any] | None]
    previous: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
