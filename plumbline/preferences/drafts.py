"""What an annotator entered and did not send yet, kept on the server: it survives reload, restart, another device."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, delete, insert

from plumbline.errors import StoreError
from plumbline.preferences.tables import Draft, RowId
from plumbline.preferences.turn import Actor, Turn

MAX_DRAFT = 512 * 1024
"""Bytes of a draft as JSON: an improved response and a reason of the longest kind, in any script (a character takes up
to 4 bytes), with room to spare."""


def checked_draft(content: Any) -> dict[str, Any]:
    """A draft that can be stored.

    Raises:
        StoreError: it is no object of JSON values, or too large.
    """
    try:
        size = len(json.dumps(content, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError):  # a surrogate that cannot be encoded is a ValueError too
        raise StoreError("the draft is not JSON, so it was not saved.") from None
    if not isinstance(content, dict):
        raise StoreError("the draft is no JSON object, so it was not saved.")
    if size > MAX_DRAFT:
        raise StoreError(f"the draft is too long to be saved: {size} bytes, at most {MAX_DRAFT} fit.")
    return content


def put_draft(turn: Turn, actor: Actor, lease: Any, content: dict[str, Any]) -> None:
    """Keep a draft in place of the one before."""
    drop_draft(turn, lease)
    key = {"task_id": lease.task_id, "annotator_id": actor.id, "purpose": lease.purpose}
    turn.connection.execute(insert(Draft).values(**key, content=content, saved_at=turn.now))


def draft_of(annotator: RowId, purpose: str | BindParameter[str]) -> ColumnElement[bool]:
    """Whether a draft is of this annotator and for this purpose; the task is to be asked for beside it."""
    return (Draft.annotator_id == annotator) & (Draft.purpose == purpose)


def drop_draft(turn: Turn, lease: Any) -> None:
    """Forget the draft of a leased task, where there is one."""
    turn.connection.execute(
        delete(Draft).where(Draft.task_id == lease.task_id, draft_of(lease.annotator_id, lease.purpose))
    )
