"""When somebody signed in last, which retention asks for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; whoever has an account counts as signed in now, because nothing says when they did.

    People without accounts signed in at the latest before the newest task that they opened, or turn in the arena.
    """
    op.add_column("annotators", sa.Column("signed_in_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE annotators SET signed_in_at = CURRENT_TIMESTAMP WHERE id IN (SELECT annotator_id FROM accounts)")
    for table in ("leases", "battles"):
        newest = f"SELECT annotator_id, max(created_at) AS at FROM {table} GROUP BY annotator_id"
        op.execute(
            f"UPDATE annotators SET signed_in_at = newest.at FROM ({newest}) AS newest "
            "WHERE newest.annotator_id = annotators.id AND annotators.signed_in_at IS NULL"
        )
