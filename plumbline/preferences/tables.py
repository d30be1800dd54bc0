"""The tables of the preference store. Migrations in `migrations/versions` build the same; a test compares them.

Answers are append-only: a correction is a new row that names the one it supersedes. What can be counted from them and
is asked all the time (`Task.taken`, `Task.judged`, `Task.flagged`, `Tally`) is kept beside them and changed in the same
transaction.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BindParameter,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    exists,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

RowId = int | BindParameter[int]
"""A row's id, or its place in a statement that is built once and executed with many."""

HIGHEST_ID = 2**31 - 1
"""PostgreSQL compares row ids with nothing higher."""

OPEN_TASK = "taken < wanted AND flagged = 0 AND NOT retired"
"""The condition that a task is handed out. The queue asks for it in these words, so that the partial index answers."""

DISPUTED_TASK = "disagreement > 0 AND NOT adjudicated"
"""The condition that a task may need an adjudicator; an index holds these."""

RESERVED_TASK = "pool IS NOT NULL OR restricted"
"""The condition that not everybody may be handed the task; an index holds these."""


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
    """A domain whose preferences are collected; each of its tasks asks for `judgements_per_task` (overlap).

    `settings` holds what was noted of the project once: `selection.ACTIVE`, `ingest.SALT`.
    """

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    judgements_per_task: Mapped[int]
    settings: Mapped[dict[str, Any] | None]


class Annotator(Base):
    """A person or a simulated annotator; `name_key` is the case-folded name.

    Of an erased person (`erased_at`) the name is a pseudonym. `signed_in_at` is when the newest session began.
    """

    __tablename__ = "annotators"
    id: Mapped[int] = mapped_column(primary_key=True)
    annotator_id: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    simulated: Mapped[bool]
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    erased_at: Mapped[datetime | None]
    signed_in_at: Mapped[datetime | None]


class Task(Base):
    """A prompt with the responses to be ranked.

    `responses` is a list of `{id, text, source, source_hash, meta}`, sorted by id. `wanted` judgements are asked for
    (0: only imported, not handed out), `judged` are there, and `taken` counts these and the leases that may add one.
    A task is closed, which is neither handed out nor waited for, while there are current flags of it (`flagged`), and
    when its responses were replaced by those of another policy (`retired`).

    Open tasks are handed out by `deferral` (minus the priority, so that it sorts upwards), then by id; to the members
    of `pool`, where there is one; of a `restricted` task, to those named in `TaskAllowance`. A check (`check_kind` is
    `gold` or `attention`) has the `expected` ranks; it goes to everybody and is never among what models learn from.
    `disagreement` is the share of pairs on which its judgements disagree, once all are there; `adjudicated` says that
    an adjudicator has decided.
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
    deferral: Mapped[int] = mapped_column(server_default=text("0"))
    pool: Mapped[str | None]
    restricted: Mapped[bool] = mapped_column(server_default=false())
    check_kind: Mapped[str | None] = mapped_column(String(16))
    expected: Mapped[list[Any] | None]
    disagreement: Mapped[float | None]
    adjudicated: Mapped[bool] = mapped_column(server_default=false())
    __table_args__ = (
        UniqueConstraint("project_id", "prompt_key", "key", name="uq_tasks_content"),
        Index("ix_tasks_key", "project_id", "key"),
        Index("ix_tasks_progress", "project_id", "wanted", "judged", "flagged", "retired"),
        Index(
            "ix_tasks_open",
            "project_id",
            "deferral",
            "id",
            sqlite_where=text(OPEN_TASK),
            postgresql_where=text(OPEN_TASK),
        ),
        Index(
            "ix_tasks_checks",
            "project_id",
            "check_kind",
            "id",
            sqlite_where=text("check_kind IS NOT NULL"),
            postgresql_where=text("check_kind IS NOT NULL"),
        ),
        Index(
            "ix_tasks_disputed",
            "project_id",
            "disagreement",
            sqlite_where=text(DISPUTED_TASK),
            postgresql_where=text(DISPUTED_TASK),
        ),
        Index(
            "ix_tasks_reserved",
            "project_id",
            "id",
            sqlite_where=text(RESERVED_TASK),
            postgresql_where=text(RESERVED_TASK),
        ),
    )


class Lease(Base):
    """A task in an annotator's hands; `state` is one of those in `queue`.

    `shown_order` lists indexes into the task's responses. `slot` says that the lease itself counts in `Task.taken`
    (a correction of a judgement does not: the judgement counts already). `purpose` is that of the answer (`Answer`).
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
    purpose: Mapped[str] = mapped_column(String(16), server_default="work")
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
    `shown_order` are in the order of the task's responses and of what was shown. `gaps` are grades of preference, 1 to
    4, between neighbouring ranks, the best first.

    `purpose` says why it was asked for: `work`; `gold` or `attention` (a check); `repeat` (the same task again, to see
    how steady the annotator is); `adjudication`; `arena`. Models learn from work, adjudication and arena.
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
    purpose: Mapped[str] = mapped_column(String(16), server_default="work")
    gaps: Mapped[list[Any] | None]
    guideline_id: Mapped[int | None] = mapped_column(ForeignKey("guidelines.id"))
    __table_args__ = (
        UniqueConstraint("project_id", "answer_id", name="uq_answers_answer_id"),
        Index("ix_answers_task", "task_id", "annotator_id"),
        # One first answer for each annotator, task and purpose; corrections form a chain, because `supersedes_id` is
        # unique.
        Index(
            "ix_answers_once",
            "task_id",
            "annotator_id",
            "purpose",
            unique=True,
            sqlite_where=text("supersedes_id IS NULL AND lease_id IS NOT NULL"),
            postgresql_where=text("supersedes_id IS NULL AND lease_id IS NOT NULL"),
        ),
        Index("ix_answers_annotator", "project_id", "annotator_id", "id"),
    )


