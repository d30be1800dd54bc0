"""The tables of the preference store. Migrations in `migrations/versions` build the same; a test compares them.

Answers are append-only: a correction is a new row that names the one it supersedes. What can be counted from them and
is asked all the time (`Task.taken`, `Task.judged`, `Task.flagged`, `Tally`) is kept beside them and changed in the same
transaction.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

OPEN_TASK = "taken < wanted AND flagged = 0 AND NOT retired"
"""The condition that a task is handed out. The queue asks for it in these words, so that the partial index answers."""


class UTCDateTime(TypeDecorator[datetime]):
    """A moment, stored in UTC; SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """As a moment in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of all tables; constraints have names, so that later migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UTCDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        str: Text(),
    }


class Project(Base):
    """A domain whose preferences are collected; each of its tasks asks for `judgements_per_task` (overlap)."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    judgements_per_task: Mapped[int]


class Annotator(Base):
    """A person or a simulated annotator; `name_key` is the case-folded name."""

    __tablename__ = "annotators"
    id: Mapped[int] = mapped_column(primary_key=True)
    annotator_id: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    simulated: Mapped[bool]
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Task(Base):
    """A prompt with the responses to be ranked.

    `responses` is a list of `{id, text, source, source_hash, meta}`, sorted by id. `wanted` judgements are asked for
    (0: only imported, not handed out), `judged` are there, and `taken` counts these and the leases that may add one.
    A task is closed, which is neither handed out nor waited for, while there are current flags of it (`flagged`), and
    when its responses were replaced by those of another policy (`retired`).
    """

    __tablename__ = "tasks"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    prompt_key: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(String(32))
    prompt: Mapped[list[Any]]
    responses: Mapped[list[Any]]
    meta: Mapped[dict[str, Any]]
    origin: Mapped[str]
    wanted: Mapped[int]
    taken: Mapped[int] = mapped_column(server_default=text("0"))
    judged: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime]
    flagged: Mapped[int] = mapped_column(server_default=text("0"))
    retired: Mapped[bool] = mapped_column(server_default=false())
    __table_args__ = (
        UniqueConstraint("project_id", "prompt_key", "key", name="uq_tasks_content"),
        Index("ix_tasks_key", "project_id", "key"),
        Index("ix_tasks_progress", "project_id", "wanted", "judged", "flagged", "retired"),
        Index("ix_tasks_open", "project_id", "id", sqlite_where=text(OPEN_TASK), postgresql_where=text(OPEN_TASK)),
    )


class Lease(Base):
    """A task in an annotator's hands; `state` is open, answered, released or expired.

    `shown_order` lists indexes into the task's responses. `slot` says that the lease itself counts in `Task.taken`
    (a correction of a judgement does not: the judgement counts already).
    """

    __tablename__ = "leases"
    id: Mapped[int] = mapped_column(primary_key=True)
    lease_id: Mapped[str] = mapped_column(String(32), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    state: Mapped[str] = mapped_column(String(16))
    slot: Mapped[bool]
    shown_order: Mapped[list[Any]]
    supersedes_id: Mapped[int | None]  # an answer's id; no foreign key, because answers refer to leases
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    __table_args__ = (
        Index(
            "ix_leases_held",
            "project_id",
            "annotator_id",
            unique=True,
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        Index(
            "ix_leases_expiry",
            "expires_at",
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
    )


class Answer(Base):
    """A judgement, a skip or a flag (`kind`); never changed, never deleted.

    `answer_id` is a digest of annotator and idempotency key, so that its uniqueness makes a retry harmless. `ranks` and
    `shown_order` are in the order of the task's responses and of what was shown.
    """

    __tablename__ = "answers"
    id: Mapped[int] = mapped_column(primary_key=True)
    answer_id: Mapped[str] = mapped_column(String(32))
    kind: Mapped[str] = mapped_column(String(16))
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    lease_id: Mapped[int | None] = mapped_column(ForeignKey("leases.id"), unique=True)
    ranks: Mapped[list[Any] | None]
    shown_order: Mapped[list[Any] | None]
    judged_at: Mapped[datetime | None]
    seconds: Mapped[float | None]
    strength: Mapped[float | None]
    scores: Mapped[dict[str, Any] | None]
    reason: Mapped[str | None]
    edited: Mapped[str | None]
    flags: Mapped[list[Any] | None]
    supersedes_id: Mapped[int | None] = mapped_column(ForeignKey("answers.id"), unique=True)
    origin: Mapped[str | None]
    __table_args__ = (
        UniqueConstraint("project_id", "answer_id", name="uq_answers_answer_id"),
        Index("ix_answers_task", "task_id", "annotator_id"),
        # One first answer for each annotator and task; corrections form a chain, because `supersedes_id` is unique.
        Index(
            "ix_answers_once",
            "task_id",
            "annotator_id",
            unique=True,
            sqlite_where=text("supersedes_id IS NULL AND lease_id IS NOT NULL"),
            postgresql_where=text("supersedes_id IS NULL AND lease_id IS NOT NULL"),
        ),
        Index("ix_answers_annotator", "project_id", "annotator_id", "id"),
    )


class Tally(Base):
    """Current answers of one annotator in one project, and how far down the queue they are.

    `cursor` is a hint: no task below it was free for this annotator when the queue was last looked through.
    """

    __tablename__ = "tallies"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True)
    judged: Mapped[int] = mapped_column(server_default=text("0"))
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    flagged: Mapped[int] = mapped_column(server_default=text("0"))
    cursor: Mapped[int] = mapped_column(server_default=text("0"))
