"""Writing an answer: a judgement, a skip or a flag, new or as the correction of an earlier one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, insert, select

from plumbline.errors import StoreError
from plumbline.preferences import audit
from plumbline.preferences.adjudication import NOT_THEIRS, may_decide, measure, settle
from plumbline.preferences.checks import score_check
from plumbline.preferences.drafts import draft_of, drop_draft
from plumbline.preferences.guidelines import accepted_guideline
from plumbline.preferences.queue import (
    ANSWERED,
    ANSWERED_ALREADY,
    OPEN,
    change_task,
    close_lease,
    held_lease,
    own_lease,
    take_place,
)
from plumbline.preferences.records import ADJUDICATION, CHECKS, FLAG, JUDGEMENT, REPEAT, SKIP, WORK, Ranking
from plumbline.preferences.rules import Rules
from plumbline.preferences.source_names import MASK
from plumbline.preferences.tables import Answer, Draft, Task, current
from plumbline.preferences.turn import Actor, Turn, count
from plumbline.preferences.validation import (
    check_edited,
    check_flags,
    check_gaps,
    check_scores,
    checked_ranks,
    digest,
    note_fault,
)

TALLIES = {JUDGEMENT: "judged", SKIP: "skipped", FLAG: "flagged"}

_TASK = (
    select(Task.id, Task.key, Task.responses, Task.wanted, Task.expected, Draft.task_id.label("draft"))
    .outerjoin(Draft, (Draft.task_id == Task.id) & draft_of(bindparam("annotator"), bindparam("purpose")))
    .where(Task.id == bindparam("task"))
)
_SAID = ("kind", "task_id", "ranks", "strength", "gaps", "scores", "reason", "edited", "flags")
"""What an annotator says in an answer: with the same key it must be the same. The time on task may differ."""

_SAID_BEFORE = select(*(getattr(Answer, name) for name in _SAID)).where(
    Answer.project_id == bindparam("project"), Answer.answer_id == bindparam("answer")
)
_STORE = (
    insert(Answer)
    .values(guideline_id=accepted_guideline(bindparam("in_project"), bindparam("by_annotator")))
    .returning(Answer.id, Answer.guideline_id)
)


@dataclass(frozen=True)
class NewAnswer:
    """What an annotator says of the task in their hands; `ranking` is given for judgements alone."""

    kind: str
    key: str
    ranking: Ranking | None = None
    seconds: float | None = None
    strength: float | None = None
    gaps: tuple[int, ...] = ()
    scores: dict[str, Any] | None = None
    reason: str | None = None
    edited: str | None = None
    flags: tuple[str, ...] = ()


def answer_lease(turn: Turn, actor: Actor, lease_id: str, new: NewAnswer, rules: Rules) -> str:
    """Store an answer and end its lease; the same answer again, with the same key, returns the one that is there.

    What follows from it is written with it: the counts, the score of a check, how far the judges of a task disagree.

    Raises:
        StoreError: the lease is not theirs or is over and the task was given to others, the ranking does not fit,
            a reason is missing, they may no longer decide disputed tasks, or the key was used for another answer.
    """
    if not new.key:
        raise StoreError("an answer needs an idempotency key: one for each time that a task is shown.")
    for text in (new.reason, new.edited):
        fault = note_fault(text)
        if fault:
            raise StoreError(f"the text {fault}: remove it, then send the answer again.")
    check_flags(new.flags)
    answer_id = digest(actor.name, new.key)
    lease = own_lease(turn, actor, lease_id)
    asked = {"task": lease.task_id, "annotator": lease.annotator_id, "purpose": lease.purpose}
    task = turn.connection.execute(_TASK, asked).one()
    ranks = None if new.ranking is None else _checked_ranks(new, new.ranking, task.responses, rules)
    said = {
        "kind": new.kind,
        "task_id": lease.task_id,
        "ranks": ranks,
        "strength": new.strength,
        "gaps": list(new.gaps) or None,
        "scores": new.scores,
        "reason": new.reason,
        "edited": new.edited,
        "flags": list(new.flags) or None,
    }
    if _is_repeated(turn, answer_id, said):
        return answer_id
    lease = _usable(turn, actor, lease)
    if lease.purpose == ADJUDICATION and not may_decide(turn, turn.project_id, actor.id):
        raise StoreError(NOT_THEIRS)
    if ranks is not None and not actor.simulated:
        rules.check_reason(new.reason, lease.purpose, new.gaps, new.flags)
    row = said | {
        "answer_id": answer_id,
        "project_id": turn.project_id,
        "annotator_id": actor.id,
        "lease_id": lease.id,
        "shown_order": lease.shown_order,
        "judged_at": turn.now,
        "seconds": new.seconds,
        "purpose": lease.purpose,
        "supersedes_id": lease.supersedes_id,
    }
    of_whom = {"in_project": turn.project_id, "by_annotator": actor.id}
    answer, row["guideline_id"] = turn.connection.execute(_STORE, row | of_whom).one()
    audit.record_answer(
        turn.connection, project=turn.project, annotator_id=actor.annotator_id, task_key=task.key, answer=row
    )
    close_lease(turn, lease, ANSWERED)
    if task.draft is not None:
        drop_draft(turn, lease)
    _count(turn, actor, lease, new.kind)
    if lease.purpose in CHECKS and ranks is not None:
        score_check(turn, actor, rules, answer, task, ranks)
    elif lease.purpose == ADJUDICATION:
        settle(turn, task.id, new.kind)
    elif lease.purpose == WORK and task.wanted > 1:
        measure(turn.connection, [task.id])
    return answer_id


def _checked_ranks(new: NewAnswer, ranking: Ranking, responses: list[dict[str, Any]], rules: Rules) -> list[int]:
    """The ranks in the order of the responses, when all that is said with them fits too."""
    ids = [response["id"] for response in responses]
    ranks = list(checked_ranks(ranking, ids))
    check_gaps(new.gaps, ranks)
    check_scores(new.scores, rules.rubric, ids)
    if new.edited is not None and not rules.edit:
        raise StoreError("this project takes no improved responses: leave the response as it was.")
    texts = [response["text"] for response in responses]
    check_edited(new.edited, ranks, texts)
    if new.edited is not None and MASK in new.edited and not any(MASK in text for text in texts):
        raise StoreError(
            f"the improved response holds {MASK}, which stands for a hidden name: write it without that name."
        )
    return ranks


def last_answer(turn: Turn, actor: Actor) -> Row[Any] | None:
    """The annotator's last current answer that was given here (imported ones are not theirs to undo)."""
    query = (
        select(Answer.__table__)
        .where(Answer.project_id == turn.project_id, Answer.annotator_id == actor.id)
        .where(Answer.lease_id.is_not(None), current())
        .order_by(Answer.id.desc())
        .limit(1)
    )
    return turn.connection.execute(query).one_or_none()