@lru_cache(maxsize=8)
def current(answer: type[Answer] = Answer) -> Any:
    """The condition that no other answer supersedes this one."""
    later = Answer.__table__.alias("later")
    return ~exists().where(later.c.supersedes_id == answer.id)


class Tally(Base):
    """Current answers of one annotator in one project, and how far down the queue they are.

    `cursor_deferral` and `cursor` (a task's id) are a hint: no task before them was free for this annotator when the
    queue was last looked through. `quota` is the most judgements that they may give; `paused` is the reason for which
    they get no work. Of `checks_seen` checks they passed `checks_passed`, the last `check_streak` of them in a row;
    `checks_score` is the sum of the shares of pairs that they got right. `aside` is the lease (its row id) of the last
    item that they left without an answer, until they get another one. `quiz` is the content (a digest) of the quiz that
    they passed last.
    """

    __tablename__ = "tallies"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True)
    judged: Mapped[int] = mapped_column(server_default=text("0"))
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    flagged: Mapped[int] = mapped_column(server_default=text("0"))
    cursor: Mapped[int] = mapped_column(server_default=text("0"))
    cursor_deferral: Mapped[int] = mapped_column(server_default=text("-2147483648"))
    quota: Mapped[int | None]
    paused: Mapped[str | None]
    checks_seen: Mapped[int] = mapped_column(server_default=text("0"))
    checks_passed: Mapped[int] = mapped_column(server_default=text("0"))
    checks_score: Mapped[float] = mapped_column(server_default=text("0"))
    check_streak: Mapped[int] = mapped_column(server_default=text("0"))
    repeats: Mapped[int] = mapped_column(server_default=text("0"))
    aside: Mapped[int | None]
    quiz: Mapped[str | None] = mapped_column(String(32))


class Draft(Base):
    """What an annotator entered for a task and did not submit yet; gone with the answer."""

    __tablename__ = "drafts"
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16), primary_key=True)
    content: Mapped[dict[str, Any]]
    saved_at: Mapped[datetime]


class Guideline(Base):
    """A version of the guideline (Markdown), counted from 1; every answer names the one that its annotator saw."""

    __tablename__ = "guidelines"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    version: Mapped[int]
    text: Mapped[str]
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("project_id", "version", name="uq_guidelines_version"),)


class Consent(Base):
    """An annotator has read and accepted a version of the guideline."""

    __tablename__ = "consents"
    guideline_id: Mapped[int] = mapped_column(ForeignKey("guidelines.id"), primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True)
    given_at: Mapped[datetime]


class QuizResult(Base):
    """How an annotator did in the quiz of this content (`quiz`, a digest).

    They tried `tries` times; the lead granted `granted` more than the recipe does. `answers` are the options chosen in
    the last try, `share` the questions that were right in it. `passed_at` is also when the lead `let_in` them.
    """

    __tablename__ = "quiz_results"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True)
    quiz: Mapped[str] = mapped_column(String(32), primary_key=True)
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    granted: Mapped[int] = mapped_column(server_default=text("0"))
    answers: Mapped[list[Any] | None]
    share: Mapped[float | None]
    tried_at: Mapped[datetime | None]
    passed_at: Mapped[datetime | None]
    let_in: Mapped[bool] = mapped_column(server_default=false())


class PoolMember(Base):
    """An annotator belongs to a pool: a group to which tasks can be kept."""

    __tablename__ = "pool_members"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    pool: Mapped[str] = mapped_column(primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True)


class TaskAllowance(Base):
    """A restricted task may be handed to this annotator."""

    __tablename__ = "task_allowances"
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"), primary_key=True)


class Battle(Base):
    """One turn of the arena: two policies answer the same conversation, blind, until an annotator has voted.

    `left` and `right` are `{source, source_hash, text, finished, named}`; `text` is null until it was answered, `named`
    says that it names its own policy. `vote` is left, right, tie or both-bad. `task_id` and `answer_id` are set by the
    vote, which is a judgement of purpose `arena`; a vote between two texts that are the same, or empty, makes none.
    `before_id` is the turn before in the same conversation. `revealed_at`: the conversation is over and names are told.
    """

    __tablename__ = "battles"
    id: Mapped[int] = mapped_column(primary_key=True)
    battle_id: Mapped[str] = mapped_column(String(32), unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    prompt: Mapped[list[Any]]
    left: Mapped[dict[str, Any]]
    right: Mapped[dict[str, Any]]
    vote: Mapped[str | None] = mapped_column(String(16))
    task_id: Mapped[int | None] = mapped_column(ForeignKey("tasks.id"))
    answer_id: Mapped[int | None] = mapped_column(ForeignKey("answers.id"))
    before_id: Mapped[int | None] = mapped_column(ForeignKey("battles.id"))
    created_at: Mapped[datetime]
    voted_at: Mapped[datetime | None]
    revealed_at: Mapped[datetime | None]
    __table_args__ = (Index("ix_battles_annotator", "project_id", "annotator_id", "id"),)
