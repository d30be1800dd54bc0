"""Tasks can be closed: while they are flagged, and when other responses took their place."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

OPEN = "taken < wanted AND flagged = 0 AND NOT retired"


def upgrade() -> None:
    """Add the columns, count the flags that stand, and make the indexes of open tasks and of progress anew."""
    op.add_column("tasks", sa.Column("flagged", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("tasks", sa.Column("retired", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(
        "UPDATE tasks SET flagged = (SELECT count(*) FROM answers a WHERE a.task_id = tasks.id AND a.kind = 'flag' "
        "AND NOT EXISTS (SELECT 1 FROM answers later WHERE later.supersedes_id = a.id)) "
        "WHERE id IN (SELECT task_id FROM answers WHERE kind = 'flag')"
    )
    op.drop_index("ix_tasks_open", "tasks")
    op.create_index(
        "ix_tasks_open", "tasks", ["project_id", "id"], sqlite_where=sa.text(OPEN), postgresql_where=sa.text(OPEN)
    )
    op.drop_index("ix_tasks_progress", "tasks")
    op.create_index("ix_tasks_progress", "tasks", ["project_id", "wanted", "judged", "flagged", "retired"])
