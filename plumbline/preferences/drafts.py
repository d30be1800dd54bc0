"""What an annotator entered and did not send yet, kept on the server: it survives reload, restart, another device."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, delete, insert, select

from plumbline.errors import StoreError
from plumbline.preferences.tables import Draft, RowId
from plumbline.preferences.turn import Actor, Turn

MAX_DRAFT = 512 * 1024
"""Bytes of a draft as JSON: an improved response and a reason of the longest kind, in any script (a character takes up
to 4 bytes), with room to spare."""


class NewerDraft(StoreError):
    """The store has a draft of this task that the given one does not go on from; it stays."""


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


def put_draft(
    turn: Turn, actor: Actor, lease: Any, content: dict[str, Any], after: Collection[str] | None = None
) -> None:
    """Keep a draft in place of the one before.

    Args:
        after: the `revision`s of the draft from which this one may go on; None for whichever there is.

    Raises:
        NewerDraft: the one that is there has another revision.
    """
    if after is not None:
        mine = (Draft.task_id == lease.task_id) & draft_of(lease.annotator_id, lease.purpose)
        kept = turn.connection.execute(select(Draft.content).where(mine)).scalar_one_or_none() or {}
        if kept.get("revision") not in (None, content.get("revision"), *after):
            raise NewerDraft(
                "you went on with this item in another window or browser: load what you entered there, or go on here "
                "and submit this."
            )
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
