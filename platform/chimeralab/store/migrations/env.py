"""Alembic's entry: runs on the connection, and inside the transaction, that `migrate.py` hands over."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy.types import TypeDecorator

from chimeralab.store.migrate import SCHEMA_TABLE
from chimeralab.store.models import Base


def plain_types(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Write new migrations with SQLAlchemy's own types: a migration must not change when ours do."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{type(item.impl).__name__}()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=SCHEMA_TABLE,
    transactional_ddl=True,
    render_item=plain_types,
)
with context.begin_transaction():
    context.run_migrations()
