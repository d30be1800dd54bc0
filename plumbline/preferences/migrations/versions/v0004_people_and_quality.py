"""Accounts, sessions, tokens, webhooks, audit log; guidelines, drafts, pools, checks, adjudication; the arena."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the new tables, add the new columns, and make the indexes of open tasks and of first answers anew."""
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sa.UniqueConstraint("digest", name="uq_audit_digest"),
    )
    op.create_table(
        "throttles",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_throttles"),
    )
    op.create_table(
        "accounts",
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("one_time", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_accounts_annotator_id"),
        sa.PrimaryKeyConstraint("annotator_id", name="pk_accounts"),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_digest", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("names", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_api_tokens_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("token_digest", name="uq_api_tokens_token_digest"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(length=32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_deliveries_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("delivery_id", name="uq_deliveries_delivery_id"),
    )
    op.create_index(
        "ix_deliveries_waiting",
        "deliveries",
        ["next_at"],
        unique=False,
        sqlite_where=sa.text("next_at IS NOT NULL"),
        postgresql_where=sa.text("next_at IS NOT NULL"),
    )
    op.create_table(
        "guidelines",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_guidelines_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_guidelines"),
        sa.UniqueConstraint("project_id", "version", name="uq_guidelines_version"),
    )
    op.create_table(
        "login_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_digest", sa.String(length=64), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_login_sessions_annotator_id"),
        sa.PrimaryKeyConstraint("id", name="pk_login_sessions"),
        sa.UniqueConstraint("token_digest", name="uq_login_sessions_token_digest"),
    )
    op.create_index("ix_login_sessions_annotator", "login_sessions", ["annotator_id"])
    op.create_table(
        "pool_members",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_pool_members_annotator_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_pool_members_project_id"),
        sa.PrimaryKeyConstraint("project_id", "pool", "annotator_id", name="pk_pool_members"),
    )
    op.create_table(
        "consents",
        sa.Column("guideline_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_consents_annotator_id"),
        sa.ForeignKeyConstraint(["guideline_id"], ["guidelines.id"], name="fk_consents_guideline_id"),
        sa.PrimaryKeyConstraint("guideline_id", "annotator_id", name="pk_consents"),
    )
    op.create_table(
        "drafts",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_drafts_annotator_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_drafts_task_id"),
        sa.PrimaryKeyConstraint("task_id", "annotator_id", "purpose", name="pk_drafts"),
    )
    op.create_table(
        "task_allowances",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_task_allowances_annotator_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_task_allowances_task_id"),
        sa.PrimaryKeyConstraint("task_id", "annotator_id", name="pk_task_allowances"),
    )
    op.create_table(
        "battles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("battle_id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("left", sa.JSON(), nullable=False),
        sa.Column("right", sa.JSON(), nullable=False),
        sa.Column("vote", sa.String(length=16), nullable=True),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("answer_id", sa.Integer(), nullable=True),
        sa.Column("before_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("voted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revealed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_battles_annotator_id"),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name="fk_battles_answer_id"),
        sa.ForeignKeyConstraint(["before_id"], ["battles.id"], name="fk_battles_before_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_battles_project_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_battles_task_id"),
        sa.PrimaryKeyConstraint("id", name="pk_battles"),
        sa.UniqueConstraint("battle_id", name="uq_battles_battle_id"),
    )
    op.create_index("ix_battles_annotator", "battles", ["project_id", "annotator_id", "id"])
    op.add_column("annotators", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("answers", sa.Column("purpose", sa.String(length=16), server_default="work", nullable=False))
    op.add_column("answers", sa.Column("gaps", sa.JSON(), nullable=True))
    # Outright, because SQLite adds a reference only together with its column.
    op.execute(
        "ALTER TABLE answers ADD COLUMN guideline_id INTEGER "
        "CONSTRAINT fk_answers_guideline_id REFERENCES guidelines(id)"
    )
    op.drop_index("ix_answers_once", table_name="answers")
    op.create_index(
        "ix_answers_once",
        "answers",
        ["task_id", "annotator_id", "purpose"],
        unique=True,
        sqlite_where=sa.text("supersedes_id IS NULL AND lease_id IS NOT NULL"),
        postgresql_where=sa.text("supersedes_id IS NULL AND lease_id IS NOT NULL"),
    )
    op.add_column("leases", sa.Column("purpose", sa.String(length=16), server_default="work", nullable=False))
    op.add_column("projects", sa.Column("settings", sa.JSON(), nullable=True))
    op.add_column(
        "tallies", sa.Column("cursor_deferral", sa.Integer(), server_default=sa.text("-2147483648"), nullable=False)
    )
    op.add_column("tallies", sa.Column("quota", sa.Integer(), nullable=True))
    op.add_column("tallies", sa.Column("paused", sa.Text(), nullable=True))
    op.add_column("tallies", sa.Column("checks_seen", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("tallies", sa.Column("checks_passed", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("tallies", sa.Column("checks_score", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.add_column("tallies", sa.Column("check_streak", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("tallies", sa.Column("repeats", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("tallies", sa.Column("aside", sa.Integer(), nullable=True))
    op.add_column("tasks", sa.Column("deferral", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("tasks", sa.Column("pool", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("restricted", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("tasks", sa.Column("check_kind", sa.String(length=16), nullable=True))
    op.add_column("tasks", sa.Column("expected", sa.JSON(), nullable=True))
    op.add_column("tasks", sa.Column("disagreement", sa.Double(), nullable=True))
    op.add_column("tasks", sa.Column("adjudicated", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.drop_index("ix_tasks_open", table_name="tasks")
    op.create_index(
        "ix_tasks_open",
        "tasks",
        ["project_id", "deferral", "id"],
        unique=False,
        sqlite_where=sa.text("taken < wanted AND flagged = 0 AND NOT retired"),
        postgresql_where=sa.text("taken < wanted AND flagged = 0 AND NOT retired"),
    )
    op.create_index(
        "ix_tasks_checks",
        "tasks",
        ["project_id", "check_kind", "id"],
        unique=False,
        sqlite_where=sa.text("check_kind IS NOT NULL"),
        postgresql_where=sa.text("check_kind IS NOT NULL"),
    )
    op.create_index(
        "ix_tasks_disputed",
        "tasks",
        ["project_id", "disagreement"],
        unique=False,
        sqlite_where=sa.text("disagreement > 0 AND NOT adjudicated"),
        postgresql_where=sa.text("disagreement > 0 AND NOT adjudicated"),
    )
    op.create_index(
        "ix_tasks_reserved",
        "tasks",
        ["project_id", "id"],
        unique=False,
        sqlite_where=sa.text("pool IS NOT NULL OR restricted"),
        postgresql_where=sa.text("pool IS NOT NULL OR restricted"),
    )
