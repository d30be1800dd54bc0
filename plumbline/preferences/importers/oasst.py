"""OpenAssistant's message trees: every prompt in a tree whose replies people ranked is one ranking (`rank` 0 is best).

Deleted replies and replies without a rank are left out. The ranks are the tree's merged ones; nobody is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plumbline.conversations import Conversation
from plumbline.preferences.importers.base import Judged, RowFault, text_of
from plumbline.preferences.records import MAX_RESPONSES, NewResponse

FORMAT = "oasst"

_ROLES = {"prompter": "user", "assistant": "assistant"}


def detect(row: dict[str, Any]) -> bool:
    """Whether the row is a message tree."""
    return "message_tree_id" in row and isinstance(row.get("prompt"), dict)


def judgements(row: dict[str, Any]) -> Iterator[Judged]:
    """One ranking for each prompt of the tree with at least two ranked replies."""
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise RowFault("`prompt` is no message tree")
    yield from _walk(root, [])


def _walk(node: dict[str, Any], path: Conversation) -> Iterator[Judged]:
    role = _ROLES.get(text_of(node, "role"))
    if role is None:
        raise RowFault(f"unknown role {node['role']!r}; known are {', '.join(_ROLES)}")
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise RowFault("`replies` is not a list of messages")
    here: Conversation = [*path, {"role": role, "content": text_of(node, "text")}]
    if role == "user":
        yield from _ranking(node, here, replies)
    for reply in replies:
        yield from _walk(reply, here)


def _ranking(node: dict[str, Any], prompt: Conversation, replies: list[dict[str, Any]]) -> Iterator[Judged]:
    ranked = [reply for reply in replies if reply.get("rank") is not None and not reply.get("deleted")]
    if len(ranked) < 2:
        return
    if not all(isinstance(reply["rank"], int) and not isinstance(reply["rank"], bool) for reply in ranked):
        raise RowFault("a reply's `rank` is no whole number")
    ranked = sorted(ranked, key=lambda reply: reply["rank"])[:MAX_RESPONSES]
    best = ranked[0]["rank"]
    yield Judged(
        prompt,
        [NewResponse(text_of(reply, "text"), _author(reply)) for reply in ranked],
        [reply["rank"] - best + 1 for reply in ranked],
        meta={"message_id": node.get("message_id"), "lang": node.get("lang")},
    )


def _author(reply: dict[str, Any]) -> str:
    return str(reply.get("model_name") or "model") if reply.get("synthetic") else "person"
