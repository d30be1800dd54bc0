"""What is new of a project's judgements, for programs that ask again and again.

Row ids are no order to ask by: on SQLite those of removed answers come again, and on PostgreSQL a row may appear after
one with a higher id. The audit log has the order: its entries are numbered under a lock that is held until their
transaction is committed, so that none appears before an entry that was there already, and no number comes again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, or_, select
from sqlalchemy.orm import aliased

from plumbline.preferences.account_tables import AuditEntry
from plumbline.preferences.audit import ANSWERS, head_of
from plumbline.preferences.records import DISMISSAL, FLAG, JUDGEMENT, LEARNED_FROM, SKIP
from plumbline.preferences.tables import HIGHEST_ID, Annotator, Answer
from plumbline.preferences.turn import Turn

AT_ONCE = 500
"""Entries, or answers of one entry, that are read together."""

_ENTRY: tuple[Any, ...] = (AuditEntry.id, AuditEntry.action, AuditEntry.actor, AuditEntry.subject)
_EARLIER = aliased(Answer)
# No join: where PostgreSQL has no statistics yet, it would read all answers of each annotator.
_WHO = select(Annotator.annotator_id).where(Annotator.id == Answer.annotator_id).scalar_subquery()
_ANSWER: tuple[Any, ...] = (
    *(Answer.id, Answer.answer_id, Answer.kind, _WHO.label("annotator")),
    *(_EARLIER.kind.label("kind_before"), _EARLIER.answer_id.label("id_before"), _EARLIER.supersedes_id),
)
_CURSOR = re.compile(r"(?:(\d{1,10})-)?(\d{1,10})", re.ASCII)


class Cursor(NamedTuple):
    """How far a program has read: an entry of the audit log, and an answer (its row id) that the entry tells of.

    Entry 0 stands for answers that are older than the log; None for a number alone, as cursors once were, which
    means all answers with a higher row id.
    """

    entry: int | None
    row: int

    @classmethod
    def of(cls, written: str) -> Cursor | None:
        """The cursor as it was written; None where it is none."""
        found = _CURSOR.fullmatch(written)
        if found is None:
            return None
        cursor = cls(None if found[1] is None else int(found[1]), int(found[2]))
        return cursor if max(cursor.entry or 0, cursor.row) <= HIGHEST_ID else None

    def __str__(self) -> str:
        return f"{self.row}" if self.entry is None else f"{self.entry}-{self.row}"


BEGINNING = Cursor(0, 0)


class News(NamedTuple):
    """A judgement that came, or (`withdrawn`) one that was taken back by a skip or a flag in its place.

    `supersedes` is the id of the judgement that is no longer valid with it.
    """

    cursor: Cursor
    withdrawn: bool
    supersedes: str | None


def news_after(turn: Turn, cursor: Cursor, limit: int) -> list[News]:
    """The next news in the order in which they were committed; `News.cursor.row` is the answer's row id."""
    return [
        News(place, answer.kind != JUDGEMENT, _judgement_before(turn, answer))
        for place, answer in islice(_answers_after(turn, cursor), limit)
    ]


Place = tuple[Cursor, Row[Any]]


def _answers_after(turn: Turn, cursor: Cursor) -> Iterator[Place]:
    if cursor.entry:
        yield from _logged(turn, cursor)
        return
    yield from _older_than_the_log(turn, cursor.row)
    if cursor.entry is None and cursor.row:
        yield from _logged_above(turn, cursor.row)
    else:
        yield from _logged(turn, BEGINNING)


def _older_than_the_log(turn: Turn, row: int) -> Iterator[Place]:
    """Answers without an entry; their row ids are lower than those of all others."""
    first_logged = min((answer.id for _, answer in islice(_logged(turn, BEGINNING), AT_ONCE)), default=HIGHEST_ID)
    for answer in _by_row(turn, row, first_logged - 1):
        yield Cursor(0, answer.id), answer


