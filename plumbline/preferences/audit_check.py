"""Checking the audit log: that its chain is whole, and that answers say what they said when they were given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select

from plumbline.errors import counted
from plumbline.preferences.account_tables import AuditEntry
from plumbline.preferences.audit import ANSWERS, AT_ONCE, BEGINNING, digest_of, digests_of, in_order
from plumbline.preferences.records import DISMISSAL, FLAG, JUDGEMENT, SKIP
from plumbline.preferences.tables import Annotator, Answer, Project, Task
from plumbline.preferences.validation import task_key

if TYPE_CHECKING:
    from plumbline.preferences.store import Store

ERASE = "erase"
"""Action of the entry that a person was erased; `details` has what became of `judgements` and `texts`."""

REMOVED = "removed"

SHOWN_FAULTS = 20


@dataclass(frozen=True)
class Fault:
    """What is wrong with an entry, or (`number` is None) with an answer that has none."""

    number: int | None
    what: str


@dataclass
class AuditReport:
    """What `verify` found.

    Attributes:
        entries: how many there are.
        head: the newest entry's digest; `BEGINNING` of an empty log. Keep it elsewhere, as `expected` of a later check.
        broken: the first entry at which the chain breaks.
        expected_found: whether the log has the expected digest; None where none was given.
        answers: how many answers were compared with the log; 0 unless asked for.
        before_the_log: answers that are older than the log.
        faults: answers that differ from the log; at most `SHOWN_FAULTS` are kept, `differing` counts them all.
    """

    entries: int = 0
    head: str = BEGINNING
    broken: Fault | None = None
    expected_found: bool | None = None
    answers: int = 0
    before_the_log: int = 0
    differing: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return self.broken is None and self.expected_found is not False and not self.differing

    def add(self, number: int | None, what: str) -> None:
        """Note an answer that differs."""
        self.differing += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(Fault(number, what))


def verify(store: Store, *, contents: bool = False, expected: str | None = None) -> AuditReport:
    """Check the whole log, in a stream, in one state of the store.

    Args:
        contents: also compare every answer, and the task that it is about, with what the log says of it.
        expected: a digest that an earlier check named; the log must still contain it.
    """
    report = AuditReport(expected_found=None if expected is None else expected == BEGINNING)
    with store.read() as connection:
        _check_chain(connection, report, expected)
        if contents:
            _check_answers(connection, report)
    return report


def _entries(connection: Connection, *actions: str) -> Iterator[Row[Any]]:
    query = select(AuditEntry.__table__).order_by(AuditEntry.id)
    if actions:
        query = query.where(AuditEntry.action.in_(actions))
    # By key instead of one long stream, because other questions are asked meanwhile.
    last = 0
    while rows := connection.execute(query.where(AuditEntry.id > last).limit(AT_ONCE)).all():
        yield from rows
        last = rows[-1].id


def _check_chain(connection: Connection, report: AuditReport, expected: str | None) -> None:
    number = 0
    for entry in _entries(connection):
        report.entries += 1
        if report.broken is None:
            report.broken = _break_at(entry, number, report.head)
        number, report.head = entry.id, entry.digest
        if expected == entry.digest:
            report.expected_found = True


def _break_at(entry: Row[Any], before: int, digest: str) -> Fault | None:
    if digest_of(entry._asdict()) != entry.digest:
        return Fault(entry.id, "it was changed, or moved here from another place")
    if entry.id != before + 1:
        gone = f"entry {before + 1}" if entry.id == before + 2 else f"entries {before + 1} to {entry.id - 1}"
        return Fault(entry.id, f"{gone} before it: missing")
    if entry.previous != digest:
        return Fault(entry.id, "it does not follow from the entry before, which was put there instead of another")
    return None


def _check_answers(connection: Connection, report: AuditReport) -> None:
    erased = {entry.subject: entry.details or {} for entry in _entries(connection, ERASE)}
    decisions = {one for details in erased.values() for one in details.get("decisions", ())}
    seen: set[int] = set()
    for claim in _claims(connection):
        seen.update(row.id for row in claim.rows)
        fault = _fault_of(claim, erased.get(claim.annotator, {}), decisions)
        if fault:
            report.add(claim.number, fault)
    report.answers = len(seen)
    _check_unlogged(connection, report, seen)
    tasks = select(Task.key, Task.prompt, Task.responses).order_by(Task.id)
    for task in connection.execution_options(stream_results=True, yield_per=AT_ONCE).execute(tasks):
        if task_key(task.prompt, [response["text"] for response in task.responses]) != task.key:
            report.add(None, f"the task {task.key}: its prompt or its responses were changed since it was made")


class Claim(NamedTuple):
    """What an entry says of answers of one annotator: their digests and number, and the rows that are there now."""

    number: int
    annotator: str | None
    about: str
    said: Mapping[str, Any]
    answers: int
    rows: Sequence[Row[Any]]
    digests: dict[str, str]


def _claims(connection: Connection) -> Iterator[Claim]:
    page: list[Row[Any]] = []
    for entry in _entries(connection, JUDGEMENT, SKIP, FLAG, DISMISSAL, ANSWERS):
        if entry.action == ANSWERS:
            yield from _claims_of_group(connection, entry)
            continue
        page.append(entry)
        if len(page) == AT_ONCE:
            yield from _claims_of_singles(connection, page)
            page.clear()
    yield from _claims_of_singles(connection, page)


def _claims_of_singles(connection: Connection, entries: Sequence[Row[Any]]) -> Iterator[Claim]:
    ids = [entry.subject for entry in entries]
    projects = select(Project.id).where(Project.name.in_({entry.project for entry in entries}))
    query = _answers().where(Answer.project_id.in_(projects), Answer.answer_id.in_(ids))
    # By annotator too: an answer that was removed with its annotator may have come back with a file, as another's.
    found = {(row.project, row.answer_id, row.annotator): row for row in connection.execute(query)}
    for entry in entries:
        row = found.get((entry.project, entry.subject, entry.actor))
        rows, digests = ([], {}) if row is None else ([row], _digests(row))
        about = f"the {entry.action} {entry.subject}"
        yield Claim(entry.id, entry.actor, about, entry.details or {}, 1, rows, digests)


def _claims_of_group(connection: Connection, entry: Row[Any]) -> Iterator[Claim]:
    for annotator, said in (entry.details or {}).items():
        rows: list[Row[Any]] = []
        for first, last in said["rows"]:
            query = _answers().where(Answer.id.between(first, last), Annotator.annotator_id == annotator)
            rows += connection.execute(query.order_by(Answer.id)).all()
        answers = sum(last - first + 1 for first, last in said["rows"])
        about = f"{counted(answers, 'answer')} that came together by the annotator {annotator}"
        yield Claim(entry.id, annotator, about, said, answers, rows, in_order([_digests(row) for row in rows]))


def _answers() -> Select[Any]:
    return (
        select(Answer.__table__, Project.name.label("project"), Task.key, Annotator.annotator_id.label("annotator"))
        .join(Task, Task.id == Answer.task_id)
        .join(Annotator, Annotator.id == Answer.annotator_id)
        .join(Project, Project.id == Answer.project_id)
    )


def _digests(row: Row[Any]) -> dict[str, str]:
    return digests_of(row._asdict(), task_key=row.key, annotator_id=row.annotator)


def _fault_of(claim: Claim, erasure: Mapping[str, Any], detached: set[str]) -> str | None:
    """What is wrong with the answers of an entry, but for what logged erasures did.

    Args:
        erasure: of who gave them.
        detached: ids of decisions from which the erasure of somebody else took words.
    """
    if len(claim.rows) < claim.answers:
        gone = claim.about if claim.answers == 1 else f"{claim.answers - len(claim.rows)} of {claim.about}"
        return None if erasure.get("judgements") == REMOVED else f"{gone}: gone from the store"
    if detached.intersection(row.answer_id for row in claim.rows):
        return None
    if claim.digests["content"] != claim.said.get("content"):
        return f"{claim.about}: now says something else than when it was given"
    if claim.digests.get("texts") != claim.said.get("texts") and erasure.get("texts") != REMOVED:
        return f"{claim.about}: the reason or the edited response has other words than when it was given"
    return None


def _check_unlogged(connection: Connection, report: AuditReport, seen: set[int]) -> None:
    """Answers without an entry: from before the log began, or put into the database past plumbline."""
    first = min(seen, default=None)
    began = None if seen else _began(connection)  # where no logged answer is left, their times have to tell

    def is_older(row: Any) -> bool:
        if first is not None:
            return bool(row.id < first)
        return began is None or row.lease_id is None or bool(row.judged_at < began)

    query = select(Answer.id, Answer.answer_id, Answer.kind, Answer.lease_id, Answer.judged_at).order_by(Answer.id)
    for row in connection.execution_options(stream_results=True, yield_per=AT_ONCE).execute(query):
        if row.id in seen:
            continue
        if is_older(row):
            report.before_the_log += 1
        else:
            report.add(None, f"the {row.kind} {row.answer_id}: in the store, but not in the log")


def _began(connection: Connection) -> datetime | None:
    """When the log's first entry was written; None of an empty log."""
    at = connection.execute(select(AuditEntry.at).order_by(AuditEntry.id).limit(1)).scalar_one_or_none()
    return None if at is None else datetime.fromisoformat(at)
