"""The first schema.

Migrations name columns and types outright, so that they stay what they were when the tables move on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "annotators",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_annotators"),
        sa.UniqueConstraint("annotator_id", name="uq_annotators_annotator_id"),
        sa.UniqueConstraint("name_key", name="uq_annotators_name_key"),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("judgements_per_task", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
    )
    op.create_table(
        "tallies",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("judged", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("skipped", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("flagged", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cursor", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_tallies_annotator_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tallies_project_id"),
        sa.PrimaryKeyConstraint("project_id", "annotator_id", name="pk_tallies"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("prompt_key", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("responses", sa.JSON(), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("taken", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("judged", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tasks_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint("project_id", "prompt_key", "key", name="uq_tasks_content"),
    )
    op.create_index(
        "ix_tasks_open",
        "tasks",
        ["project_id", "id"],
        unique=False,
        sqlite_where=sa.text("taken < wanted"),
        postgresql_where=sa.text("taken < wanted"),
    )
    op.create_index("ix_tasks_progress", "tasks", ["project_id", "wanted", "judged"], unique=False)
    op.create_table(
        "leases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("slot", sa.Boolean(), nullable=False),
        sa.Column("shown_order", sa.JSON(), nullable=False),
        sa.Column("supersedes_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_leases_annotator_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_leases_project_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_leases_task_id"),
        sa.PrimaryKeyConstraint("id", name="pk_leases"),
        sa.UniqueConstraint("lease_id", name="uq_leases_lease_id"),
    )
    op.create_index(
        "ix_leases_expiry",
        "leases",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "ix_leases_held",
        "leases",
        ["project_id", "annotator_id"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("answer_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.Integer(), nullable=True),
        sa.Column("ranks", sa.JSON(), nullable=True),
        sa.Column("shown_order", sa.JSON(), nullable=True),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("strength", sa.Double(), nullable=True),
        sa.Column("scores", sa.JSON(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("edited", sa.Text(), nullable=True),
        sa.Column("flags", sa.JSON(), nullable=True),
        sa.Column("supersedes_id", sa.Integer(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_answers_annotator_id"),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name="fk_answers_lease_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_answers_project_id"),
        sa.ForeignKeyConstraint(["supersedes_id"], ["answers.id"], name="fk_answers_supersedes_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_answers_task_id"),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.UniqueConstraint("lease_id", name="uq_answers_lease_id"),
        sa.UniqueConstraint("project_id", "answer_id", name="uq_answers_answer_id"),
        sa.UniqueConstraint("supersedes_id", name="uq_answers_supersedes_id"),
    )
    op.create_index("ix_answers_annotator", "answers", ["project_id", "annotator_id", "id"], unique=False)
    op.create_index(
        "ix_answers_once",
        "answers",
        ["task_id", "annotator_id"],
        unique=True,
        sqlite_where=sa.text("supersedes_id IS NULL AND lease_id IS NOT NULL"),
        postgresql_where=sa.text("supersedes_id IS NULL AND lease_id IS NOT NULL"),
    )
    op.create_index("ix_answers_task", "answers", ["task_id", "annotator_id"], unique=False)
