"""Checks: items whose right ranking is known. They look like work; what comes of them tells how careful somebody is.

A check is a task with the `expected` ranks. It is never among the work: it is handed to everybody, once, at the places
that `schedule` draws, and takes none of the tasks' places. Only the first judgement of a check is scored, so that
whoever finds out afterwards that it was one has nothing to gain from a correction; a skip is not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, Select, select, update

from plumbline.errors import StoreError
from plumbline.preferences.account_tables import AuditEntry
from plumbline.preferences.checks_file import ORIGIN, Check
from plumbline.preferences.ingest import add_batch
from plumbline.preferences.queue import answered_by, open_to
from plumbline.preferences.records import ADJUDICATION, CHECKS, GOLD, JUDGEMENT
from plumbline.preferences.rules import Rules
from plumbline.preferences.schedule import place
from plumbline.preferences.scoring import share_right
from plumbline.preferences.store import Store
from plumbline.preferences.tables import Annotator, Answer, Tally, Task, current
from plumbline.preferences.turn import Actor, Facet, Turn, now_utc
from plumbline.preferences.validation import task_key

GOLD_ITEM = "gold item"
"""Action of the audit log's entry that a lead made a gold item of a task."""

PAUSE = "too many of your rankings differ from those that the lead is sure of. Please talk to the lead."


@dataclass(frozen=True)
class CheckResult:
    """How an annotator did in their checks, since the lead last resumed them.

    Attributes:
        seen: checks that they judged.
        passed: those of which they got at least the share `warn_below` of the pairs right.
        share: mean over their checks of the share of pairs got right; None before the first one.
        streak: the last checks in a row that they passed.
        warning: the share is below `warn_below`, after enough checks.
        paused: why they get no work; None while they get some.
    """

    annotator_id: str
    name: str
    simulated: bool
    seen: int
    passed: int
    share: float | None
    streak: int
    warning: bool
    paused: str | None


class Checks(Facet):
    """The checks of a project, and how annotators do in them.

    Args:
        rules: thresholds come from `rules.checks`.
    """

    def __init__(self, store: Store, *, project: str, rules: Rules, clock: Callable[[], Any] = now_utc) -> None:
        super().__init__(store, project=project, clock=clock)
        self.rules = rules

    def load(self, checks: Sequence[Check]) -> int:
        """Make a file's checks those of the project; returns how many there are.

        Checks of an earlier file that are no longer in it are closed, all of them where it is empty; gold items made by
        `make_gold` stay. An item that was among the work is work no longer; what was judged of it stays.
        """
        with self.turn() as turn:
            add_batch(turn, [replace(check.task, origin=ORIGIN) for check in checks], wanted=0)
            keys = []
            for check in checks:
                key = task_key(check.task.prompt, [response.text for response in check.task.responses])
                keys.append(key)
                by_text = dict(zip((r.text for r in check.task.responses), check.expected, strict=True))
                row = _task(turn, key)
                expected = [by_text[response["text"]] for response in row.responses]
                values = {"check_kind": check.kind, "expected": expected, "wanted": row.judged, "retired": False}
                turn.connection.execute(update(Task).where(Task.id == row.id).values(**values))
            _close_others(turn, keys)
            return len(keys)

    def make_gold(self, task_id: str) -> None:
        """Make a gold item of an adjudicated task: the adjudicator's ranking is expected of those who have not seen it.

        Raises:
            StoreError: there is no such task, it is not adjudicated, or the adjudicator tied all responses.
        """
        with self.turn() as turn:
            row = _task(turn, task_id)
            ranks = adjudicated_ranks(turn, row.id)
            if ranks is None:
                raise StoreError("only an adjudicated task can become a gold item: adjudicate it first.")
            if len(set(ranks)) < 2:
                raise StoreError("the adjudicator tied all responses, so there is nothing to get right in this task.")
            values = {"check_kind": GOLD, "expected": ranks, "retired": False}
            turn.connection.execute(update(Task).where(Task.id == row.id).values(**values))
            turn.record(GOLD_ITEM, task_id)

    def results(self) -> list[CheckResult]:
        """Everybody who judged a check or is paused, the lowest share first."""
        with self.look() as turn:
            rows = turn.connection.execute(
                select(Annotator.annotator_id, Annotator.name, Annotator.simulated, Tally.__table__)
                .join(Tally, Tally.annotator_id == Annotator.id)
                .where(Tally.project_id == turn.project_id, (Tally.checks_seen > 0) | Tally.paused.is_not(None))
                .order_by(Annotator.name)
            ).all()
        found = [self._result(row) for row in rows]
        return sorted(found, key=lambda one: 1.0 if one.share is None else one.share)

    def warnings(self) -> list[CheckResult]:
        """Those whom the lead should talk to: below `warn_below`, or paused."""
        return [one for one in self.results() if one.warning or one.paused]

    def _result(self, row: Row[Any]) -> CheckResult:
        share = row.checks_score / row.checks_seen if row.checks_seen else None
        checks = self.rules.checks
        warning = (
            checks is not None
            and row.checks_seen >= checks.after
            and row.checks_score / row.checks_seen < (checks.warn_below)
        )
        return CheckResult(
            annotator_id=row.annotator_id,
            name=row.name,
            simulated=row.simulated,
            seen=row.checks_seen,
            passed=row.checks_passed,
            share=share,
            streak=row.check_streak,
            warning=warning,
            paused=row.paused,
        )


