"""The audit log: who did what, and what every answer said, as a chain of entries that cannot be changed unnoticed.

Every entry holds the digest of the one before and has a number one higher, so that an entry that was changed, removed,
inserted or moved breaks the chain. Entries are written at the end of the transaction that they tell of, when its other
locks are taken: only then is the chain's end locked, and on PostgreSQL no longer than the commit takes.

The log itself cannot tell that its newest entries were cut off, or that all of it was written anew: keep the digest
that `verify` names somewhere else, and ask for it with `expected`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select, text

from plumbline.preferences.account_tables import AuditEntry
from plumbline.preferences.tables import Answer

if TYPE_CHECKING:
    from plumbline.preferences.webhooks import Subscription

BEGINNING = "0" * 64
"""Stands for the digest before the first entry."""

ANSWERS = "answers"
"""Action of an entry that tells of several answers of one transaction: a simulated batch, or an import."""

ACTOR: ContextVar[str | None] = ContextVar("actor", default=None)
"""The annotator id of whoever asks, where a page does; the actor of entries that name none."""

CHAIN_LOCK = 0x706C6175  # any constant; PostgreSQL takes it while entries are added
AT_ONCE = 500
PENDING = "plumbline_audit"


@dataclass
class Pending:
    """What a transaction will add to the log; `answers` are `(project id, project, annotator, answer, said)`.

    `subscriptions` are told by webhook of an answer that comes alone; imports and simulated batches change the progress
    and nothing else.
    """

    subscriptions: Sequence[Subscription]
    entries: list[dict[str, Any]] = field(default_factory=list)
    answers: list[tuple[int, str, str, Mapping[str, Any], dict[str, str]]] = field(default_factory=list)


def record(
    connection: Connection,
    *,
    project: str | None,
    action: str,
    actor: str | None = None,
    subject: str | None = None,
    details: Mapping[str, Any] | None = None,
    at: datetime | None = None,
) -> None:
    """Add an entry to the log, together with the transaction (`Store.write`) that the connection is in.

    Nothing personal goes in, so that people can be erased and the chain holds: ids, digests and counts, but neither
    names nor what somebody wrote.

    Args:
        project: the project's name; None for what concerns the whole store.
        action: what was done, in at most 32 characters, such as `role changed`.
        actor: the annotator id of whoever did it; default: whoever asks through a page, none for the command line.
        subject: the id of what it was done to.
        details: values that JSON can hold.
        at: when it happened; default: now.
    """
    pending = connection.info.get(PENDING)
    if pending is None:
        raise RuntimeError("audit entries are written in a transaction of `Store.write`")
    pending.entries.append(
        {
            "at": _moment(at or datetime.now(UTC)),
            "project": project,
            "actor": actor or ACTOR.get(),
            "action": action,
            "subject": subject,
            "details": None if details is None else dict(details),
        }
    )


def record_answer(
    connection: Connection, *, project: str, annotator_id: str, task_key: str, answer: Mapping[str, Any]
) -> None:
    """Add what an answer says, by digests; the answers of one transaction become one entry.

    Args:
        annotator_id: who gave it.
        task_key: of the task that it is about.
        answer: its row.
    """
    said = digests_of(answer, task_key=task_key, annotator_id=annotator_id)
    pending = connection.info[PENDING]
    pending.answers.append((answer["project_id"], project, annotator_id, {**answer, "task_key": task_key}, said))


@contextmanager
def recording(connection: Connection, subscriptions: Sequence[Subscription] = ()) -> Iterator[None]:
    """Around a transaction: what was recorded in it is written at its end, before it is committed."""
    info = connection.info  # asked for now: a connection that is lost meanwhile has none
    pending = info[PENDING] = Pending(subscriptions)
    try:
        yield
        _write(connection, pending)
    finally:
        info.pop(PENDING, None)


def digests_of(answer: Mapping[str, Any], *, task_key: str, annotator_id: str) -> dict[str, str]:
    """Digests of an answer: of its `content`, and of its `texts` (reason, edited response) where it has any.

    They are apart because the texts of a person can be erased and the rest kept.
    """
    numbers = {name: None if answer.get(name) is None else float(answer[name]) for name in ("seconds", "strength")}
    lists = {name: answer.get(name) or None for name in ("ranks", "shown_order", "gaps", "flags", "scores")}
    others = {name: answer.get(name) for name in ("answer_id", "kind", "supersedes_id", "guideline_id", "origin")}
    judged_at = answer.get("judged_at")
    content = {
        **numbers,
        **lists,
        **others,
        "task": task_key,
        "annotator": annotator_id,
        "purpose": answer.get("purpose") or "work",
        "judged_at": None if judged_at is None else _moment(judged_at),
    }
    texts = [answer.get("reason"), answer.get("edited")]
    said = {"content": _digest(content)}
    return said if texts == [None, None] else {**said, "texts": _digest([answer["answer_id"], *texts])}


def digest_of(entry: Mapping[str, Any]) -> str:
    """The digest of an entry with its number and the digest before it."""
    names = ("id", "at", "project", "actor", "action", "subject", "details", "previous")
    return _digest({name: entry[name] for name in names})


_NEWEST = select(AuditEntry.id, AuditEntry.digest).order_by(AuditEntry.id.desc()).limit(1)
_ADD = insert(AuditEntry)


def head_of(connection: Connection) -> tuple[int, str]:
    """The number and the digest of the newest entry; 0 and `BEGINNING` of an empty log."""
    row = connection.execute(_NEWEST).one_or_none()
    return (0, BEGINNING) if row is None else (row.id, row.digest)


def in_order(said: list[dict[str, str]]) -> dict[str, str]:
    """One pair of digests for several answers in the order of their rows."""
    together = {"content": _digest([one["content"] for one in said])}
    texts = [one["texts"] for one in said if "texts" in one]
    return {**together, "texts": _digest(texts)} if texts else together


def _write(connection: Connection, pending: Pending) -> None:
    entries = [*_entries_of_answers(connection, pending), *pending.entries]
    if not entries:
        return
    if pending.subscriptions and len(pending.answers) == 1:
        _tell(connection, pending)
    if connection.dialect.name != "sqlite":  # SQLite has one writer at a time anyway
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CHAIN_LOCK})
    number, digest = head_of(connection)
    for entry in entries:
        number += 1
        entry |= {"id": number, "previous": digest}
        digest = entry["digest"] = digest_of(entry)
    connection.execute(_ADD, entries)


def _tell(connection: Connection, pending: Pending) -> None:
    from plumbline.preferences.webhooks import enqueue_answer  # which imports the store

    _, project, annotator, answer, _ = pending.answers[0]
    enqueue_answer(
        connection,
        pending.subscriptions,
        project=project,
        annotator_id=annotator,
        task_key=answer["task_key"],
        answer=answer,
    )


def _entries_of_answers(connection: Connection, pending: Pending) -> Iterator[dict[str, Any]]:
    if len(pending.answers) == 1:
        _, project, annotator, answer, said = pending.answers[0]
        at = answer.get("judged_at") or datetime.now(UTC)
        yield {
            "at": _moment(at),
            "project": project,
            "actor": annotator,
            "action": answer["kind"],
            "subject": answer["answer_id"],
            "details": said,
        }
        return
    for (project_id, project), group in groupby(sorted(pending.answers, key=itemgetter(0)), key=itemgetter(0, 1)):
        answers = {answer["answer_id"]: (annotator, said) for _, _, annotator, answer, said in group}
        rows = dict(_rows_of(connection, project_id, list(answers)))
        by_annotator: dict[str, list[tuple[int, dict[str, str]]]] = {}
        for answer_id, row in sorted(rows.items(), key=itemgetter(1)):
            annotator, said = answers[answer_id]
            by_annotator.setdefault(annotator, []).append((row, said))
        yield {
            "at": _moment(datetime.now(UTC)),
            "project": project,
            "actor": None,
            "action": ANSWERS,
            "subject": None,
            "details": {
                annotator: {"rows": ranges_of([row for row, _ in theirs]), **in_order([said for _, said in theirs])}
                for annotator, theirs in by_annotator.items()
            },
        }


def _rows_of(connection: Connection, project_id: int, answer_ids: list[str]) -> Iterator[tuple[str, int]]:
    for start in range(0, len(answer_ids), AT_ONCE):
        these = Answer.answer_id.in_(answer_ids[start : start + AT_ONCE])
        found = select(Answer.answer_id, Answer.id).where(Answer.project_id == project_id, these)
        yield from ((row.answer_id, row.id) for row in connection.execute(found))


def ranges_of(numbers: list[int]) -> list[list[int]]:
    """Sorted numbers as ranges: 1, 2, 3, 7 become [1, 3], [7, 7]."""
    if not numbers:
        return []
    breaks = [(before, after) for before, after in pairwise(numbers) if after != before + 1]
    starts, ends = [numbers[0], *(after for _, after in breaks)], [*(before for before, _ in breaks), numbers[-1]]
    return [list(both) for both in zip(starts, ends, strict=True)]


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
