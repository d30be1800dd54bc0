"""Tasks are found by their key alone too, to be retired."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_tasks_key", "tasks", ["project_id", "key"])
