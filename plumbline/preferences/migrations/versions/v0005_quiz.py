"""The quiz on the guideline: how each annotator did, and which one they passed last."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table of results, and add the column that is read with every task that is handed out."""
    op.create_table(
        "quiz_results",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Integer(), nullable=False),
        sa.Column("quiz", sa.String(length=32), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("granted", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("answers", sa.JSON(), nullable=True),
        sa.Column("share", sa.Double(), nullable=True),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("passed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("let_in", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_quiz_results_annotator_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_quiz_results_project_id"),
        sa.PrimaryKeyConstraint("project_id", "annotator_id", "quiz", name="pk_quiz_results"),
    )
    op.add_column("tallies", sa.Column("quiz", sa.String(length=32), nullable=True))