def _logged_above(turn: Turn, row: int) -> Iterator[Place]:
    """What the log tells from the first answer on that has a higher row id.

    Row ids grow with the entries, but for answers that were given at the same moment.
    """

    def highest_after(entry: int) -> int:
        here = islice(_logged(turn, Cursor(entry + 1, 0)), AT_ONCE)
        return max((answer.id for _, answer in here), default=HIGHEST_ID)

    newest, _ = head_of(turn.connection)
    start = bisect_right(range(newest), row, key=highest_after)
    places = _logged(turn, Cursor(start + 1, 0))
    for place, answer in places:
        if answer.id > row:
            yield place, answer
            yield from places


def _logged(turn: Turn, after: Cursor) -> Iterator[Place]:
    """The answers that the log tells of, behind a place in it."""
    entry, row = after.entry or 0, after.row
    while entries := turn.connection.execute(_entries(turn, entry)).all():
        singly = _given_singly(turn, entries)
        for told in entries:
            behind = row if told.id == entry else 0
            together = told.action == ANSWERS
            answers = _given_together(turn, told.id, behind) if together else singly.get((told.subject, told.actor), ())
            yield from ((Cursor(told.id, answer.id), answer) for answer in answers if answer.id > behind)
        entry, row = entries[-1].id + 1, 0


def _entries(turn: Turn, first: int) -> Select[Any]:
    return (
        select(*_ENTRY)
        .where(AuditEntry.project == turn.project, AuditEntry.id >= first)
        .where(AuditEntry.action.in_((JUDGEMENT, SKIP, FLAG, DISMISSAL, ANSWERS)))
        .order_by(AuditEntry.id)
        .limit(AT_ONCE)
    )


def _given_singly(turn: Turn, entries: Sequence[Row[Any]]) -> dict[tuple[str, str], list[Row[Any]]]:
    """The answers with an entry of their own, by id and annotator.

    By both, because the same answer can be imported again after its annotator was erased.
    """
    subjects = [entry.subject for entry in entries if entry.action != ANSWERS]
    found = turn.connection.execute(_answers(turn).where(Answer.answer_id.in_(subjects)))
    return {(answer.answer_id, answer.annotator): [answer] for answer in found}


def _given_together(turn: Turn, entry: int, behind: int) -> Iterator[Row[Any]]:
    """The answers of one transaction, which the entry names by row ids of each annotator."""
    query = select(AuditEntry.details).where(AuditEntry.id == entry)
    details = turn.connection.execute(query).scalar_one()
    ranges = sorted((first, last, who) for who, said in details.items() for first, last in said["rows"])
    firsts = [first for first, _, _ in ranges]
    for answer in _by_row(turn, max(behind, firsts[0] - 1), max(last for _, last, _ in ranges)):
        _, last, who = ranges[bisect_right(firsts, answer.id) - 1]
        if answer.id <= last and answer.annotator == who:
            yield answer


def _by_row(turn: Turn, behind: int, last: int) -> Iterator[Row[Any]]:
    while behind < last:
        query = _answers(turn).where(Answer.id > behind, Answer.id <= last).order_by(Answer.id).limit(AT_ONCE)
        answers = turn.connection.execute(query).all()
        yield from answers
        behind = answers[-1].id if answers else last


def _answers(turn: Turn) -> Select[Any]:
    """The query for judgements that models learn from, and for what was said in place of one."""
    return (
        select(*_ANSWER)
        .outerjoin(_EARLIER, _EARLIER.id == Answer.supersedes_id)
        .where(Answer.project_id == turn.project_id, Answer.purpose.in_(LEARNED_FROM))
        .where(or_(Answer.kind == JUDGEMENT, _EARLIER.kind == JUDGEMENT))
    )


def _judgement_before(turn: Turn, answer: Row[Any]) -> str | None:
    """The id of the last judgement that the answer stands in place of; skips and flags in between are passed over."""
    kind, answer_id, before = answer.kind_before, answer.id_before, answer.supersedes_id
    while kind not in (JUDGEMENT, None) and before is not None:
        query = select(Answer.kind, Answer.answer_id, Answer.supersedes_id).where(Answer.id == before)
        kind, answer_id, before = turn.connection.execute(query).one()
    return answer_id if kind == JUDGEMENT else None