def is_superseded(turn: Turn, answer: int) -> bool:
    """Whether a later answer corrects the one with this row id."""
    return turn.connection.execute(select(Answer.id).where(Answer.supersedes_id == answer)).one_or_none() is not None


def _is_repeated(turn: Turn, answer_id: str, said: dict[str, Any]) -> bool:
    asked = {"project": turn.project_id, "answer": answer_id}
    earlier = turn.connection.execute(_SAID_BEFORE, asked).one_or_none()
    if earlier is None:
        return False
    if earlier._mapping != said:
        raise StoreError(
            "this answer was stored before with other contents, and these stand: load the next task, or undo to "
            "correct the answer."
        )
    return True


def _usable(turn: Turn, actor: Actor, lease: Row[Any]) -> Row[Any]:
    """The lease under which the answer counts.

    An annotator who was slower than their lease loses nothing as long as the task still wants a judgement.
    """
    if lease.state == OPEN:  # over or not: it still has its place
        return lease
    if lease.state == ANSWERED:
        raise StoreError(ANSWERED_ALREADY)
    held = held_lease(turn, actor)
    if held is not None and _asks(held) == _asks(lease):
        return held
    if not _still_wanted(turn, actor, lease):
        raise StoreError(
            "your time for this task ended and others have taken it since, so this answer was not stored: "
            "load the next one."
        )
    return lease


def _asks(lease: Row[Any]) -> tuple[Any, ...]:
    """What a lease asks for: two leases that ask for the same can stand for each other."""
    return lease.task_id, lease.supersedes_id, lease.purpose


def _still_wanted(turn: Turn, actor: Actor, lease: Row[Any]) -> bool:
    if lease.supersedes_id is None:
        mine = (Answer.task_id == lease.task_id) & (Answer.annotator_id == actor.id) & (Answer.purpose == lease.purpose)
        if turn.connection.execute(select(Answer.id).where(mine).limit(1)).one_or_none() is not None:
            return False
        if lease.purpose == ADJUDICATION and _decided(turn, lease.task_id):
            return False
    elif is_superseded(turn, lease.supersedes_id):
        return False
    return take_place(turn, lease.task_id) if lease.slot else True


def _decided(turn: Turn, task_id: int) -> bool:
    query = select(Task.adjudicated).where(Task.id == task_id).with_for_update(key_share=True)
    return bool(turn.connection.execute(query).scalar_one())


def _count(turn: Turn, actor: Actor, lease: Row[Any], kind: str) -> None:
    """Bring the counts of task and annotator up to the new answer; of a task, only work is counted."""
    changes = Counter({TALLIES[kind]: 1})
    if lease.supersedes_id is not None:
        earlier = turn.connection.execute(select(Answer.kind).where(Answer.id == lease.supersedes_id)).scalar_one()
        changes[TALLIES[earlier]] -= 1
    task = {"flagged": changes["flagged"]}
    if lease.purpose == WORK:
        place = 0 if kind == JUDGEMENT else -1  # only a judgement keeps the place that its lease took
        task |= {"taken": place, "judged": changes["judged"]}
    change_task(turn, lease.task_id, **task)
    if lease.purpose == REPEAT and lease.supersedes_id is None:
        changes["repeats"] = 1
    count(turn, actor.id, **changes)
