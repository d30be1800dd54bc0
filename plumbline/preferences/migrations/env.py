"""Alembic's environment: the migrations run on the connection and in the transaction that `Store` hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