def next_check(turn: Turn, actor: Actor, project: str, *, but: int | None = None) -> Row[Any] | None:
    """A check that the annotator has not answered, drawn for this place of theirs; None where they had all.

    The check `but`, by its row id, is passed over.
    """
    ids = [one for one in turn.connection.execute(free_checks(turn, actor.id)).scalars() if one != but]
    if not ids:
        return None
    chosen = ids[int(place(project, actor.annotator_id, actor.answered, "check") * len(ids))]
    return turn.connection.execute(select(Task.__table__).where(Task.id == chosen)).one()


def free_checks(turn: Turn, annotator: int) -> Select[int]:
    """The query for the checks that may be handed to an annotator who has not answered them, by their row ids."""
    checks = select(Task.id).where(Task.project_id == turn.project_id, Task.check_kind.is_not(None))
    free = checks.where(~Task.retired, Task.flagged == 0, open_to(turn.project_id, annotator), ~answered_by(annotator))
    return free.order_by(Task.id)


def adjudicated_ranks(turn: Turn, task: int) -> list[int] | None:
    """What the adjudicator said of a task (its row id), in the order of its responses; None where none has ranked."""
    query = select(Answer.ranks).where(
        Answer.task_id == task, Answer.purpose == ADJUDICATION, Answer.kind == JUDGEMENT, current()
    )
    return turn.connection.execute(query.order_by(Answer.id.desc()).limit(1)).scalar_one_or_none()


def score_check(turn: Turn, actor: Actor, rules: Rules, answer: int, task: Row[Any], ranks: Sequence[int]) -> None:
    """Hold a first judgement of a check against what is expected; pause the annotator where too much is wrong.

    Args:
        answer: the judgement's row id.
        task: with `id`, `check_kind` and `expected`.
    """
    if task.expected is None or _scored_before(turn, actor, task.id, answer):
        return
    share = share_right(task.expected, ranks)
    checks = rules.checks
    passed = share >= (checks.warn_below if checks else 1.0)
    tally = actor.tally
    seen, score = tally.checks_seen + 1, tally.checks_score + share
    values: dict[str, Any] = {
        "checks_seen": seen,
        "checks_score": score,
        "checks_passed": tally.checks_passed + passed,
        "check_streak": tally.check_streak + 1 if passed else 0,
    }
    if checks and seen >= checks.after and score / seen < checks.pause_below and tally.paused is None:
        values["paused"] = PAUSE
        turn.record("paused by checks", actor.annotator_id)
    mine = (Tally.project_id == turn.project_id) & (Tally.annotator_id == actor.id)
    turn.connection.execute(update(Tally).where(mine).values(**values))


def _scored_before(turn: Turn, actor: Actor, task: int, answer: int) -> bool:
    query = select(Answer.id).where(
        Answer.task_id == task,
        Answer.annotator_id == actor.id,
        Answer.purpose.in_(CHECKS),
        Answer.kind == JUDGEMENT,
        Answer.id < answer,
    )
    return turn.connection.execute(query.limit(1)).one_or_none() is not None


def _close_others(turn: Turn, keys: Sequence[str]) -> None:
    """Close the checks that are neither in the file, by their keys, nor made by a lead, which the audit log knows."""
    checks = select(Task.id, Task.key).where(Task.project_id == turn.project_id, Task.check_kind.is_not(None))
    others = {row.key: row.id for row in turn.connection.execute(checks.where(~Task.retired, Task.key.not_in(keys)))}
    if others:
        made = select(AuditEntry.subject).where(AuditEntry.project == turn.project, AuditEntry.action == GOLD_ITEM)
        by_lead = set(turn.connection.execute(made).scalars())
        gone = [task for key, task in sorted(others.items()) if key not in by_lead]
        turn.connection.execute(update(Task).where(Task.id.in_(gone)).values(retired=True))


def _task(turn: Turn, key: str) -> Row[Any]:
    query = select(Task.__table__).where(Task.project_id == turn.project_id, Task.key == key)
    row = turn.connection.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise StoreError("this task is not in the store: load the list again.")
    return row
